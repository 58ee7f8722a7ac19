"""How often drift detection is wrong, and how long it takes to be right: streams drawn from a real year of flights.

A stream is 52 weeks of summaries of real days, drawn with replacement: `days` draws single days; `weeks` draws seven
days that follow each other, so that a cold spell stays one. Its reference is drawn the same way. What is injected is
done to the rows, and the model answers the changed rows; it begins after 13 weeks and stays.

    python -m benchmarks.drift [--streams 200] [--changed 200] [--processes 2] [--page docs/benchmarks/drift.md]
                               [--picture docs/pictures/drift.png]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models import upstream
from models.flight_delay.rows import rows as rows_of
from tasks.ground import files, import_closure, params
from tasks.modelling import daily_summaries, profile, user_code
from tasks.monitoring.drift import drift
from tasks.tables import contract, table_files
from tasks.training.conformance import conform

MODEL = "flight_delay"
YEAR, DRAWN, WEEKS, LEARNED, BEGINS, SOON = 365, 363, 52, 39, 13 * 7, 6 * 7
"""Days of the year; those that are drawn (weather ends on the evening of 30 December, and a day without any is told,
as it should be); weeks of a stream and of its reference; the day on which a drift begins, and how many days later
it is looked for first."""

SHIFTED = ("distance", "hour", "temp", "dewp", "humid", "wind_speed", "wind_dir", "visib", "pressure")
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#6B6B6B"

Column = daily_summaries.ColumnLayout
Change = Callable[[pd.DataFrame], pd.DataFrame]


# ── the real days ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class World:
    """A year of rows with predictions of models that have not seen the day, and how to summarise them."""

    rows: pd.DataFrame
    wanted: dict[str, Column]
    units: dict[str, str | None]
    predict: Callable[[pd.DataFrame], np.ndarray]

    def summaries(self, change: Change | None = None) -> daily_summaries.DaySummaries:
        """The day summaries of the year, changed or as it was."""
        if change is None:
            return daily_summaries.summarise(self.rows, self.wanted)
        changed = change(self.rows.copy())
        return daily_summaries.summarise(changed.assign(p_1=self.predict(changed)), self.wanted)


def world(late_after: float = 15) -> World:
    """The rows of flight_delay, predicted by two models of which each learned the other's days."""
    model = params.load().model(MODEL)
    rows = year(late_after)
    odd = rows["time"].dt.day_of_year.to_numpy() % 2 == 1
    fitted = []
    for learn in (odd, ~odd):
        pipeline = user_code.build_pipeline(MODEL, model)
        fitted.append(pipeline.fit(rows.loc[learn, list(model.features)], rows.loc[learn, "label"]))

    def predict(frame: pd.DataFrame) -> np.ndarray:
        given, found = frame[list(model.features)], np.zeros(len(frame))
        for unseen, pipeline in zip((~odd, odd), fitted, strict=True):
            found[unseen] = pipeline.predict_proba(given[unseen])[:, 1]
        return found

    rows = rows.assign(p_1=predict(rows))
    described = {name: feature.model_dump() for name, feature in model.features.items()}
    wanted = daily_summaries.columns(profile.reference_profile(rows, described, rows[["p_1"]]))
    return World(rows, wanted, {name: feature.unit for name, feature in model.features.items()}, predict)


def year(late_after: float) -> pd.DataFrame:
    """The rows of every month, in order."""
    model, months = params.load().model(MODEL), []
    with tempfile.TemporaryDirectory() as folder:
        for partition in upstream.partitions():
            tables = {}
            for dataset in upstream.DATASETS:
                name, data = upstream.deliver(dataset, partition)
                path = Path(folder) / f"{dataset}-{name}"
                path.write_bytes(data)
                tables[dataset] = table_files.read(path, contract.load(MODEL, dataset))
            months.append(conform(rows_of(tables, late_after=late_after), MODEL, model))
    return pd.concat(months, ignore_index=True)


