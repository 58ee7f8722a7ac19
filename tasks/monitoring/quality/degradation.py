"""Has the model become worse than it was promised to be? Beyond doubt, however often one looks.

The mean loss of each day's labelled predictions is a series; the days of the holdout are its reference. It is tested as
drift is (sequential.py): by the ranks of days, with evidence that may be looked at every day, so that the chance of
*ever* alarming is at most `CHANCE` while the days of production are as those of the holdout were. It takes more than
that to be told: the mean since the day it began must lie above the interval of what was promised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.monitoring.drift import anytime_test

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tasks.monitoring.drift.series import DaySeries

    Floats = npt.NDArray[np.float64]

CHANCE = 0.05
FEWEST = 5
"""Labels that a day must have to count."""


@dataclass(frozen=True)
class HoldoutLosses:
    """The losses on the holdout."""

    means: Floats
    """Of each of its days, oldest first."""
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

    since: str
    opened: str
    """The day that was the last bit of evidence."""
    closed: str | None
    loss: float
    """The mean from then on, over the labelled predictions."""
    labels: int


def find(before: HoldoutLosses, days: Sequence[tuple[str, float, int]]) -> list[LossEpisode]:
    """Every time that the loss was above what was promised, oldest first; of them the last may be open. Pure.

    Args:
        before: the holdout.
        days: of production: day, sum of losses, number of labels; oldest first.
    """
    import numpy as np

    from tasks.monitoring.drift.series import DaySeries

    kept = [(day, loss, count) for day, loss, count in days if count >= FEWEST]
    if not kept or len(before.means) < 2:
        return []
    counts = np.array([count for _, _, count in kept], dtype=np.float64)
    sums = np.array([loss for _, loss, _ in kept])
    series = DaySeries("mean", before.means, sums / counts, (before.rows, counts), before.noise)
    variance = anytime_test.inflation(before.means[None, :])
    found: list[LossEpisode] = []
    begin = 0
    while begin < len(kept):
        scores = (
            series.damping()[begin:] * anytime_test.normal_scores(before.means[None, :], series.now[None, begin:])[0]
        )
        known = np.ones((1, len(scores)), dtype=bool)
        evident = anytime_test.log_evidence(scores[None, :], known, variance)[0] >= -math.log(CHANCE)
        opened, since = _opened(before, scores, evident, sums[begin:], counts[begin:])
        if opened is None:
            return found
        since, opened = since + begin, opened + begin
        closed = _closed(before, series, since, opened, float(variance[0]), sums, counts)
        last = len(kept) if closed is None else closed + 1
        loss = float(sums[since:last].sum() / counts[since:last].sum())
        end = None if closed is None else kept[closed][0]
        found.append(LossEpisode(kept[since][0], kept[opened][0], end, loss, int(counts[since:last].sum())))
        begin = last
    return found


def _opened(
    before: HoldoutLosses, scores: Floats, evident: npt.NDArray[np.bool_], sums: Floats, counts: Floats
) -> tuple[int | None, int]:
    """The first day on which it was plain, and since when; that it became better is not told."""
    import numpy as np

    for day in np.flatnonzero(evident).tolist():
        since = anytime_test.change_point(scores[: day + 1], np.ones(day + 1, dtype=bool))
        mean = sums[since : day + 1].sum() / counts[since : day + 1].sum()
        if mean > before.promised.get("high", math.inf):
            return day, since
    return None, 0


def _closed(
    before: HoldoutLosses, series: DaySeries, since: int, opened: int, variance: float, sums: Floats, counts: Floats
) -> int | None:
    """The day on which it was as promised again, or better.

    A cumulative sum as in sequential.returned. That one asks for a mean within two standard errors of the reference's;
    here it is enough that the loss of the days which speak for the end lies not above what was promised.
    """
    now = series.now[None, since:]
    scores = series.damping()[since:] * anytime_test.normal_scores(before.means[None, :], now, learning=False)[0]
    level = float(scores[: opened + 1 - since].mean())
    total, begin = 0.0, opened + 1
    for day in range(opened + 1, len(counts)):
        total += level / 2 * (level / 4 - float(scores[day - since])) / variance
        if total <= 0:
            total, begin = 0.0, day + 1
        elif total >= anytime_test.RETURNED:
            mean = sums[begin : day + 1].sum() / counts[begin : day + 1].sum()
            if mean <= before.promised.get("high", math.inf):
                return day
    return None
