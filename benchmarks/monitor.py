"""Whether the monitor keeps its promises, on the real year of flights: drift, the estimate of quality, and the gate.

drift     streams without drift and with it: benchmarks/drift.py, which has a page of its own.
estimate  the models that a backtest trains every four weeks (backtest_history.py) answer the weeks that follow; what
          loss they are estimated to have before labels come, and what it turned out to be.
gate      models that differ by their seed only, by what they learned from, or by one bad slice, through the gate of
          params.yaml, `rule: better`.

    python -m benchmarks.monitor [--parts drift estimate gate] [--jobs 2] [--page docs/benchmarks/monitor.md]
                                 [--picture docs/pictures/estimate.png]

What was measured is kept below var/memo: what was broken off goes on where it was, what changed is measured again.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import textwrap
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Evergreen sets it: OpenMP spins beside other work

import numpy as np
import pandas as pd

from benchmarks import drift
from benchmarks.machine import machine
from tasks.ground import files, import_closure, params, settings
from tasks.lifecycle import backtest_history
from tasks.modelling import metrics, rows, user_code
from tasks.monitoring.quality import quality
from tasks.release.gate import gate

PARTS = ("drift", "estimate", "gate")
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#6B6B6B"

EVERY, AHEAD = 4, 12
"""Weeks from one training to the next; weeks after a training that are looked at, where it is the last one."""

MODEL = "flight_delay"
MONTHS, SEEDS = tuple(range(5, 13)), 25
"""Holdouts of the gate's trials, and models per holdout that differ by their seed only: 200 pairs."""

LEARNED = 60_000
"""Rows that a model of a trial learns from: the newest before the holdout."""


# ── the estimate ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Week:
    """A week of a model, as it was estimated and as it was."""

    model: str
    trained: pd.Timestamp
    number: int
    """From 1, counted from the training."""
    since: pd.Timestamp
    truth: float
    promised: dict[str, float]
    """The mean loss of the holdout, {value, low, high}."""
    blind: quality.Estimate
    """Without any label since the training; with how far off the models before were."""
    told: quality.Estimate
    """With the labels of the weeks before, too."""
    first: quality.Estimate
    """Without either, as of a first release."""
    off: quality.Off
    """Of the blind one."""

    @property
    def next(self) -> bool:
        """Whether the model would have served, trained again every EVERY weeks."""
        return self.number <= EVERY


def weeks(name: str, workers: Executor | None = None) -> list[Week]:
    """Every week of every EVERY-th model of a history, up to AHEAD weeks after its training."""
    lived = backtest_history.read(name, params.load(), "upstream")
    chosen = backtest_history.trainings(lived)[::EVERY]
    found: list[Week] = []
    for fit in (workers.map if workers else map)(backtest_history.fit, chosen):
        found += _weeks(lived, fit, [week for week in found if week.next])
    return found


def _weeks(lived: backtest_history.History, fit: backtest_history.Fit, before: list[Week]) -> list[Week]:
    """What is said of the weeks after a training, by who knows how far off the weeks before it were."""
    task, loss, trained = lived.model.task, lived.model.gate.loss, lived.moments[fit.moment]
    answers = pd.read_parquet(fit.answers).set_index("at")
    known = lived.rows[["time", "label"]].join(answers, how="inner")
    holdout = known.loc[lived.in_holdout(trained).nonzero()[0]]
    promised = quality.measure(task, loss, holdout, resamples=1000).of_loss
    first = quality.LossEstimator.fit(task, loss, holdout)
    blind = quality.LossEstimator.fit(task, loss, holdout, past=[week.off.value for week in before])
    past = [week.truth - week.told.value for week in before]
    found = []
    served = [moment.served for moment in lived.moments[trained.number : trained.number + AHEAD]]
    for number, (begin, end) in enumerate(served, 1):
        frame = known.loc[begin : end - 1]
        if frame["time"].dt.normalize().nunique() < 7:
            continue  # the year ends on a Tuesday
        told = quality.LossEstimator.fit(task, loss, holdout, known.loc[served[0][0] : begin - 1], past)
        measured, asked = quality.measure(task, loss, frame, resamples=100), frame.drop(columns="label")
        guesses = [estimator.estimate(asked) for estimator in (blind, told, first)]
        off, truth = quality.off(guesses[0], measured), measured.of_loss
        if promised is None or truth is None or off is None or None in guesses:
            raise ValueError(f"{lived.name}, week {number} after {trained.at}: {blind.lacking(asked) or measured.text}")
        when, since = pd.Timestamp(trained.at), frame["time"].min().normalize()
        found.append(Week(lived.name, when, number, since, truth["value"], promised, *guesses, off))
    return found