def thinned(rows: int) -> Change:
    """So many rows of each day, as where only few predictions are asked for."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        drawn = frame.sample(frac=1, random_state=0)
        return drawn.groupby(drawn["time"].dt.normalize()).head(rows).sort_index()

    return change


# ── drawn streams ─────────────────────────────────────────────────────────────────────────────────


def draw(scheme: str, weeks: int, rng: np.random.Generator) -> np.ndarray:
    """The days of the year that make so many weeks, one after the other."""
    if scheme == "days":
        return rng.integers(0, DRAWN, weeks * 7)
    return (rng.integers(0, DRAWN - 6, weeks)[:, None] + np.arange(7)).ravel()


def stream(source: daily_summaries.DaySummaries, chosen: np.ndarray, first: str) -> daily_summaries.DaySummaries:
    """The summaries of the chosen days of the year, dated from `first` on."""
    made = {}
    for name, found in source.items():
        place = np.full(YEAR, -1)
        place[(found.days - np.datetime64("2013-01-01")).astype(int)] = np.arange(len(found.days))
        at = place[chosen]
        dates = np.datetime64(first) + np.flatnonzero(at >= 0)
        at = at[at >= 0]
        unknown = tuple(found.unknown[i] for i in at)
        arrays = {key: getattr(found, key)[at] for key in ("rows", "missing", "total", "squares", "counts")}
        made[name] = replace(found, days=dates, unknown=unknown, **arrays)
    return made


@dataclass(frozen=True)
class Case:
    """A kind of streams: what they are drawn from, and how."""

    name: str
    size: str
    scheme: str
    change: Change | None = None
    column: str = ""
    """Where the drift is; empty where there is none."""
    learned: int | None = LEARNED
    """Weeks of the drawn reference; None: the real year, in order."""
    thin: int | None = None
    large: bool = False
    """Whether the drift is of the size that is promised to be found."""


@dataclass(frozen=True)
class Outcome:
    """What became of one stream."""

    false: bool
    """An alarm before anything changed."""
    delay: int | None
    """Days from the change to an alarm that has the column; None if there was none."""
    named: bool
    """That alarm names the column first."""


WORLD: World
REAL: daily_summaries.DaySummaries
CASES: list[Case]


def run(case: Case, streams: int, seed: int = 0) -> list[Outcome]:
    """Draw streams and look at each with `detect`."""
    source = REAL
    if case.thin:
        source = daily_summaries.summarise(thinned(case.thin)(WORLD.rows), WORLD.wanted)
    changed = None if case.change is None else WORLD.summaries(case.change)
    return [_one(case, source, changed, np.random.default_rng([seed, number])) for number in range(streams)]


def _one(
    case: Case,
    source: daily_summaries.DaySummaries,
    changed: daily_summaries.DaySummaries | None,
    rng: np.random.Generator,
) -> Outcome:
    reference = REAL if case.learned is None else stream(REAL, draw(case.scheme, case.learned, rng), "2013-01-01")
    chosen = draw(case.scheme, WEEKS, rng)
    if changed is None:
        report = drift.detect(WORLD.wanted, reference, stream(source, chosen, "2014-01-01"))
        return Outcome(bool(report.alarms), None, False)
    # what is said of a day depends on no later one (tests/test_drift.py): most need not be looked at
    soon = _told(case, reference, source, changed, chosen[: BEGINS + SOON])
    return soon if soon.delay is not None else _told(case, reference, source, changed, chosen)


def _told(
    case: Case,
    reference: daily_summaries.DaySummaries,
    source: daily_summaries.DaySummaries,
    changed: daily_summaries.DaySummaries,
    chosen: np.ndarray,
) -> Outcome:
    """What is said on the last of the chosen days."""
    begin = np.datetime64("2014-01-01") + BEGINS
    parts = [stream(source, chosen[:BEGINS], "2014-01-01"), stream(changed, chosen[BEGINS:], str(begin))]
    report = drift.detect(WORLD.wanted, reference, daily_summaries.merge(parts))
    false = any(alarm.opened < begin for alarm in report.alarms)
    for alarm in report.alarms:
        for moved in alarm.moved:
            if moved.column == case.column and moved.opened >= begin:
                return Outcome(false, (moved.opened - begin.item()).days + 1, alarm.moved[0].column == case.column)
    return Outcome(false, None, False)


# ── what is injected ──────────────────────────────────────────────────────────────────────────────


def quiet() -> list[Case]:
    """Streams in which nothing changes."""
    return [
        Case("single days", "", "days"),
        Case("whole weeks", "", "weeks"),
        Case("whole weeks; reference: the real year, in order", "", "weeks", learned=None),
        Case("whole weeks; a reference of 8 weeks", "", "weeks", learned=8),
        Case("whole weeks; 20 rows a day, in the reference about 900", "", "weeks", thin=20),
    ]


def loud() -> Iterator[Case]:
    """Streams in which something does; of whole weeks, and what is hard to see of single days too."""
    for scheme in ("weeks", "days"):
        for column in SHIFTED:
            for size in (0.2, 0.5):
                name, change = f"{column} shifted", _plus(column, size)
                yield Case(name, f"{size} sd", scheme, change, column, large=size == 0.5)
        yield Case("label: late by 30 min", "24 → 15 %", scheme, _relabelled(30), "label")
        yield Case("label: late by 5 min", "24 → 34 %", scheme, _relabelled(5), "label")
        yield Case("label: late by 60 min", "24 → 8 %", scheme, _relabelled(60), "label", large=True)
        yield Case("label: on time for late", "24 → 76 %", scheme, _turned, "label", large=True)
    yield Case("carrier UA renamed", "18 % of rows", "weeks", _renamed("carrier", "UA"), "carrier", large=True)
    yield Case("carrier FL renamed", "1 % of rows", "weeks", _renamed("carrier", "FL"), "carrier")
    yield Case("temp stuck", "everywhere", "weeks", _stuck("temp", None), "temp", large=True)
    yield Case("temp stuck", "at EWR", "weeks", _stuck("temp", "EWR"), "temp")
    yield Case("missing pressure tripled", "11 → 33 %", "weeks", _missing("pressure"), "pressure", large=True)
    yield Case("missing wind_dir tripled", "3 → 9 %", "weeks", _missing("wind_dir"), "wind_dir")
    yield Case("temp in °C", "for °F", "weeks", _scaled("temp", 5 / 9, -32 * 5 / 9), "temp", large=True)
    yield Case("wind_speed in m/s", "for mph", "weeks", _scaled("wind_speed", 0.44704, 0), "wind_speed", large=True)
    yield Case("pressure in inHg", "for mbar", "weeks", _scaled("pressure", 0.02953, 0), "pressure", large=True)


def _plus(column: str, size: float) -> Change:
    return lambda frame: frame.assign(**{column: frame[column] + size * frame[column].std()})


def _renamed(column: str, value: str) -> Change:
    return lambda frame: frame.assign(**{column: frame[column].where(frame[column] != value, f"{value} Inc.")})


def _stuck(column: str, origin: str | None) -> Change:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        here = frame[column].notna() & (origin is None or frame["origin"] == origin)
        return frame.assign(**{column: frame[column].mask(here, frame[column].median())})

    return change


def _missing(column: str) -> Change:
    """Of readings, not of rows: one reading is of an airport and an hour."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        reading = frame.groupby(["origin", frame["time"].dt.floor("h")]).ngroup().to_numpy()
        share = frame[column].isna().mean()
        lost = np.random.default_rng(0).random(reading.max() + 1) < 2 * share / (1 - share)
        return frame.assign(**{column: frame[column].mask(lost[reading])})

    return change


