"""Episodes of drift, column by column: what opened on which day, and when it was over."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tasks.monitoring.drift import anytime_test, thresholds
from tasks.monitoring.drift.series import DaySeries, WatchedColumn

Floats = npt.NDArray[np.float64]

ASPECTS = ("unknown", "missing", "mean", "share", "rare", "spread", "fit")
"""What can move. Of those that are about as evident, the first is named."""

BACK = 3
"""So many days in a row that are not extreme end what began with an extreme one."""


@dataclass(frozen=True)
class DriftEpisode:
    """A column drifts, from the day it was detected to the day it was over. Days by their position on the axis."""

    series: tuple[DaySeries, ...]
    """What moved; the first is named."""
    since: int
    opened: int
    closed: int | None


@dataclass
class Timeline:
    """What happened to one column."""

    p: float = 1.0
    """On the last day."""
    q: float = 1.0
    evidence: Floats = field(default_factory=lambda: np.empty(0))
    """After each day, log10, of the most evident series."""
    episodes: list[DriftEpisode] = field(default_factory=list)

    def is_open(self, day: int) -> bool:
        """Whether the last episode was not over before this day."""
        last = self.episodes[-1] if self.episodes else None
        return last is not None and (last.closed is None or day <= last.closed)


def timelines(watched: list[WatchedColumn], days: int) -> list[Timeline]:
    """Go through the days; what is found on one depends on no later one."""
    tests, columns = [_ColumnTest(column) for column in watched], [Timeline() for _ in watched]
    p = np.array([test.p for test in tests]).reshape(len(tests), days)
    evidence = np.array([test.evidence.max(axis=0) for test in tests]).reshape(len(tests), days)
    extreme = np.array([test.extreme.any(axis=0) for test in tests]).reshape(len(tests), days)
    for day in np.flatnonzero((p <= thresholds.CHANCE).any(axis=0) | extreme.any(axis=0)).tolist():
        is_drifting = _adjusted(p[:, day]) <= thresholds.CHANCE
        limit = thresholds.CHANCE * is_drifting.sum() / divisor(len(tests))
        for at in np.flatnonzero(is_drifting | extreme[:, day]).tolist():
            test, column = tests[at], columns[at]
            if column.is_open(day):
                continue
            episode = test.extreme_episode(day) if extreme[at, day] else test.episode(day, limit)
            column.episodes += [episode] if episode else []
            if episode and episode.closed is not None and (begin := episode.closed + 1) < days:
                test.begin(begin)
                p[at, begin:], evidence[at, begin:] = test.p, test.evidence.max(axis=0)
    last = p[:, -1] if days else np.ones(len(tests))
    for column, value, adjusted, of_days in zip(columns, last, _adjusted(last), evidence / np.log(10), strict=True):
        column.p, column.q, column.evidence = float(value), float(adjusted), of_days
    return columns


def divisor(columns: int) -> float:
    """What `chance` is divided by for the first of so many columns (Benjamini & Yekutieli 2001, theorem 1.3)."""
    return float(columns * sum(1 / k for k in range(1, columns + 1)))


def _adjusted(p: Floats) -> Floats:
    """p-values such that those of at most α have a false discovery rate of at most α, however they depend."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p, method="by")) if len(p) else p


