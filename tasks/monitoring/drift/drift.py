"""Drift detection: day summaries of the stream against those of the reference, with bounded false alarms.

Each number that a day gives of a column (series.py) is tested by itself (anytime_test.py). A column's p-value is the
smallest of its series', times their number (Bonferroni). Over the columns the false discovery rate is controlled as by
Benjamini & Yekutieli (2001), whatever depends on what. While nothing has changed every discovery is a false one: so the
chance of *ever* alarming is at most `thresholds.CHANCE`. Beside that, a day far outside is drift at once (extremes.py).

`detect` is a pure function of the days that were seen. It goes through them from the first day each time (episodes.py),
so late rows fall into place, and batching of days makes no difference. Why it is so: docs/decisions/drift.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from tasks.modelling.daily_summaries import STEPS, UNDATED, ColumnDays, ColumnLayout, DaySummaries, Role
from tasks.modelling.measures import UNITS
from tasks.monitoring.drift import anytime_test, episodes, gross, thresholds
from tasks.monitoring.drift.moves import DriftAlarm, Moved, group_alarms, moved
from tasks.monitoring.drift.series import WatchedColumn, learned_days, pooled, watch

Floats = npt.NDArray[np.float64]

Status = Literal["ok", "drift", "not enough data", "constant", "always missing", "new"]

AHEAD_DAYS, STREAMS = 182, 25
"""How far ahead, and on how many simulated streams, `DriftReport.sensitivity` is estimated."""

SLOW = 14
"""Days within which a large shift should be detected."""


@dataclass(frozen=True)
class ColumnFinding:
    """What was found of one column."""

    name: str
    role: Role
    type: str
    status: Status
    text: str
    slight: bool
    """It moved beyond doubt, by less than `MIN_EFFECT` and `MIN_CHANGE` (thresholds.py) require: no drift."""
    days: int
    """Of the whole stream, with at least one row."""
    rows: int
    p: float
    """Valid at any time, however often one has looked; 1 where nothing was tested."""
    q: float
    """The same, adjusted for the number of columns."""
    missing: tuple[float, float]
    """The missing share: in the reference, and recently."""
    evidence: tuple[float, ...] = field(repr=False)
    """For plots: log10 of the evidence after each day of the stream, of the series that has most of it."""
    shift: float | None = None
    """Of a number: the change of the mean in standard deviations of the reference's rows."""
    cramers_v: float | None = None
    """Of a category: Cramér's V of the table of reference and recent counts, 0 to 1."""
    psi: float | None = None
    """Population stability index over values or bins, every count raised by a half so that it is finite."""


@dataclass(frozen=True)
class DriftReport:
    """What was found in the days of a stream."""

    days: tuple[date, ...] = field(repr=False)
    threshold: float
    """log10 of the evidence that a column of four series needs alone; where several move, each needs less."""
    findings: Mapping[str, ColumnFinding]
    alarms: tuple[DriftAlarm, ...]
    """Oldest first; closed ones too."""
    sensitivity: str
    """What so short a reference cannot detect, or not soon; empty where it is long enough."""
    waiting: str
    """What is missing until «as in training» can be said, and when it will be there; empty where nothing is."""

    @property
    def open(self) -> tuple[DriftAlarm, ...]:
        """The alarms that are not over."""
        return tuple(alarm for alarm in self.alarms if alarm.closed is None)


def detect(
    layouts: Mapping[str, ColumnLayout],
    reference: DaySummaries,
    stream: DaySummaries,
    units: Mapping[str, str | None] | None = None,
) -> DriftReport:
    """What moved in the stream, since when and by how much. Pure: equal days give equal reports.

    Args:
        layouts: the columns (daily_summaries.columns).
        reference: the days of the training rows; of predictions, days of rows that the model was not trained on.
        stream: every day since the release went live.
        units: column → unit, for the texts.
    """
    watched, axis = watch(layouts, reference, stream)
    timelines = episodes.timelines(watched, len(axis))
    days: list[date] = axis.tolist()
    moves = [
        moved(column, episode, days, (units or {}).get(column.layout.name) or UNITS.get(column.layout.measure))
        for column, timeline in zip(watched, timelines, strict=True)
        for episode in timeline.episodes
    ]
    ongoing = {move.column: move for move in moves if move.closed is None}
    tested = {column.layout.name: timeline for column, timeline in zip(watched, timelines, strict=True)}
    findings = {
        name: _finding(layout, reference.get(name), stream.get(name), ongoing.get(name), tested.get(name))
        for name, layout in layouts.items()
    }
    threshold = float(np.log10(4 * episodes.divisor(len(watched)) / thresholds.CHANCE)) if watched else 0.0
    sensitivity = _sensitivity(watched, threshold, reference, stream)
    waiting = _waiting(stream, sensitivity or FAR_OUTSIDE)
    return DriftReport(tuple(days), threshold, findings, group_alarms(moves), sensitivity, waiting)


