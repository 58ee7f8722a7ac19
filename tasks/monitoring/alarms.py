"""Alarms: something about a model is not as promised. One per cause, from the day it was detected to its end.

    var/monitoring/<model>/alarms.json    all of them, oldest first

    drift     columns that moved together, in requests or answers (drift.py)
    quality   the measured loss is above what was promised, beyond doubt (degradation.py)
    service   requests take longer than the gate allows, or too many of them get no answer

Each run finds what deviates from all that is known (`Deviation`). That is matched with what was found before: an alarm
is announced once when it opens and once when it is over, and keeps a person's acknowledgement. Dates are those of the
data: the days of the requests, not of the runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

from tasks.ground import files
from tasks.ground.errors import Mistake, did_you_mean
from tasks.journal import journal
from tasks.monitoring.intake import intake, service_counts
from tasks.monitoring.quality.weekly import utc

if TYPE_CHECKING:
    from tasks.monitoring.drift.drift import DriftReport
    from tasks.monitoring.quality.degradation import LossEpisode

Kind = Literal["drift", "quality", "service"]
Change = Literal["opened", "closed"]
Span = tuple[date, date]
Alarm = dict[str, Any]
"""As report.json has it, and `release`, `times` (how often it was opened) and what was `told`."""

EFFECT_UNKNOWN = "its effect on"
"""How the effect of an alarm on the model begins where it is not known."""

KEPT = 200
"""So many alarms that are over are kept."""

UNANSWERED = 0.01
"""So many requests of a day may be shed or fail."""

REPORTED = ("key", "kind", "what", "columns", "text", "effect", "since", "opened", "closed", "acknowledged")


@dataclass(frozen=True)
class Deviation:
    """Something that is, or was, not as it was promised."""

    key: str
    kind: Kind
    what: str
    """What moved, in a few words."""
    text: str
    """What moved, by how much, since when."""
    effect: float
    """Of drift the greatest effect size; else by which share a number is above what was promised."""
    since: date
    opened: date
    closed: date | None = None
    columns: tuple[str, ...] = ()
    release: str | None = None
    """The candidate that it is about; None: whoever serves."""


# ── what deviates ─────────────────────────────────────────────────────────────────────────────────


def of_drift(report: DriftReport, candidate: str, version: int) -> list[Deviation]:
    """The alarms of a drift report, about the release whose reference it was."""
    from tasks.monitoring.retrain_policy import OpenAlarm

    deviations = []
    for alarm in report.alarms:
        short, columns = OpenAlarm.of(alarm), tuple(moved.column for moved in alarm.moved)
        moves, dates = (short.what, alarm.text, short.effect), (alarm.since, alarm.opened, alarm.closed)
        deviations.append(Deviation(f"{alarm.key}-v{version}", "drift", *moves, *dates, columns, candidate))
    return deviations


def of_quality(
    episodes: Iterable[LossEpisode], loss: str, promised: Mapping[str, float], candidate: str, version: int
) -> list[Deviation]:
    """An alarm for each time that the measured loss was above what was promised."""
    deviations = []
    for episode in episodes:
        above = episode.loss / promised["value"] - 1 if promised["value"] > 0 else 0.0
        text = f"{loss} is {episode.loss:.4g} over {episode.labels:,} labels since {episode.since}, {above:.1%} above "
        text += f"the promised {promised['value']:.4g} ({promised['low']:.4g} to {promised['high']:.4g})"
        key, dates = f"{episode.opened}-{loss}-v{version}", (episode.since, episode.opened, episode.closed)
        deviations.append(Deviation(key, "quality", loss, text, round(above, 6), *dates, (loss,), candidate))
    return deviations


def of_service(days: Mapping[str, Mapping[str, Any]], last: date, limit: float, fewest: int) -> list[Deviation]:
    """An alarm for each run of days on which requests took longer than they may, or too many got no answer.

    Args:
        days: as intake.service gives them.
        last: the newest day that is over. What a day shows before it is would come and go.
        limit: of the median request of one row, in ms.
        fewest: requests that a day must have to count.
    """
    slow, lost = [], []
    for day, counts in sorted(days.items()):
        if day > last.isoformat():
            continue
        if sum(counts["single"].values()) >= fewest:
            median = service_counts.quantile(counts["single"], 0.5) or 0.0
            text = f"a request of one row takes {median:.3g} ms (median) on {day}, {limit:g} ms are allowed"
            slow.append((day, median / limit - 1, text))
        without = counts.get("shed", 0) + counts.get("failed", 0)
        if without + counts["requests"] >= fewest:
            share = without / (without + counts["requests"])
            text = f"{without:,} requests ({share:.1%}) were shed or failed on {day}, {UNANSWERED:.0%} are allowed"
            lost.append((day, share / UNANSWERED - 1, text))
    return [*_runs("latency", "ms", slow), *_runs("unanswered", "requests", lost)]


def _runs(what: str, column: str, days: Iterable[tuple[str, float, str]]) -> list[Deviation]:
    """An alarm from each day on which something is above its limit, to the next one on which it is not."""
    runs: list[Deviation] = []
    for day, above, text in days:
        today, is_open = date.fromisoformat(day), bool(runs) and runs[-1].closed is None
        if above > 0 and not is_open:
            key = f"{day}-{what}"
            runs.append(Deviation(key, "service", what, text, round(above, 6), today, today, columns=(column,)))
        elif above <= 0 and is_open:
            runs[-1] = replace(runs[-1], closed=today)
    return runs


# ── the alarms of a model ─────────────────────────────────────────────────────────────────────────


def read(model: str) -> list[Alarm]:
    """Every alarm, oldest first."""
    return files.read_state(intake.folder(model) / "alarms.json", list[Alarm]())


def update(
    model: str, deviations: Sequence[Deviation], live: str | None, days: Span | None, effect: str = ""
) -> list[Alarm]:
    """Bring the alarms up to date with all that deviates, or did, and write them.

    `live` is the live candidate: an alarm about another one is over. `days` are the first and the last one of the data,
    `effect` is what it does to the model, in words: part of the text of open alarms.
    """
    with _locked(model) as before:
        after = merged(before, deviations, live, days, effect)
        if after != before:
            _note_changes(model, before, after)
            _write(model, after)
    return after


def _note_changes(model: str, before: Sequence[Alarm], after: Sequence[Alarm]) -> None:
    """Have the journal say what opened and what is over, before the alarms do; once each."""
    state = {alarm["key"]: bool(alarm["closed"]) for alarm in before}
    noted = {(line.what["key"], line.what["change"], line.what["times"]) for line in journal.lines(model, "alarm")}
    for alarm in after:
        change = "closed" if alarm["closed"] else "opened"
        if state.get(alarm["key"]) != bool(alarm["closed"]) and (alarm["key"], change, alarm["times"]) not in noted:
            what = {name: alarm[name] for name in ("key", "kind", "what", "release", "since", "times")}
            journal.append(model, "alarm", {**what, "change": change}, alarm["text"])


def merged(
    before: Sequence[Alarm], deviations: Sequence[Deviation], live: str | None, days: Span | None, effect: str = ""
) -> list[Alarm]:
    """The alarms after a run, from those before it. Pure."""
    same = _matches(before, deviations)
    taken = {deviation.key for deviation in same.values()}
    alarms = [_updated(alarm, same.get(alarm["key"]), live, days, effect) for alarm in before]
    opened = [deviation for deviation in deviations if deviation.key not in taken]
    alarms += [{**_fields(new, effect), "key": new.key, "times": 1, **_UNTOLD} for new in opened]
    alarms.sort(key=lambda alarm: (alarm["opened"], alarm["key"]))
    over = [alarm["key"] for alarm in alarms if alarm["closed"]]
    forgotten = set(over[: max(0, len(over) - KEPT)])
    return [alarm for alarm in alarms if alarm["key"] not in forgotten]


def _matches(before: Sequence[Alarm], deviations: Sequence[Deviation]) -> dict[str, Deviation]:
    """Key of an alarm → the same deviation, as it is found now.

    Rows that come late for days before may give another beginning, and so another key: it stays the same alarm if it is
    of the same columns at the same time.
    """
    by_key = {deviation.key: deviation for deviation in deviations}
    same = {alarm["key"]: by_key.pop(alarm["key"]) for alarm in before if alarm["key"] in by_key}
    for alarm in reversed(before):
        if alarm["key"] not in same:
            key = next((key for key, deviation in by_key.items() if _is_same(alarm, deviation)), None)
            if key is not None:
                same[alarm["key"]] = by_key.pop(key)
    return same


def _is_same(alarm: Alarm, other: Deviation) -> bool:
    if (alarm["kind"], alarm["release"]) != (other.kind, other.release) or not {*alarm["columns"]} & {*other.columns}:
        return False
    begins_before_end = other.closed is None or alarm["since"][:10] <= other.closed.isoformat()
    return begins_before_end and (alarm["closed"] is None or other.since.isoformat() <= alarm["closed"][:10])


_UNTOLD = {"told": {"opened": False, "closed": False}, "acknowledged": None}


def _updated(alarm: Alarm, now: Deviation | None, live: str | None, days: Span | None, effect: str) -> Alarm:
    if now is None:
        if alarm["closed"]:
            return alarm
        why = "the data known by now do not show it"
        if alarm["release"] not in (None, live):
            why = "the release that it is about is no longer live"
        last = days[1] if days else date.fromisoformat(alarm["opened"][:10])
        text = alarm["text"].removesuffix(f"; {alarm['effect_on_model']}")
        return {**alarm, "closed": utc(last), "text": f"{text}; over: {why}"}
    is_forgotten = days is not None and alarm["since"] < utc(days[0])  # the days on which it began: as it was then
    began = {name: alarm[name] for name in ("since", "opened")} if is_forgotten else {}
    if alarm["closed"] and not now.closed:
        return {**alarm, **_fields(now, effect), "times": alarm["times"] + 1, **_UNTOLD}  # it is back
    return {**alarm, **_fields(now, alarm["effect_on_model"] if alarm["closed"] else effect), **began}


def _fields(deviation: Deviation, effect: str) -> dict[str, Any]:
    """What an alarm says of a deviation: all but its key."""
    if deviation.kind == "quality" and effect.startswith(EFFECT_UNKNOWN):
        effect = ""  # of all labels together it is: the alarm says so
    closed, fields = deviation.closed, asdict(deviation)
    del fields["key"]
    over = f"; over since {closed}" if closed else f"; {effect}" if effect else ""
    return fields | {
        "text": f"{deviation.text}{over}",
        "effect_on_model": effect,
        "since": utc(deviation.since),
        "opened": utc(deviation.opened),
        "closed": utc(closed) if closed else None,
        "columns": list(deviation.columns),
    }


@contextmanager
def _locked(model: str) -> Iterator[list[Alarm]]:
    with files.lock(f"alarms-{model}"):
        yield read(model)


def _write(model: str, alarms: Sequence[Alarm]) -> None:
    files.write_json(intake.folder(model) / "alarms.json", list(alarms))


# ── announced and acknowledged ────────────────────────────────────────────────────────────────────


def unannounced(alarms: Iterable[Alarm]) -> list[tuple[Alarm, Change]]:
    """What is to be announced. Of an alarm that was over before its opening could be announced, only that."""
    waiting: list[tuple[Alarm, Change]] = []
    for alarm in alarms:
        change: Change = "closed" if alarm["closed"] else "opened"
        if not alarm["told"][change]:
            waiting.append((alarm, change))
    return waiting


def mark_announced(model: str, key: str, change: Change) -> None:
    """Write down that a change was announced."""
    with _locked(model) as alarms:
        for alarm in alarms:
            if alarm["key"] == key:
                alarm["told"] = {"opened": True, "closed": change == "closed"}
        _write(model, alarms)


def acknowledge(model: str, key: str, note: str = "") -> Alarm:
    """Write down that a person has seen an alarm, in the report as well.

    Raises:
        Mistake: there is no such alarm.
    """
    with _locked(model) as alarms:
        by_key = {alarm["key"]: alarm for alarm in alarms}
        if key not in by_key:
            near = did_you_mean(key, list(by_key))
            raise Mistake(f"{model} has no alarm {key!r}{near}. `evergreen alarms {model}` lists them")
        at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        by_key[key]["acknowledged"] = {"at": at, "note": " ".join(note.split())}
        journal.append(model, "acknowledged", {"key": key}, by_key[key]["acknowledged"]["note"])
        _write(model, alarms)
        path = intake.folder(model) / "report.json"
        if report := files.read_state(path, dict[str, Any]()):
            files.write_json(path, {**report, "alarms": reported(alarms)})
    return by_key[key]


def reported(alarms: Iterable[Alarm]) -> list[dict[str, Any]]:
    """As report.json has them."""
    return [
        {**{name: alarm[name] for name in REPORTED}, "told": alarm["told"]["closed" if alarm["closed"] else "opened"]}
        for alarm in alarms
    ]


def in_words(alarm: Alarm) -> str:
    """An alarm, for a person at a terminal."""
    state = f"over since {alarm['closed'][:10]}" if alarm["closed"] else f"open since {alarm['opened'][:10]}"
    seen = alarm["acknowledged"]
    note = f": {seen['note']}" if seen and seen["note"] else ""
    acknowledged = f"\n  acknowledged {seen['at']}{note}" if seen else ""
    return f"{alarm['key']}  {alarm['kind']}, {state}\n  {alarm['text']}{acknowledged}"