def _scaled(column: str, factor: float, plus: float) -> Change:
    return lambda frame: frame.assign(**{column: frame[column] * factor + plus})


def _turned(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(label=1 - frame["label"])


def _relabelled(late_after: float) -> Change:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        other = year(late_after)
        if not (other["id"] == frame["id"]).all():
            raise ValueError("the rows are not in the same order")
        return frame.assign(label=other["label"])

    return change


# ── the page ──────────────────────────────────────────────────────────────────────────────────────


def page(nothing: list[tuple[Case, list[Outcome]]], something: list[tuple[Case, list[Outcome]]]) -> str:
    """docs/benchmarks/drift.md."""
    from scipy.stats import binomtest

    streams, changed = len(nothing[0][1]), len(something[0][1])
    lines = [
        "# Drift: how often it is wrong, and how long it takes to be right",
        "",
        f"Written by `python -m benchmarks.drift`: {streams} streams a line where nothing changes, {changed} where",
        f"something does, each of {WEEKS} weekly windows of summaries of the real days of 2013, drawn with",
        "replacement, with all columns of `flight_delay`: features,",
        "prediction and label. *single days*: day by day; *whole weeks*: seven days that follow each other. The",
        f"reference is drawn the same way, {LEARNED} weeks of it, where nothing else is said. The method, and what",
        "else was tried: [decisions/drift](../decisions/drift.md).",
        "",
        "## Nothing changes",
        "",
        "| drawn | streams that ever alarm | no more than (95 %) |",
        "| --- | --- | --- |",
    ]
    for case, outcomes in nothing:
        wrong = sum(outcome.false for outcome in outcomes)
        most = binomtest(wrong, len(outcomes), alternative="less").proportion_ci(0.95).high
        lines.append(f"| {case.name} | {wrong} of {len(outcomes)} | {most:.1%} |")
    lines += [
        "",
        "## Something changes, after 13 weeks",
        "",
        "Delay in days, from the first changed day to the one whose rows raise the alarm; a weekly monitor shows it",
        "at the end of that week. *95 %*: the day by which 19 of 20 streams had alarmed; — where fewer did in the 39",
        "weeks that are left. *named*: how many of these alarms name the column first, of all that moved with it, six",
        "weeks after the change or, if it took longer, at the end.",
        "",
        "| drift | size | drawn | detected | median | 95 % | named |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_line(case, outcomes) for case, outcomes in something]
    early = sum(outcome.false for _, outcomes in something for outcome in outcomes)
    total = sum(len(outcomes) for _, outcomes in something)
    lines += [
        "",
        f"Alarms in the 13 weeks before the change: {early} of {total} streams.",
        "",
        "![One stream](../pictures/drift.png)",
        "",
        "## The real year, in order",
        "",
        "Seasons are drift. With the months before as the reference, the rest of the year raises:",
        "",
        *_in_order(),
    ]
    return "\n".join(lines) + "\n"


def _line(case: Case, outcomes: list[Outcome]) -> str:
    delays = np.sort([math.inf if outcome.delay is None else outcome.delay for outcome in outcomes])
    found = np.isfinite(delays).sum()
    median, most = (delays[math.ceil(share * len(delays)) - 1] for share in (0.5, 0.95))
    named = sum(outcome.named for outcome in outcomes) / max(found, 1)
    cells = ["—" if math.isinf(delay) else f"{delay:.0f}" for delay in (median, most)]
    share = f"{found / len(delays):.0%}"
    return f"| {case.name} | {case.size} | {case.scheme} | {share} | {cells[0]} | {cells[1]} | {named:.0%} |"


def _in_order() -> list[str]:
    lines = ["| reference | opened | closed | alarm |", "| --- | --- | --- | --- |"]
    for until, called in ((181, "January to June"), (273, "January to September")):
        first = str(np.datetime64("2013-01-01") + until)
        parts = stream(REAL, np.arange(until), "2013-01-01"), stream(REAL, np.arange(until, YEAR), first)
        report = drift.detect(WORLD.wanted, *parts, units=WORLD.units)
        lines += [f"| {called} | {a.opened} | {a.closed or ''} | {a.text} |" for a in report.alarms]
    return lines


# ── the picture ───────────────────────────────────────────────────────────────────────────────────


def picture(path: Path) -> str:
    """Temperature shifted by 0.5 standard deviations: the days, the evidence, and what is said of it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    changed = WORLD.summaries(_plus("temp", 0.5))
    rng = np.random.default_rng(7)
    reference, chosen = stream(REAL, draw("weeks", LEARNED, rng), "2013-01-01"), draw("weeks", WEEKS, rng)
    begin = np.datetime64("2014-01-01") + BEGINS
    parts = [stream(REAL, chosen[:BEGINS], "2014-01-01"), stream(changed, chosen[BEGINS:], str(begin))]
    seen = daily_summaries.merge(parts)
    report = drift.detect(WORLD.wanted, reference, seen, units=WORLD.units)
    alarm = report.alarms[0]

    def means(found: daily_summaries.ColumnDays) -> Any:
        known = np.maximum(found.known, 1)
        return np.where(found.known > 0, found.column.centre + found.column.scale * found.total / known, np.nan)

    figure = Figure(figsize=(7.3, 5.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, sharex=True)
    figure.suptitle(
        "A thermometer that reads 9 °F too much is lost in the seasons, but stops fitting dew point", fontsize=11
    )
    before = means(reference["temp"])
    low, high = np.nanquantile(before, [0.05, 0.95])
    top.axhspan(low, high, color="#E3E3E3", lw=0)
    top.text(np.datetime64("2013-12-18"), low - 1, "grey band: 90 % of the reference's days", fontsize=8.5, va="top")
    top.plot(seen["temp"].days, means(seen["temp"]), ".", color=BLUE, ms=3.5)
    top.set_ylabel("temp, daily mean [°F]")
    # what a single column is raised to is no news: nobody doubts 10³⁰
    drawn = [("temp", ORANGE, 2.0), ("hour", GREY, 1.0), ("distance", BLUE, 1.0)]
    for name, colour, width in drawn:
        evidence = np.clip(report.findings[name].evidence, -1, 30)
        bottom.plot(np.array(report.days, dtype="datetime64[D]"), evidence, color=colour, lw=width, label=name)
    bottom.axhline(report.threshold, color="#222222", lw=1, ls=(0, (4, 3)))
    bottom.text(np.datetime64("2014-01-03"), report.threshold + 0.7, "enough for one column alone", fontsize=8.5)
    bottom.set_ylabel("evidence against «as in training»\n[log10, cut at 30]")
    bottom.legend(frameon=False, fontsize=8.5, loc="center left")
    for panel in (top, bottom):
        panel.axvline(begin, color=GREY, lw=1)
        panel.axvline(np.datetime64(alarm.opened), color=ORANGE, lw=1)
        panel.spines[["top", "right"]].set_visible(False)
    bottom.set_xlabel(
        f"grey: the shift begins, {begin}; orange: the alarm, {alarm.opened}: “{alarm.text}”", fontsize=8, wrap=True
    )
    with files.replacing(path) as beside:
        figure.savefig(beside, format="png")
    return alarm.text


# ── everything ────────────────────────────────────────────────────────────────────────────────────

Outcomes = list[tuple[Case, list[Outcome]]]


def everything(streams: int, changed: int, processes: int, tell: Callable[[str], Any] = print) -> Outcomes:
    """Every case: so many streams in which nothing changes, and in which something does.

    What was seen of a case is kept until this code changes (var/memo): what is broken off goes on.
    """
    global WORLD, REAL, CASES  # noqa: PLW0603 - what forked processes share
    begin, found = time.monotonic(), []
    WORLD = world()
    REAL = WORLD.summaries()
    CASES = [*quiet(), *loud()]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        jobs = [(number, changed if case.change else streams) for number, case in enumerate(CASES)]
        for case, outcomes in zip(CASES, pool.imap(_work, jobs), strict=True):
            found.append((case, outcomes))
            said = _line(case, outcomes) if case.change else f"{case.name}: {sum(o.false for o in outcomes)} alarm"
            tell(f"{time.monotonic() - begin:6.0f} s  {said}")
    return found


def _work(job: tuple[int, int]) -> list[Outcome]:
    case, streams = CASES[job[0]], job[1]
    own = import_closure.hashes(__file__)
    del own["tasks/ground/params.py"]  # what it says of the model counts, not the rest
    model = params.load().model(MODEL)
    said = [{name: f.model_dump() for name, f in model.features.items()}, model.estimator.model_dump(), model.options]
    key = [own, said, streams, *(str(getattr(case, f.name)) for f in fields(case) if f.name not in ("change", "large"))]

    def write(target: Path) -> None:
        files.write_json(target, [asdict(outcome) for outcome in run(case, streams)])

    return [Outcome(**outcome) for outcome in files.read_json(files.memo("drift/outcomes", key, ".json", write))]


def promises(found: Outcomes) -> list[str]:
    """What was promised of drift, and whether it holds: lines of a page."""
    streams, changed = len(found[0][1]), len(found[-1][1])
    lines = [
        "## Drift",
        "",
        f"{streams} streams of {WEEKS} weeks for each way of drawing them, {changed} for each of the drifts:",
        "every one of them, with its delay, is in [drift.md](drift.md).",
        "",
        "| promised | | held |",
        "| --- | --- | --- |",
    ]
    for case, outcomes in found:
        if case.change is None:
            wrong = sum(outcome.false for outcome in outcomes)
            what = "at most 5 % ever alarm, where nothing changes"
            lines.append(f"| {what} | {case.name}: {wrong} of {streams} | {_kept(wrong <= 0.05 * streams)} |")
    for called, wanted in (("larger", True), ("smaller", False)):
        of = [(case, outcomes) for case, outcomes in found if case.change is not None and case.large == wanted]
        missed = [words for words in (_missed(case, outcomes) for case, outcomes in of) if words]
        what = f"{len(of) - len(missed)} of {len(of)} drifts"
        what += f"; not: {'; '.join(missed)}" if missed else ""
        kept = _kept(not missed) if wanted else "not promised"
        lines.append(f"| the {called} size is found in at least 95 % of streams | {what} | {kept} |")
    return [*lines, "", "What is not found, and why: [decisions/drift](../decisions/drift.md), under Cost.", ""]


def _kept(holds: bool) -> str:
    return "yes" if holds else "**no**"


def _missed(case: Case, outcomes: list[Outcome]) -> str:
    """How often a drift is found that is found too seldom; empty where it is not."""
    seen = sum(outcome.delay is not None for outcome in outcomes) / len(outcomes)
    return "" if seen >= 0.95 else f"{case.name} by {case.size}, of {case.scheme} ({seen:.0%})"


def main() -> None:
    """Everything, on some processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200, help="a kind, in which nothing changes (200)")
    parser.add_argument("--changed", type=int, default=200, help="a kind, in which something does (200)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/drift.md"))
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/drift.png"))
    given = parser.parse_args()
    tell = partial(print, flush=True)
    outcomes = everything(given.streams, given.changed, given.processes, tell)
    publish(outcomes, given.page, given.picture)


def publish(found: Outcomes, page_at: Path, picture_at: Path) -> None:
    """The page and the picture; after `everything`."""
    picture(picture_at)
    split = len(quiet())
    files.write_text(page_at, page(found[:split], found[split:]))


if __name__ == "__main__":
    main()
