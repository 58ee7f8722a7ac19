"""Degradation: is the model worse than it was promised to be? Beyond doubt, however often one looks.

The mean loss of each day's labelled predictions is a series, whose reference are the days of the holdout. It is tested
as drift is (anytime_test.py), so that the chance of *ever* alarming is at most CHANCE while nothing changes. An alarm
takes more: the mean since the day it began must lie above the interval of what was promised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from tasks.monitoring.drift import anytime_test

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

CHANCE = 0.05
FEWEST = 5
"""Labels that a day must have to count."""


@dataclass(frozen=True)
class HoldoutLosses:
    """The losses on the holdout, by day."""

    means: Floats
    """Oldest first."""
    rows: Floats
    noise: float
    """The variance within a day."""
    promised: Mapping[str, float]
    """{value, low, high} of the mean loss."""

    @staticmethod
    def of(losses: Floats, days: npt.NDArray[np.int64], promised: Mapping[str, float]) -> HoldoutLosses:
        """From the loss of each row of the holdout, and its day."""
        import numpy as np

        rows = np.bincount(days).astype(np.float64)
        means = np.bincount(days, losses) / np.maximum(rows, 1)
        freedom = max(len(losses) - int(np.count_nonzero(rows)), 1)
        within = float(((losses - means[days]) ** 2).sum()) / freedom
        counts = rows >= FEWEST
        return HoldoutLosses(means[counts], rows[counts], within, promised)


@dataclass(frozen=True)
class LossEpisode:
    """The loss was above what was promised."""

    since: date
    opened: date
    """The day that completed the evidence."""
    closed: date | None
    loss: float
    """The mean from then on, over the labelled predictions."""
    labels: int


def find(holdout: HoldoutLosses, days: Sequence[tuple[str, float, int]]) -> list[LossEpisode]:
    """Every time that the loss was above what was promised, oldest first; the last may be open. Pure.

    Args:
        holdout: what was promised.
        days: of production: day, sum of losses, number of labels; oldest first.
    """
    kept = [(date.fromisoformat(day), total, labels) for day, total, labels in days if labels >= FEWEST]
    if not kept or len(holdout.means) < 2:
        return []
    production = _Production(holdout, kept)
    episodes: list[LossEpisode] = []
    begin = 0
    while begin < len(kept) and (start := production.opened(begin)):
        since, opened = start
        closed = production.closed(since, opened)
        end = len(kept) if closed is None else closed + 1
        until = None if closed is None else kept[closed][0]
        labels = int(production.counts[since:end].sum())
        episodes.append(LossEpisode(kept[since][0], kept[opened][0], until, production.mean(since, end), labels))
        begin = end
    return episodes


class _Production:
    """The losses of production, by day, tested against the holdout's."""

    def __init__(self, holdout: HoldoutLosses, days: Sequence[tuple[date, float, int]]) -> None:
        import numpy as np

        from tasks.monitoring.drift.series import DaySeries

        self.before = holdout.means[None, :]
        self.most = holdout.promised.get("high", math.inf)
        self.sums = np.array([loss for _, loss, _ in days])
        self.counts = np.array([count for _, _, count in days], dtype=np.float64)
        self.now = self.sums / self.counts
        weights = (holdout.rows, self.counts)
        self.damping = DaySeries("mean", holdout.means, self.now, weights, holdout.noise).damping()
        self.variance = anytime_test.inflation(self.before)

    def opened(self, begin: int) -> tuple[int, int] | None:
        """Since when the loss is above, and the first day with enough evidence; improvements are not reported."""
        import numpy as np

        scores = self.damping[begin:] * anytime_test.normal_scores(self.before, self.now[None, begin:])[0]
        has_value = np.ones(len(scores), dtype=bool)
        evidence = anytime_test.log_evidence(scores[None, :], has_value[None, :], self.variance)[0]
        for day in np.flatnonzero(evidence >= -math.log(CHANCE)).tolist():
            since = anytime_test.change_point(scores[: day + 1], has_value[: day + 1])
            if self.mean(begin + since, begin + day + 1) > self.most:
                return begin + since, begin + day
        return None

    def closed(self, since: int, opened: int) -> int | None:
        """The day on which it was as promised again, or better."""
        against_holdout = anytime_test.normal_scores(self.before, self.now[None, since:], learning=False)[0]
        scores, first = self.damping[since:] * against_holdout, opened + 1
        after = anytime_test.returned(
            scores[first - since :],
            float(scores[: first - since].mean()),
            float(self.variance[0]),
            lambda begin, end: self.mean(first + begin, first + end) <= self.most,
        )
        return None if after is None else first + after

    def mean(self, begin: int, end: int) -> float:
        """The mean loss of some days."""
        return float(self.sums[begin:end].sum() / self.counts[begin:end].sum())