class _ColumnTest:
    """The test of one column's series, from some day on."""

    def __init__(self, column: WatchedColumn) -> None:
        self.series = column.series
        self.before = np.stack([series.before for series in self.series])
        self.now = np.stack([series.now for series in self.series])
        self.damping = np.stack([series.damping() for series in self.series])
        self.variance = anytime_test.inflation(self.before)
        self.extreme = np.stack([series.is_extreme() for series in self.series])
        self.begin(0)

    def begin(self, day: int) -> None:
        """Test the days from this one on, as if there were none before."""
        self.first = day
        now = self.now[:, day:]
        self.has_value = np.isfinite(now)
        self.scores = self.damping[:, day:] * anytime_test.normal_scores(self.before, now)
        self.evidence = anytime_test.log_evidence(self.scores, self.has_value, self.variance)
        for s, series in enumerate(self.series):
            if series.gross is not None:  # either may tell, each with half of the error
                self.evidence[s] = np.maximum(self.evidence[s] - np.log(2), series.gross.log_evidence(day))
                self.scores[s], self.has_value[s] = series.gross.scores(day), series.gross.has_value[day:]
        self.highest = np.maximum.accumulate(self.evidence, axis=1)
        self.p = np.minimum(1.0, len(self.series) * np.exp(-self.highest.max(axis=0)))

    def episode(self, day: int, limit: float) -> DriftEpisode | None:
        """What began to move, seen from this day, and when it was over; None where it is too little to matter.

        Args:
            day: on which the column is one of those that moved.
            limit: the p-value that makes a column one of those.
        """
        upto = day - self.first + 1
        evident = self._evident(upto, limit)
        since = {
            s: self.first + anytime_test.change_point(self.scores[s, :upto], self.has_value[s, :upto]) for s in evident
        }
        moving = [s for s in evident if _matters(self.series[s], since[s], day)]
        if not moving:
            return None
        begin = since[moving[0]]
        ends = [self._end(s, since[s], day) for s in moving]
        closed = None if None in ends else max(end for end in ends if end is not None)
        # its name is better known later: the first evidence is not always the plainest
        last = closed if closed is not None else self.first + self.p.size - 1
        later = self._evident(last - self.first + 1, limit)
        named = [s for s in later if _matters(self.series[s], begin, last)] or moving
        return DriftEpisode(tuple(self.series[s] for s in named), begin, day, closed)

    def extreme_episode(self, day: int) -> DriftEpisode:
        """What begins on an extreme day, and when it was over."""
        series = sorted(np.flatnonzero(self.extreme[:, day]).tolist(), key=self._rank)
        quiet, closed = 0, None
        for after in range(day + 1, self.extreme.shape[1]):
            if np.isfinite(self.now[series, after]).any():
                quiet = 0 if self.extreme[:, after].any() else quiet + 1
            if quiet == BACK:
                closed = after
                break
        return DriftEpisode(tuple(self.series[s] for s in series), day, day, closed)

    def _rank(self, series: int) -> int:
        return ASPECTS.index(self.series[series].aspect)

    def _evident(self, upto: int, limit: float) -> list[int]:
        """The series that moved, after so many days.

        What moved by itself comes before its fit to the others, and of what is about as evident, the plainest first.
        """
        level = self.highest[:, upto - 1]
        is_faint = level < level.max() / 2
        order = sorted(
            range(len(level)),
            key=lambda s: (self.series[s].aspect == "fit", is_faint[s], self._rank(s), -level[s]),
        )
        return [s for s in order if len(level) * np.exp(-level[s]) <= limit]

    def _end(self, s: int, since: int, opened: int) -> int | None:
        """The day on which a series was seen to be as the reference again."""
        now, gross = self.now[[s], since:], self.series[s].gross
        if gross is None:
            against_reference = anytime_test.normal_scores(self.before[[s]], now, learning=False)
            scores, variance = (self.damping[[s], since:] * against_reference)[0], float(self.variance[s])
        else:
            scores, variance = gross.scores(since), 1.0
        drifted = opened + 1 - since
        has_value = self.has_value[s, since - self.first :][:drifted]
        level = float(scores[:drifted][has_value].mean()) if has_value.any() else 0.0
        after = anytime_test.returned(scores[drifted:], level, variance)
        return None if after is None else opened + 1 + after


def _matters(series: DaySeries, since: int, last: int) -> bool:
    before, now = series.levels(since, last)
    change = abs(now - before) / series.scale
    if series.aspect in ("mean", "fit", "spread"):
        return change >= thresholds.MIN_EFFECT
    if series.aspect == "share":
        return change >= max(thresholds.MIN_CHANGE, thresholds.MIN_EFFECT * float(np.sqrt(before * (1 - before))))
    return change >= (thresholds.MIN_CHANGE / 10 if series.aspect == "unknown" else thresholds.MIN_CHANGE)
