"""Drift detection: day summaries of the stream against those of the reference, with bounded false alarms.

Each number that a day gives of a column (series.py) is tested by itself (anytime_test.py). A column's p-value is the
smallest of its series', times their number (Bonferroni). Over the columns the false discovery rate is controlled as by
Benjamini & Yekutieli (2001), whatever depends on what. While nothing has changed every discovery is a false one: so the
chance of *ever* alarming is at most `thresholds.CHANCE`. Beside that, a day far outside is drift at once (extremes.py).

`detect` is a pure function of the days that were seen. It goes through them from the first day each time (episodes.py),
so late rows fall into place, and batching of days makes no difference. Why it is so: docs/decisions/drift.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from tasks.modelling.daily_summaries import STEPS, ColumnDays, ColumnLayout, DaySummaries, Role
from tasks.monitoring.drift import anytime_test, episodes, thresholds
from tasks.monitoring.drift.moves import DriftAlarm, Moved, group_alarms, moved
from tasks.monitoring.drift.series import WatchedColumn, watch

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
        moved(column, episode, days, (units or {}).get(column.layout.name))
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
    return DriftReport(tuple(days), threshold, findings, group_alarms(moves), _sensitivity(watched, threshold))


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
    days, before = (int((side.rows >= thresholds.MIN_ROWS).sum()) for side in (stream, reference))
    for count, needed, what in (
        (days, thresholds.MIN_DAYS, f"of at least {thresholds.MIN_ROWS} rows"),
        (before, thresholds.MIN_REFERENCE_DAYS, "in the reference"),
    ):
        if count < needed:
            return "not enough data", f"{name} has {count} days {what}; it takes {needed}"
    if _is_constant(reference, stream):
        return "constant", f"{name} has one value only, the same as in training"
    return "ok", f"{name} is as in training"


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


def _sensitivity(watched: list[WatchedColumn], threshold: float) -> str:
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
        f"{within[1]}, of any size {within[2]}; what lies far outside of all that was seen is reported when its day is "
        f"over"
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