# ── findings ──────────────────────────────────────────────────────────────────────────────────────


def _finding(
    layout: ColumnLayout,
    reference: ColumnDays | None,
    stream: ColumnDays | None,
    move: Moved | None,
    tested: episodes.Timeline | None,
) -> ColumnFinding:
    """Everything about a column; `move` is its episode that is not over."""
    recent = None
    if stream is not None:
        first = stream.days[-1] - np.timedelta64(thresholds.RECENT_DAYS - 1, "D")
        recent = stream.since(np.datetime64(move.since) if move else first)
    status, text = _status(layout, reference, stream, move)
    slight = status == "ok" and tested is not None and tested.q <= thresholds.CHANCE
    if slight:
        text = f"{layout.name} differs from training, beyond doubt and by less than what matters"
    effects: dict[str, float] = {}
    if reference is not None and recent is not None and reference.known.sum() and recent.known.sum():
        effects = _effect_sizes(reference, recent)
    return ColumnFinding(
        name=layout.name,
        role=layout.role,
        type=layout.type,
        status=status,
        text=text,
        slight=slight,
        days=0 if stream is None else len(stream.days),
        rows=0 if stream is None else int(stream.rows.sum()),
        p=tested.p if tested else 1.0,
        q=tested.q if tested else 1.0,
        missing=(_missing_share(reference), _missing_share(recent)),
        evidence=tuple(tested.evidence.tolist()) if tested else (),
        **effects,
    )


def _status(
    layout: ColumnLayout, reference: ColumnDays | None, stream: ColumnDays | None, move: Moved | None
) -> tuple[Status, str]:
    name = layout.name
    if layout.type == "new" or reference is None:
        return "new", f"{name} was not in the training rows: there is nothing to compare it with"
    if move is not None:
        return "drift", move.text
    stream = reference.none() if stream is None else stream
    if len(stream.days) and not reference.known.sum() and not stream.known.sum():
        return "always missing", f"{name} is missing in every row, as in training"
    return _quiet_status(name, reference, stream)


def _quiet_status(name: str, reference: ColumnDays, stream: ColumnDays) -> tuple[Status, str]:
    """Of a column that does not drift."""
    days, before = len(pooled(stream).days), len(learned_days(reference).days)
    if days < thresholds.MIN_DAYS:
        return "not enough data", f"{name} has {days} of the {thresholds.MIN_DAYS} days that a comparison takes"
    if _is_constant(reference, stream):
        return "constant", f"{name} has one value only, the same as in training"
    if not before:
        return "not enough data", f"{name} has fewer than {thresholds.MIN_ROWS} rows in training"
    if before < thresholds.MIN_REFERENCE_DAYS:
        return "ok", f"{name} shows no gross change ({_reference_days(reference)})"
    return "ok", f"{name} is as in training"


def _reference_days(reference: ColumnDays) -> str:
    """How few they are, as a sentence."""
    if _is_undated(reference):
        return "the training rows have no time"
    count, few = len(reference.days), len(learned_days(reference).days)
    thin = f", most with fewer than {thresholds.MIN_ROWS} rows" if few < count else ""
    return f"training has {count} day{'' if count == 1 else 's'}{thin}"


def _is_undated(reference: ColumnDays) -> bool:
    return list(reference.days.tolist()) == [UNDATED.tolist()]


def _is_constant(reference: ColumnDays, stream: ColumnDays) -> bool:
    n, total, squares = (
        float(getattr(reference, name).sum() + getattr(stream, name).sum()) for name in ("known", "total", "squares")
    )
    bins = np.count_nonzero(reference.counts.sum(axis=0) + stream.counts.sum(axis=0))
    return bins == 1 and n * squares == total**2


def _missing_share(side: ColumnDays | None) -> float:
    return float(side.missing.sum() / max(side.rows.sum(), 1)) if side is not None else 0.0


def _effect_sizes(reference: ColumnDays, recent: ColumnDays) -> dict[str, float]:
    """Of the rows: how large a change is has nothing to do with how certain it is."""
    counts = np.stack([reference.counts.sum(axis=0), recent.counts.sum(axis=0)])
    shares = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
    psi = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    if reference.column.type != "category":
        now, before = (side.total.sum() / side.known.sum() for side in (recent, reference))
        return {"psi": psi, "shift": float(now - before) / STEPS}
    from scipy.stats.contingency import association

    seen = counts[:, counts.sum(axis=0) > 0]
    return {"psi": psi, "cramers_v": float(association(seen, method="cramer")) if seen.shape[1] > 1 else 0.0}


