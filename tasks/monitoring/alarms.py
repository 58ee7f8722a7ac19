"""Alarms: something about a model is not as it was promised. One per cause, from the day it was noticed to its end.

    var/monitoring/<model>/alarms.json    all of them, oldest first

What is wrong is found anew from all that is known at each look (`Deviation`). Here it is held against what was found
before, so that an alarm is told once when it opens and once when it is over, and keeps what a person said to it:

    drift     columns that moved together, in what is asked or answered (drift.py)
    quality   the measured loss is above what was promised, beyond doubt (decline.py)
    service   requests take longer than the gate allows, or too many of them get no answer

Dates are those of the data: the days on which it was asked, not those on which somebody looked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

from tasks.ground import files
from tasks.ground.errors import Mistake, did_you_mean
from tasks.monitoring.intake import intake, service_counts

if TYPE_CHECKING:
    from tasks.monitoring.drift import drift
    from tasks.monitoring.quality.degradation import LossEpisode

Kind = Literal["drift", "quality", "service"]
Span = tuple[date, date]
Alarm = dict[str, Any]
"""As report.json has it, and `release`, `columns`, `times` (how often it was opened) and what was `told`."""

KEPT = 200
"""So many alarms that are over are remembered."""

UNANSWERED = 0.01
"""So many requests of a day may be shed or fail."""

SHOWN = ("key", "kind", "what", "text", "effect", "since", "opened", "closed", "acknowledged")


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


# ── what is found ─────────────────────────────────────────────────────────────────────────────────


def of_drift(report: drift.DriftReport, candidate: str, version: int) -> list[Deviation]:
    """The alarms of a drift report, about the release whose reference it was."""
    from tasks.monitoring import retrain_policy

    found = []
    for one in report.alarms:
        said = retrain_policy.OpenAlarm.of(one)
        columns = tuple(moved.column for moved in one.moved)
        key = f"{one.key}-v{version}"
        found.append(
            Deviation(
                key, "drift", said.what, one.text, said.effect, one.since, one.opened, one.closed, columns, candidate
            )
        )
    return found


def of_quality(
    episodes: Iterable[LossEpisode], loss: str, promised: Mapping[str, float], candidate: str, version: int
) -> list[Deviation]:
    """An alarm for each time that the measured loss was above what was promised."""
    found = []
    for one in episodes:
        above = one.loss / promised["value"] - 1 if promised["value"] > 0 else 0.0
        text = f"{loss} is {one.loss:.4g} over {one.labels:,} labels since {one.since}, {above:.1%} above the promised "
        text += f"{promised['value']:.4g} ({promised['low']:.4g} to {promised['high']:.4g})"
        opened, since = date.fromisoformat(one.opened), date.fromisoformat(one.since)
        closed = date.fromisoformat(one.closed) if one.closed else None
        key = f"{one.opened}-{loss}-v{version}"
        found.append(Deviation(key, "quality", loss, text, round(above, 6), since, opened, closed, (loss,), candidate))
    return found


def of_service(days: Mapping[str, Mapping[str, Any]], last: date, limit: float, fewest: int) -> list[Deviation]:
    """An alarm for each run of days on which requests took longer than they may, or too many got no answer.

    Args:
        days: as observed.service gives them.
        last: the newest day that is over. What a day shows before it is would come and go.
        limit: of the median request of one row, in ms.
        fewest: requests that a day must have to count.
    """
    over = [(day, said) for day, said in sorted(days.items()) if day <= last.isoformat()]
    slow, lost = [], []
    for day, said in over:
        if sum(said["single"].values()) >= fewest:
            median = service_counts.quantile(said["single"], 0.5) or 0.0
            text = f"a request of one row takes {median:.3g} ms (median) on {day}, {limit:g} ms are allowed"
            slow.append((day, median / limit - 1, text))
        without = said.get("shed", 0) + said.get("failed", 0)
        if without + said["requests"] >= fewest:
            share = without / (without + said["requests"])
            text = f"{without:,} requests ({share:.1%}) were shed or failed on {day}, {UNANSWERED:.0%} are allowed"
            lost.append((day, share / UNANSWERED - 1, text))
    return [*_runs("latency", "ms", slow), *_runs("unanswered", "requests", lost)]


def _runs(what: str, column: str, days: Iterable[tuple[str, float, str]]) -> list[Deviation]:
    """An alarm from each day on which something is above what is allowed, to the next one on which it is not."""
    found: list[Deviation] = []
    for day, above, text in days:
        at, going = date.fromisoformat(day), found[-1] if found and found[-1].closed is None else None
        if above > 0 and going is None:
            found.append(Deviation(f"{day}-{what}", "service", what, text, round(above, 6), at, at, columns=(column,)))
        elif above <= 0 and going is not None:
            found[-1] = replace(going, closed=at)
    return found


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────


def read(model: str) -> list[Alarm]:
    """Every alarm, oldest first."""
    return files.read_state(intake.folder(model) / "alarms.json", list[Alarm]())


def update(
    model: str, found: Sequence[Deviation], live: str | None, days: Span | None, effect: str = ""
) -> list[Alarm]:
    """Hold what is found now against what was found before, and write it down.

    Args:
        model: whose.
        found: everything, what is over too.
        live: the candidate that serves; an alarm about another one is over.
        days: the first and the last day of the data.
        effect: what it does to the model, in words: is told with what is open.
    """
    with files.lock(f"alarms-{model}"):
        before = read(model)
        now = merged(before, found, live, days, effect)
        if now != before:
            _write(model, now)
    return now


def merged(
    before: Sequence[Alarm], found: Sequence[Deviation], live: str | None, days: Span | None, effect: str = ""
) -> list[Alarm]:
    """What is known after a look, from what was known before it. Pure."""
    same = _pairs(before, found)
    alarms = [_updated(one, same.get(one["key"]), live, days, effect) for one in before]
    taken = {one.key for one in same.values()}
    alarms += [_opened(one, effect) for one in found if one.key not in taken]
    alarms.sort(key=lambda one: (one["opened"], one["key"]))
    over = [one for one in alarms if one["closed"]]
    gone = {one["key"] for one in over[: max(0, len(over) - KEPT)]}
    return [one for one in alarms if one["key"] not in gone]


def _pairs(before: Sequence[Alarm], found: Sequence[Deviation]) -> dict[str, Deviation]:
    """Key of a known alarm → the same alarm, as it is found now.

    Rows that come late for days before may tell another beginning, and so another key: it stays the same alarm if it is
    of the same columns at the same time.
    """
    by_key = {one.key: one for one in found}
    same = {one["key"]: by_key.pop(one["key"]) for one in before if one["key"] in by_key}
    for one in reversed(before):
        for other in list(by_key.values()) if one["key"] not in same else ():
            if _is_same(one, other):
                same[one["key"]] = by_key.pop(other.key)
                break
    return same


def _is_same(one: Alarm, other: Deviation) -> bool:
    if one["kind"] != other.kind or one["release"] != other.release or not {*one["columns"]} & {*other.columns}:
        return False
    begins_before_end = other.closed is None or one["since"][:10] <= other.closed.isoformat()
    return begins_before_end and (one["closed"] is None or other.since.isoformat() <= one["closed"][:10])


def _opened(one: Deviation, effect: str) -> Alarm:
    told = {"opened": False, "closed": False}
    return {**_said(one, effect), "key": one.key, "times": 1, "told": told, "acknowledged": None}


def _updated(known: Alarm, now: Deviation | None, live: str | None, days: Span | None, effect: str) -> Alarm:
    if now is None:
        if known["closed"]:
            return known
        other = known["release"] is not None and known["release"] != live
        why = "what it is about no longer serves" if other else "it is not seen in what is known by now"
        last = days[1] if days else date.fromisoformat(known["opened"][:10])
        return {**known, "closed": _utc(last), "text": _over(known, why)}
    is_forgotten = days is not None and known["since"] < _utc(days[0])  # the days on which it began: as it was then
    began = {name: known[name] for name in ("since", "opened")} if is_forgotten else {}
    if known["closed"] and now.closed:
        return {**known, **_said(now, known["effect_on_model"]), **began}
    said = {**known, **_said(now, effect)}
    if not known["closed"]:
        return {**said, **began}
    # it is there again
    return {**said, "times": known["times"] + 1, "told": {"opened": False, "closed": False}, "acknowledged": None}


def _said(one: Deviation, effect: str) -> dict[str, Any]:
    over = f"; over since {one.closed}" if one.closed else f"; {effect}" if effect else ""
    return {
        "kind": one.kind,
        "what": one.what,
        "text": f"{one.text}{over}",
        "effect": one.effect,
        "effect_on_model": effect,
        "since": _utc(one.since),
        "opened": _utc(one.opened),
        "closed": _utc(one.closed) if one.closed else None,
        "columns": list(one.columns),
        "release": one.release,
    }


def _over(known: Alarm, why: str) -> str:
    text: str = known["text"]
    return f"{text.removesuffix('; ' + known['effect_on_model'])}; over: {why}"


def _utc(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def _write(model: str, known: Sequence[Alarm]) -> None:
    files.write_json(intake.folder(model) / "alarms.json", list(known))


# ── told and acknowledged ─────────────────────────────────────────────────────────────────────────


def unannounced(known: Iterable[Alarm]) -> list[tuple[Alarm, Literal["opened", "closed"]]]:
    """What nobody was told of yet. Of what was over before anybody could be told, only that."""
    waiting: list[tuple[Alarm, Literal["opened", "closed"]]] = []
    for one in known:
        if one["closed"] and not one["told"]["closed"]:
            waiting.append((one, "closed"))
        elif not one["closed"] and not one["told"]["opened"]:
            waiting.append((one, "opened"))
    return waiting


def mark_announced(model: str, key: str, what: Literal["opened", "closed"]) -> None:
    """Write down that people were told."""
    with files.lock(f"alarms-{model}"):
        known = read(model)
        for one in known:
            if one["key"] == key:
                one["told"] = {"opened": True, "closed": what == "closed"}
        _write(model, known)


def acknowledge(model: str, key: str, note: str = "") -> Alarm:
    """Write down that a person has seen an alarm, in the report as well.

    Raises:
        Mistake: there is no such alarm.
    """
    with files.lock(f"alarms-{model}"):
        known = read(model)
        chosen = next((one for one in known if one["key"] == key), None)
        if chosen is None:
            keys = [one["key"] for one in known]
            raise Mistake(
                f"{model} has no alarm {key!r}{did_you_mean(key, keys)}. `evergreen alarms {model}` lists them"
            )
        chosen["acknowledged"] = {"at": _now(), "note": " ".join(note.split())}
        _write(model, known)
        path = intake.folder(model) / "report.json"
        if report := files.read_state(path, dict[str, Any]()):
            files.write_json(path, {**report, "alarms": shown(known)})
    return chosen


def shown(known: Iterable[Alarm]) -> list[dict[str, Any]]:
    """As report.json has them."""
    return [
        {**{name: one[name] for name in SHOWN}, "told": one["told"]["closed" if one["closed"] else "opened"]}
        for one in known
    ]


def in_words(one: Alarm) -> str:
    """An alarm, for a person at a terminal."""
    state = f"over since {one['closed'][:10]}" if one["closed"] else f"open since {one['opened'][:10]}"
    seen = one["acknowledged"]
    note = f": {seen['note']}" if seen and seen["note"] else ""
    acknowledged = f"\n  acknowledged {seen['at']}{note}" if seen else ""
    return f"{one['key']}  {one['kind']}, {state}\n  {one['text']}{acknowledged}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