def held(estimates: Iterable[tuple[quality.Estimate, float]]) -> tuple[int, int]:
    """How many intervals hold the truth, and how many there are."""
    kept = [estimate.low <= truth <= estimate.high for estimate, truth in estimates]
    return sum(kept), len(kept)


def estimate_page(found: list[Week]) -> list[str]:
    """What is said of the estimate."""
    lines = [
        "## The estimate of quality",
        "",
        f"Models trained every {EVERY} weeks, each by the step `train` on what was there. The loss of each week until",
        "the next training is estimated from their holdout of four weeks; 95 % intervals. *no labels*: none since the",
        "training, but how far off the models before were is known. *labels a week late*: those of the weeks before",
        "are known. *a first release*: neither is. *the holdout's own interval*: what the holdout's loss was, with its",
        "interval over days, if one took it for a forecast. *error*: mean absolute difference from the true loss;",
        "*width*: median of the intervals. At least 90 % are to be held without labels.",
        "",
        "| model | loss | weeks | | held | error | width |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, own in _by_model(found):
        now = [week for week in own if week.next]
        loss = now[0].blind.loss
        for called, guess in _GUESSES.items():
            triples = [(guess(week), week.truth) for week in now]
            kept = sum(low <= truth <= high for (_, low, high), truth in triples)
            error = np.mean([abs(value - truth) for (value, _, _), truth in triples])
            width = np.median([high - low for (_, low, high), _ in triples])
            share = f"{kept} ({kept / len(now):.0%})"
            lines.append(f"| {name} | {loss} | {len(now)} | {called} | {share} | {error:.4f} | {width:.3f} |")
    lines += [
        "",
        "And where it is not trained again: held, by how many weeks the training is ago.",
        "",
        "| model | | " + " | ".join(f"{a} to {b}" for a, b in _SPANS) + " |",
        "| --- | --- |" + " --- |" * len(_SPANS),
    ]
    for name, own in _by_model(found):
        for called in ("no labels", "labels a week late"):
            cells = []
            for first, last in _SPANS:
                of = [week for week in own if first <= week.number <= last]
                estimates = [(week.blind if called == "no labels" else week.told, week.truth) for week in of]
                kept, count = held(estimates)
                cells.append(f"{kept} of {count}")
            lines.append(f"| {name} | {called} | {' | '.join(cells)} |")
    lines += ["", "Outside of the interval, until the next training and without labels:", ""]
    missed = [week for week in found if week.next and not week.blind.low <= week.truth <= week.blind.high]
    lines += [f"- {week.model}, week of {week.since:%d %B}: {week.off.text}." for week in missed] or ["- none."]
    return [*lines, "", "![The estimate of each week, and what it was](../pictures/estimate.png)", ""]


_SPANS = ((1, 4), (5, 8), (9, AHEAD))
_GUESSES: dict[str, Callable[[Week], tuple[float, float, float]]] = {
    "no labels": lambda week: (week.blind.value, week.blind.low, week.blind.high),
    "labels a week late": lambda week: (week.told.value, week.told.low, week.told.high),
    "a first release": lambda week: (week.first.value, week.first.low, week.first.high),
    "the holdout's own interval": lambda w: (w.promised["value"], w.promised["low"], w.promised["high"]),
}


def _by_model(found: list[Week]) -> list[tuple[str, list[Week]]]:
    return [(name, [w for w in found if w.model == name]) for name in dict.fromkeys(w.model for w in found)]


def draw(found: list[Week], path: Path) -> None:
    """The estimate of each week until the next training, and what the loss turned out to be."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import DateFormatter, MonthLocator
    from matplotlib.figure import Figure

    models = _by_model([week for week in found if week.next])
    figure = Figure(figsize=(7.3, 2.7 * len(models) + 0.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.ravel(figure.subplots(len(models), sharex=True, squeeze=False))
    for panel, (name, own) in zip(panels, models, strict=True):
        kept, count = held((week.blind, week.truth) for week in own)
        panel.set_title(f"{name}: the interval holds the true loss in {kept} of {count} weeks", fontsize=10, loc="left")
        for week in own:
            place = [week.since, week.since + pd.Timedelta(days=6.5)]
            panel.fill_between(place, week.blind.low, week.blind.high, color=BLUE, alpha=0.18, lw=0)
            panel.plot(place, [week.blind.value] * 2, color=BLUE, lw=1.6)
            inside = week.blind.low <= week.truth <= week.blind.high
            colour = "#222222" if inside else ORANGE
            panel.plot(place[0] + pd.Timedelta(days=3.25), week.truth, "o" if inside else "D", color=colour, ms=4)
        for trained in dict.fromkeys(week.trained for week in own):
            panel.axvline(trained, color=GREY, lw=0.8, ls=(0, (2, 3)))
        panel.set_ylabel(f"{own[0].blind.loss}, a week's mean")
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.set_major_locator(MonthLocator())
        panel.xaxis.set_major_formatter(DateFormatter("%b"))
    panels[-1].set_xlabel(
        "2013. Blue: estimated without labels, 95 % interval; black: the true loss; orange: outside; dotted: trained",
        fontsize=8.5,
    )
    with files.replacing(path) as beside:
        figure.savefig(beside, format="png")


# ── the gate ──────────────────────────────────────────────────────────────────────────────────────


WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")

KINDS: dict[str, Callable[[pd.DataFrame, int], pd.DataFrame]] = {
    "as the challenger": lambda before, count: before.tail(count),
    "learned from 1/2 of the rows": lambda before, count: before.tail(count).iloc[::2],
    "learned from 1/6 of the rows": lambda before, count: before.tail(count).iloc[::6],
    "learned from 1/20 of the rows": lambda before, count: before.tail(count).iloc[::20],
    "learned from the year's first rows": lambda before, count: before.head(count),
    "knows no weather": lambda before, count: before.tail(count).assign(**dict.fromkeys(WEATHER, 0.0)),
}
"""Models of a trial: what they learn from, of the rows before the holdout."""

SAME, *WORSE = KINDS
POWER_SEEDS, REDRAWS = 3, 10
"""Pairs of each handicap and month; and how often the days of the first one's holdout are drawn again."""

SPOILED = (0.05, 0.1, 0.15, 0.2)
"""By how much the loss of one slice is made worse than the champion's."""


@dataclass(frozen=True)
class Trained:
    """A model of a trial."""

    kind: str
    month: int
    seed: int
    learned: int = LEARNED


@dataclass(frozen=True)
class Trial:
    """A comparison that the gate is asked to judge."""

    challenger: Trained
    champion: Trained
    spoiled: tuple[str, float] | None = None
    """Of the challenger's predictions: a slice, and how much worse than the champion's its loss is made."""
    redrawn: int | None = None
    """The holdout is as many of its own days, drawn with replacement, so that the true difference is known."""


@dataclass(frozen=True)
class Judged:
    """What the gate said."""

    trial: Trial
    promoted: bool
    better: bool
    """Whether the check `improvement` passed."""
    difference: float
    failed: tuple[str, ...]
    slices: tuple[str, ...]
    """Those that are large enough to be judged."""


@cache
def flights() -> pd.DataFrame:
    """The year, by time."""

    def write(target: Path) -> None:
        made = drift.year(15).sort_values(["time", "id"], kind="stable")
        made.to_parquet(target, index=False, compression="zstd")

    return pd.read_parquet(files.memo("monitor/rows", _code(drift.__file__), ".parquet", write))


def month(number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows before a month, and those of it."""
    year = flights()
    begin, end = (int(year["time"].searchsorted(pd.Timestamp(2013, number, 1) + add)) for add in _WHOLE)
    return year.iloc[:begin], year.iloc[begin:end].reset_index(drop=True)


_WHOLE = (pd.DateOffset(months=0), pd.DateOffset(months=1))


def learn(who: Trained) -> pd.DataFrame:
    """What a model of a trial learns from."""
    return KINDS[who.kind](month(who.month)[0], who.learned)


def answer(who: Trained) -> np.ndarray:
    """The probability of being late that a model gives each row of its month."""

    def write(target: Path) -> None:
        learned, (_, held_out) = learn(who), month(who.month)
        said = _params()
        estimator = said.estimator.model_copy(update={"seed": who.seed})
        pipeline = user_code.build_pipeline(MODEL, said.model_copy(update={"estimator": estimator}))
        features = list(said.features)
        pipeline.fit(learned[features], learned["label"])
        if who.kind == "knows no weather":
            held_out = held_out.assign(**dict.fromkeys(WEATHER, 0.0))
        with target.open("wb") as stream:
            np.save(stream, pipeline.predict_proba(held_out[features])[:, 1])

    return np.load(files.memo("monitor/answers", _key(who), ".npy", write))


def judge(trial: Trial) -> Judged:
    """Ask the gate, as params.yaml has it."""

    def write(target: Path) -> None:
        verdict = gate.judge(compared(trial), _params().gate, resamples=1000)
        improvement = next(check for check in verdict.checks if check.name == "improvement")
        said = {
            "promoted": verdict.promoted,
            "better": improvement.passed,
            "difference": improvement.value,
            "failed": [check.name for check in verdict.checks if not check.passed],
            "slices": [check.name for check in verdict.checks if check.name.startswith("slice:") and "=" in check.name],
        }
        files.write_json(target, said)

    what = [_key(trial.challenger), _key(trial.champion), trial.spoiled, trial.redrawn]
    key = [what, _params().gate.model_dump(), _code(gate.__file__)]
    said = files.read_json(files.memo("monitor/verdicts", key, ".json", write))
    return Judged(trial, **{**said, "failed": tuple(said["failed"]), "slices": tuple(said["slices"])})


def compared(trial: Trial) -> gate.Comparison:
    """What the gate is asked."""
    said, (_, held_out) = _params(), month(trial.challenger.month)
    wanted = ["id", "time", "label", *said.evaluate.slices]
    share = float(learn(trial.challenger)["label"].mean())
    p, champion = answer(trial.challenger), answer(trial.champion)
    if trial.spoiled:
        p = spoil(p, champion, held_out, *trial.spoiled)
    if trial.redrawn is not None:
        held_out, at = redraw(held_out, trial.redrawn)
        p, champion = p[at], champion[at]
    training = {"task": said.task, "classes": [0, 1], "baseline": {"classes": [1 - share, share]}}
    return gate.Comparison(
        model=MODEL,
        task=said.task,
        holdout=held_out[wanted],
        slices=tuple(said.evaluate.slices),
        challenger=_side("challenger", p, trial.challenger),
        champion=_side("champion", champion, trial.champion),
        baseline=metrics.baseline_predictions(training, len(held_out)),
        champion_age=1,
        latency_ms=1.0,
        size_mb=1.0,
    )


def _side(who: str, p: np.ndarray, trained: Trained) -> gate.Contender:
    features = {name: feature.model_dump() for name, feature in _params().features.items()}
    name = f"{who}-{files.digest(_key(trained))[:8]}"
    return gate.Contender(name, _columns(p), rows.row_hashes(learn(trained)["id"]), features)


def spoil(p: np.ndarray, champion: np.ndarray, held_out: pd.DataFrame, check: str, more: float) -> np.ndarray:
    """Mix the probabilities of one slice with their opposite until its loss is so much more than the champion's."""
    from scipy.optimize import brentq

    column, value = check.removeprefix("slice:").split("=")
    members = (metrics.slice_names(held_out[column]) == value).to_numpy()
    label = held_out["label"].to_numpy()[members]

    def loss(of: np.ndarray) -> float:
        return float(metrics.losses("log_loss", label, _columns(of)).mean())

    aim, own = loss(champion[members]) + more, p[members]
    share = brentq(lambda part: loss((1 - part) * own + part * (1 - own)) - aim, 0.0, 1.0)
    changed = p.copy()
    changed[members] = (1 - share) * own + share * (1 - own)
    return changed


def redraw(held_out: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """As many days of a month, drawn with replacement, one after the other; and where their rows were."""
    days = list(held_out.groupby(held_out["time"].dt.normalize()).indices.values())
    drawn = np.random.default_rng(seed).integers(0, len(days), len(days))
    at = np.concatenate([days[day] for day in drawn])
    place = np.repeat(np.arange(len(days)), [len(days[day]) for day in drawn])
    frame = held_out.iloc[at].reset_index(drop=True)
    clock = frame["time"] - frame["time"].dt.normalize()
    times = held_out["time"].min().normalize() + pd.to_timedelta(place, unit="D") + clock
    return frame.assign(time=times, id=[f"{day}:{name}" for day, name in zip(place, frame["id"], strict=True)]), at


def standard_error(trial: Trial) -> tuple[float, float]:
    """The mean difference in loss, challenger less champion, over the month, and its standard error over days."""
    _, held_out = month(trial.challenger.month)
    label = held_out["label"].to_numpy()
    of = [metrics.losses("log_loss", label, _columns(answer(who))) for who in (trial.challenger, trial.champion)]
    drawn = metrics.bootstrap_means(of[0] - of[1], metrics.day_blocks(held_out["time"]), 1000, 0)
    return float((of[0] - of[1]).mean()), float(drawn.std(ddof=1))


def _columns(p: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"p_0": 1 - p, "p_1": p})


def pairs(months: Iterable[int] = MONTHS, seeds: int = SEEDS, learned: int = LEARNED) -> list[Trial]:
    """Each model against the one of the next seed: every model is a challenger once, and a champion once."""
    made = []
    for number in months:
        ring = [Trained(SAME, number, seed, learned) for seed in range(seeds)]
        made += [Trial(ring[k], ring[(k + 1) % seeds]) for k in range(seeds)]
    return made


def really_better() -> dict[str, list[Trial]]:
    """Challengers that are better than their champions, in several ways."""
    return {
        kind: [
            Trial(Trained(SAME, number, seed), Trained(kind, number, seed))
            for number in MONTHS
            for seed in range(POWER_SEEDS)
        ]
        for kind in WORSE
    }


def redrawn(better: dict[str, list[Trial]]) -> list[Trial]:
    """The first pair of each handicap and month, on holdouts drawn from its own."""
    first = {(kind, t.challenger.month): t for kind, made in better.items() for t in reversed(made)}
    return [replace(trial, redrawn=seed) for trial in first.values() for seed in range(REDRAWS)]


def bad_slices(good: Iterable[Judged]) -> dict[float, list[Trial]]:
    """Of promoted challengers, one per month: each slice spoiled in turn."""
    first = {judged.trial.challenger.month: judged for judged in reversed(list(good)) if judged.promoted}
    return {
        more: [
            replace(judged.trial, spoiled=(name, more)) for _, judged in sorted(first.items()) for name in judged.slices
        ]
        for more in SPOILED
    }


@dataclass(frozen=True)
class Gated:
    """What came of the gate's trials."""

    same: list[Judged]
    better: dict[str, list[Judged]]
    redrawn: list[tuple[Judged, float, float]]
    """With the true difference and its standard error."""
    bad: dict[float, list[Judged]]


def trials(workers: Executor) -> Gated:
    """All of them."""
    flights()
    ring, better = pairs(), really_better()
    who = dict.fromkeys([t.challenger for t in ring] + [t.champion for kind in better.values() for t in kind])
    list(workers.map(answer, who, chunksize=4))

    def judged(made: list[Trial]) -> list[Judged]:
        return list(workers.map(judge, made, chunksize=4))

    same, found = judged(ring), {kind: judged(made) for kind, made in better.items()}
    again = redrawn(better)
    plain = [replace(trial, redrawn=None) for trial in again]
    known = dict(zip(dict.fromkeys(plain), workers.map(standard_error, dict.fromkeys(plain)), strict=True))
    power = [(said, *known[trial]) for said, trial in zip(judged(again), plain, strict=True)]
    bad = bad_slices(one for kind in found.values() for one in kind)
    return Gated(same, found, power, {more: judged(made) for more, made in bad.items()})


def gate_page(found: Gated) -> list[str]:
    """What is said of the gate."""
    from scipy.stats import binomtest

    count = len(found.same)
    promoted, better = sum(j.promoted for j in found.same), sum(j.better for j in found.same)
    low, high = binomtest(promoted, count).proportion_ci(0.95)
    lines = [
        "## The gate",
        "",
        f"`{MODEL}` with the gate of params.yaml, `rule: better`: a month is the holdout, May to December, and a model",
        f"learns from the {LEARNED:,} rows before it. Latency and size are given.",
        "",
        f"**Nothing is better.** {count} pairs of models that differ by their seed only: {promoted} promoted, which is",
        f"{promoted / count:.1%} (95 % interval {low:.1%} to {high:.1%}); at most 5 % may be. In {better} the check",
        "`improvement` passed: it would in 2.5 % if models of different seeds were equally good, and some are better.",
        "",
        *_wrapped(
            f"**Something is better.** The challenger learned as above, the champion is handicapped: "
            f"{POWER_SEEDS * len(MONTHS)} pairs a line, {POWER_SEEDS} a month. *better by*: the mean difference in log "
            f"loss on the holdouts."
        ),
        "",
        "| the champion | better by | `improvement` passes | promoted | what refuses the others |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, judged in sorted(found.better.items(), key=lambda item: np.mean([j.difference for j in item[1]])):
        difference = -np.mean([j.difference for j in judged])
        passes, through = (np.mean([getattr(j, what) for j in judged]) for what in ("better", "promoted"))
        because = [name.split(":")[0] for j in judged for name in dict.fromkeys(n.split(":")[0] for n in j.failed)]
        told = ", ".join(f"{name} {because.count(name)}" for name in sorted(set(because), key=because.index))
        lines.append(f"| {kind} | {difference:.4f} | {passes:.0%} | {through:.0%} | {told} |")
    return [*lines, *_power(found.redrawn), *_spoiled(found.bad)]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 118)


def _power(redrawn: list[tuple[Judged, float, float]]) -> list[str]:
    from scipy.stats import norm

    errors = [error for _, _, error in redrawn]
    enough = (norm.ppf(0.975) + norm.ppf(0.8)) * np.quantile(errors, [0.25, 0.5, 0.75])
    lines = [
        "",
        *_wrapped(
            f"**How surely it is found.** The first pair of each handicap and month, on holdouts of as many days drawn "
            f"from its own, {REDRAWS} each: so it is known by how much the challenger is better, in standard errors "
            f"over days. *expected*: what the normal distribution says of a 95 % interval."
        ),
        "",
        "| better by, in standard errors | holdouts | `improvement` passes | expected |",
        "| --- | --- | --- | --- |",
    ]
    for low, high in itertools.pairwise(_EDGES):
        of = [(judged.better, -true / error) for judged, true, error in redrawn if low <= -true / error < high]
        called = "not better" if high == 0 else f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"
        passes, expected = (
            f"{np.mean(share):.0%}" for share in zip(*((b, norm.cdf(z - 1.96)) for b, z in of), strict=True)
        )
        lines.append(f"| {called} | {len(of)} | {passes} | {expected} |")
    return [
        *lines,
        "",
        *_wrapped(
            f"A standard error is {np.median(errors):.4f} in the middle of these pairs, so four of five challengers "
            f"are found that are better by {enough[1]:.3f} ({enough[0]:.3f} where the two err alike, {enough[2]:.3f} "
            f"where they do not) in log loss. With a holdout of twice the days, 0.7 of that is enough."
        ),
    ]


def _spoiled(bad: dict[float, list[Judged]]) -> list[str]:
    months = {judged.trial.challenger.month for judged in next(iter(bad.values()))}
    lines = [
        "",
        *_wrapped(
            f"**One slice is bad.** {len(months)} challengers that were promoted, of a month each, with the "
            f"predictions of one slice made worse than the champion's by so much log loss: each slice of 500 rows or "
            f"more, one after the other."
        ),
        "",
        "| worse by | slices | blocked | by the check of that slice |",
        "| --- | --- | --- | --- |",
    ]
    for more, judged in bad.items():
        blocked = sum(not j.promoted for j in judged)
        own = sum(j.trial.spoiled is not None and j.trial.spoiled[0] in j.failed for j in judged)
        lines.append(f"| {more:g} | {len(judged)} | {blocked} ({blocked / len(judged):.0%}) | {own} |")
    margin = _params().gate.slice_margin
    return [
        *lines,
        "",
        f"`slice_margin` is {margin:g}, and the doubt counts for {gate.DOUBT_MARGINS} times that at most: what is",
        f"worse by more than {(1 + gate.DOUBT_MARGINS) * margin:g} is always blocked.",
        "",
    ]


_EDGES = (-np.inf, 0.0, 1.0, 2.0, 3.0, 4.0, np.inf)


# ── identity ──────────────────────────────────────────────────────────────────────────────────────


@cache
def _params() -> params.Model:
    return params.load().model(MODEL)


@cache
def _code(file: str) -> str:
    """The identity of a module and of everything of the project that it imports."""
    return files.digest(import_closure.hashes(file))


def _key(who: Trained) -> Any:
    return [*_made_from(), who.kind, who.month, who.seed, who.learned]


@cache
def _made_from() -> tuple[Any, ...]:
    said = _params()
    own = settings.ROOT / "models" / MODEL
    features = {name: feature.model_dump() for name, feature in said.features.items()}
    kept = (files.tree(own), features, said.estimator.model_dump(), files.sha256(settings.ROOT / "requirements.lock"))
    return (files.digest([*kept, list(KINDS)]),)


# ── everything ────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Measure, write the page, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--streams", type=int, default=200, help="in which nothing changes, of each kind (200)")
    parser.add_argument("--changed", type=int, default=200, help="in which something does, of each kind (200)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--page", type=Path, help="write there, not only print")
    parser.add_argument("--picture", type=Path, default=settings.VAR / "monitor" / "estimate.png")
    given = parser.parse_args()
    said: list[str] = []
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as workers:
        for part in given.parts:
            begin = time.monotonic()
            told = _PARTS[part](workers, given)
            print("\n".join(told), f"\n{part}: {time.monotonic() - begin:.0f} s\n", flush=True)
            said += told
    if given.page:
        files.write_text(given.page, "\n".join([*_head(), *said]).rstrip() + "\n")


def _head() -> list[str]:
    packages = ["scikit-learn", "numpy", "pandas", "scipy"]
    return [
        "# The monitor's promises",
        "",
        "Made by `make bench-monitor` from the real flights of 2013; what is done is told in `benchmarks/monitor.py`.",
        "",
        machine(packages),
        "",
    ]


def _estimate(workers: Executor, given: argparse.Namespace) -> list[str]:
    found = [week for name in params.load().models for week in weeks(name, workers)]
    draw(found, given.picture)
    return estimate_page(found)


def _gate(workers: Executor, _: argparse.Namespace) -> list[str]:
    return gate_page(trials(workers))


def _drift(_: Executor, given: argparse.Namespace) -> list[str]:
    outcomes = drift.everything(given.streams, given.changed, given.jobs, partial(print, flush=True))
    if given.page:
        docs = given.page.parent.parent
        drift.publish(outcomes, docs / "benchmarks" / "drift.md", docs / "pictures" / "drift.png")
    return drift.promises(outcomes)


_PARTS: dict[str, Callable[[Executor, argparse.Namespace], list[str]]] = {
    "drift": _drift,
    "estimate": _estimate,
    "gate": _gate,
}


if __name__ == "__main__":
    main()