# ── sensitivity ───────────────────────────────────────────────────────────────────────────────────


FAR_OUTSIDE = "what lies far outside of all that was seen is reported when its day is over"

SHIFTS = (5, 2)
"""In standard deviations of rows: for how large a shift it is said when it would be told."""


def _waiting(stream: DaySummaries, meanwhile: str) -> str:
    """How many days there are, and when there will be enough, as requests come now."""
    every = max(stream.values(), key=lambda days: int(days.rows.sum()), default=None)
    if every is None or not len(every.days):
        return "no day on which this release was asked is over yet"
    days, needed = len(pooled(every).days), thresholds.MIN_DAYS
    if days >= needed:
        return ""
    first, last = (every.days[end].tolist() for end in (0, -1))
    pace = max(days, int(every.rows.sum()) / thresholds.MIN_ROWS if days < len(every.days) else days, 0.2)
    span = (last - first).days + 1
    until = last + timedelta(days=math.ceil((needed - days) * span / pace))
    together = f" (days of fewer than {thresholds.MIN_ROWS} rows are put together)" if days < len(every.days) else ""
    pace_says = f"at this pace the last one is over on {until}"
    return f"{days} of {needed} days are there{together}; {pace_says}; until then {meanwhile}"


def _sensitivity(watched: list[WatchedColumn], threshold: float, reference: DaySummaries, stream: DaySummaries) -> str:
    of_features = [reference[column.layout.name] for column in watched if column.layout.role == "feature"]
    if of_features and all(len(learned_days(days).days) < thresholds.MIN_REFERENCE_DAYS for days in of_features):
        return _of_few(max(of_features, key=lambda days: len(days.days)), threshold, stream)
    return _of_ranks(watched, threshold)


def _of_few(reference: ColumnDays, threshold: float, stream: DaySummaries) -> str:
    """What is told against few days, of requests that come as they do."""
    every = max(stream.values(), key=lambda days: int(days.rows.sum()), default=None)
    rows, stretch = 1, 1.0
    if every is not None and len(every.days):
        span = (every.days[-1] - every.days[0]).astype(int) + 1
        rows, stretch = max(int(np.median(every.rows)), 1), float(span) / len(every.days)
    level, days = threshold * float(np.log(10)), max(len(reference.days), 1)
    delays = [gross.delay(days, min(rows, 100), level, float(shift)) for shift in SHIFTS]
    within = [f"within about {math.ceil(delay * stretch)} days" if delay else "hardly ever" for delay in delays]
    how_well = "not" if days == 1 else "hardly"
    shifts = f"{SHIFTS[0]} standard deviations of the rows {within[0]}, by {SHIFTS[1]} {within[1]}"
    return (
        f"{_reference_days(reference)}: how days differ is {how_well} known, so only gross changes are told: at this "
        f"pace a shift by {shifts}; {FAR_OUTSIDE}"
    )


def _of_ranks(watched: list[WatchedColumn], threshold: float) -> str:
    days = sorted(int(np.isfinite(series.before).sum()) for column in watched for series in column.series)
    if not days:
        return ""
    variances = [anytime_test.inflation(np.stack([series.before for series in column.series])) for column in watched]
    variance = round(float(np.median(np.concatenate(variances))), 1)
    count, level = days[len(days) // 2], threshold * float(np.log(10))
    delays = [_delay(count, variance, level, shift) for shift in (1.0, 2.0, 1e6)]
    if delays[-1] is not None and delays[-1] <= SLOW:
        return ""
    within = ["not within half a year" if delay is None else f"in about {delay} days" for delay in delays]
    return (
        f"a shift by one standard deviation of the {count} days to compare with is detected {within[0]}, by two "
        f"{within[1]}, of any size {within[2]}; {FAR_OUTSIDE}"
    )


@lru_cache(maxsize=256)
def _delay(reference: int, variance: float, level: float, shift: float) -> int | None:
    """After how many days half of the streams show a shift, in standard deviations of days; None: not in AHEAD_DAYS."""
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=(STREAMS, reference)), shift + rng.normal(size=(STREAMS, AHEAD_DAYS))
    scores = anytime_test.normal_scores(before, now)
    evidence = anytime_test.log_evidence(scores, np.ones(now.shape, dtype=bool), np.full(STREAMS, variance))
    is_detected = np.maximum.accumulate(evidence, axis=1) >= level
    half = np.flatnonzero(is_detected.sum(axis=0) * 2 >= STREAMS)
    return int(half[0]) + 1 if len(half) else None
