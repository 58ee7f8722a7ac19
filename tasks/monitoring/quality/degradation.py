"""Degradation: is the model worse than it was promised to be? Beyond doubt, however often one looks.

The mean loss of each day's labelled predictions is a series, whose reference are the days of the holdout. How it is
tested depends on how many these are:

- MANY days and more say by themselves how days differ: ranks, as drift is tested (anytime_test.py), and bets.
- Fewer (one day, rows without a time) do not. So an upper bound of the promised mean is put together (`bound`): of its
  rows, and of days that differ as much as PRIOR_SPREAD and the days seen so far say. Each day of production is then a
  fair bet against «the mean is at most that» (anytime_test.mean_evidence). The bound is wide and finite.

Beside these, with any reference, a day so far beyond all of that is told at once (`_is_clear`). The chance of *ever*
alarming is at most CHANCE while nothing changes. An alarm takes more: the mean since the day it began must lie above
the interval of what was promised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tasks.monitoring.drift import anytime_test

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

CHANCE = 0.05
FEWEST = 5
"""Labels that a day must have to count by itself; days with fewer are taken together until they have as many."""

MANY, BY_RANKS = 28, 0.98
"""So many days of the holdout are ranked, and so much of CHANCE is for ranks. Where a day is ever so bad, ranks of a
month do not say so soon: the rest is for bets."""

PRIOR_SPREAD, PRIOR_DAYS = 0.4, 2
"""The mean losses of days differ by so much of their mean (standard deviation): what is assumed, and how many observed
days that is worth. Of the two models that ship it is 0.27 and 0.48."""

SURE = 2.33
"""Standard errors between the promised mean and its bound: it is above that one time in a hundred."""

CLEAR, CLEAR_ROWS, CLEAR_ERRORS = 3.0, 30, 2.0
"""A day of so many labels is worse at once if its mean lies by so many of its own standard errors above so many times
the bound, and the worst day of the holdout."""


TINY = 1e-100
"""Stands for a mean of 0: a holdout without any loss, as of a cost, is divided by too."""


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
    skewness: float = 0.0
    """Of the rows."""

    @staticmethod
    def of(losses: Floats, days: npt.NDArray[np.int64], promised: Mapping[str, float]) -> HoldoutLosses:
        """From the loss of each row of the holdout, and its day."""
        import numpy as np

        rows = np.bincount(days).astype(np.float64)
        means = np.bincount(days, losses) / np.maximum(rows, 1)
        freedom = max(len(losses) - int(np.count_nonzero(rows)), 1)
        within = float(((losses - means[days]) ** 2).sum()) / freedom
        counts = rows >= FEWEST
        if not counts.any():  # a row a day: how days differ cannot be told from how rows do
            means, rows, counts = np.array([losses.mean()]), np.array([float(len(losses))]), np.array([True])
            within = float(losses.var())
        spread = float(losses.std())
        skewness = float(((losses - losses.mean()) ** 3).mean()) / spread**3 if spread else 0.0
        return HoldoutLosses(means[counts], rows[counts], within, promised, max(skewness, 0.0))

    @property
    def mean(self) -> float:
        """Over the rows."""
        return float((self.means * self.rows).sum() / self.rows.sum())

    def bound(self, squares: Floats | float = 0.0, count: Floats | float = 0.0) -> Floats:
        """The most that the mean loss may be, for all that the holdout says; shape as the arguments.

        Args:
            squares: sums of squared differences between days of production, each of variance as that between days.
            count: how many differences these are.
        """
        import numpy as np

        mean = self.mean
        of_holdout = float(((self.means - mean) ** 2).sum())
        freedom = PRIOR_DAYS + len(self.means) - 1 + count
        between = (PRIOR_DAYS * (PRIOR_SPREAD * mean) ** 2 + of_holdout + squares) / freedom
        return np.asarray(mean + SURE * np.sqrt(between / len(self.means) + self.noise / float(self.rows.sum())))

    def rare(self, size: Floats) -> Floats:
        """How much higher the mean loss may be for rare great losses that this holdout happens to lack.

        Of a kind of row that is not among n, the share is at most −ln(0.01)/n, one time in a hundred. Of few of them
        the mean is skewed: Johnson 1978, JASA 73, 536-544.

        Args:
            size: of a great loss.
        """
        import numpy as np

        rows = float(self.rows.sum())
        skewed = self.skewness * (2 * SURE**2 + 1) / (6 * math.sqrt(rows)) * math.sqrt(self.noise / rows)
        return np.maximum(skewed, -math.log(0.01) / rows * size)


class DayLosses(NamedTuple):
    """The losses of a day of production, as far as labels are known."""

    day: str
    total: float
    labels: int
    squares: float = math.nan
    """The sum of the squared losses; nan where it was not kept."""


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


def find(holdout: HoldoutLosses, days: Sequence[DayLosses]) -> list[LossEpisode]:
    """Every time that the loss was above what was promised, oldest first; the last may be open. Pure.

    Args:
        holdout: what was promised.
        days: of production, oldest first.
    """
    blocks = _blocks(days)
    if not blocks or not len(holdout.means):
        return []
    production = _Production(holdout, blocks)
    episodes: list[LossEpisode] = []
    begin = 0
    while begin < len(blocks) and (start := production.opened(begin)):
        since, opened = start
        closed = production.closed(since, opened)
        end = len(blocks) if closed is None else closed + 1
        until = None if closed is None else blocks[closed].last
        labels = int(production.counts[since:end].sum())
        dates = blocks[since].first, blocks[opened].last, until
        episodes.append(LossEpisode(*dates, production.mean(since, end), labels))
        begin = end
    return episodes


class _Block(NamedTuple):
    """A day, or days that have FEWEST labels only together."""

    first: date
    last: date
    total: float
    labels: int
    squares: float


def _blocks(days: Sequence[DayLosses]) -> list[_Block]:
    blocks: list[_Block] = []
    waiting: list[DayLosses] = []
    for day in days:
        alone = day.labels >= FEWEST
        own = [day] if alone else [*waiting, day]
        if not alone and sum(each.labels for each in own) < FEWEST:
            waiting = own
            continue
        waiting = waiting if alone else []
        first, last = (date.fromisoformat(own[end].day) for end in (0, -1))
        total, squares = (sum(getattr(each, name) for each in own) for name in ("total", "squares"))
        blocks.append(_Block(first, last, total, sum(each.labels for each in own), squares))
    return blocks


@dataclass(frozen=True)
class _Days:
    """What is known of each day of production, or block of days; every array is of shape (days,)."""

    means: Floats
    counts: Floats
    noises: Floats
    """The variance of the mean of so many rows."""
    sizes: Floats
    """How large the losses are that make up most of the mean."""

    @staticmethod
    def of(holdout: HoldoutLosses, sums: Floats, counts: Floats, squares: Floats) -> _Days:
        """Where the sum of squares was not kept, rows scatter as those of the holdout."""
        import numpy as np

        means, mean = sums / counts, holdout.mean
        relative = holdout.noise / mean**2 if mean > TINY else 0.0
        usual = (relative + 1) * means**2 * counts
        squares = np.where(np.isnan(squares), usual, squares)
        variance = np.maximum(squares / counts - means**2, 0.0) * counts / (counts - 1)
        return _Days(means, counts, variance / counts, squares / np.maximum(sums, TINY))


class _Test(Protocol):
    """How the days of production are held against the holdout."""

    variance: float
    """Of the scores."""

    def evidence(self, begin: int) -> tuple[Floats, Floats]:
        """After each day from one on: its score, and the logarithm of the evidence that the loss is another."""
        ...

    def scores(self, since: int) -> Floats:
        """Of each day from one on, against the holdout alone."""
        ...


class _Ranks:
    """Days ranked among those of the holdout."""

    def __init__(self, holdout: HoldoutLosses, of: _Days) -> None:
        from tasks.monitoring.drift.series import DaySeries

        self.before, self.now, self.bets = holdout.means[None, :], of.means, _Bets(holdout, of)
        self.damping = DaySeries("mean", holdout.means, of.means, (holdout.rows, of.counts), holdout.noise).damping()
        self.variance = float(anytime_test.inflation(self.before)[0])

    def evidence(self, begin: int) -> tuple[Floats, Floats]:
        """The scores are independent of each other: a day is ranked among earlier ones too. Either may tell."""
        import numpy as np

        scores = self.damping[begin:] * anytime_test.normal_scores(self.before, self.now[None, begin:])[0]
        has_value = np.ones((1, len(scores)), dtype=bool)
        by_ranks = anytime_test.log_evidence(scores[None, :], has_value, np.array([self.variance]))[0]
        by_bets = self.bets.evidence(begin)[1]
        return scores, np.maximum(by_ranks + math.log(BY_RANKS), by_bets + math.log(1 - BY_RANKS))

    def scores(self, since: int) -> Floats:
        """Normal scores, smaller for days of few labels."""
        import numpy as np

        ranks = anytime_test.normal_scores(self.before, self.now[None, since:], learning=False)[0]
        return np.asarray(self.damping[since:] * ranks)


class _Bets:
    """Days as bets against the bound of a holdout of few days."""

    variance = 1.0

    def __init__(self, holdout: HoldoutLosses, of: _Days) -> None:
        import numpy as np

        self.holdout, self.now, self.counts = holdout, of.means, of.counts
        now, noises = of.means, of.noises
        # by what follows each other, whatever the level is (von Neumann 1941), and as a share of it
        noise = (noises[1:] + noises[:-1]) / 2
        level = np.maximum((now[1:] + now[:-1]) / 2, TINY)
        squares = np.cumsum((np.diff(now) ** 2 / 2 - noise) / level**2) * holdout.mean**2
        known = np.concatenate([[0.0, 0.0], np.maximum(squares, 0.0)])[: len(now)]  # before the day that is judged
        bounds = holdout.bound(known, np.maximum(np.arange(len(now)) - 1.0, 0.0))
        self.bounds = np.maximum(bounds + holdout.rare(np.maximum.accumulate(of.sizes)), TINY)

    def evidence(self, begin: int) -> tuple[Floats, Floats]:
        """By bets; the scores only say since when."""
        return self.scores(begin), anytime_test.mean_evidence(self.now[begin:] / self.bounds[begin:])

    def scores(self, since: int) -> Floats:
        """Standard errors above the promised mean, as far out as ranks of a month would be."""
        import numpy as np

        error = (self.bounds - self.holdout.mean) / SURE
        noise = self.holdout.noise / self.counts
        above = (self.now - self.holdout.mean) / np.sqrt(error**2 + noise + 1e-300)
        return np.asarray(np.clip(above, -2.5, 2.5))[since:]


class _Production:
    """The losses of production, by day or block of days, tested against the holdout's."""

    def __init__(self, holdout: HoldoutLosses, blocks: Sequence[_Block]) -> None:
        import numpy as np

        self.most = holdout.promised.get("high", math.inf)
        self.sums = np.array([block.total for block in blocks])
        self.counts = np.array([block.labels for block in blocks], dtype=np.float64)
        of = _Days.of(holdout, self.sums, self.counts, np.array([block.squares for block in blocks]))
        self.clear = _is_clear(holdout, of)
        self.test: _Test = (_Ranks if len(holdout.means) >= MANY else _Bets)(holdout, of)

    def opened(self, begin: int) -> tuple[int, int] | None:
        """Since when the loss is above, and the first day with enough evidence; improvements are not reported."""
        import numpy as np

        scores, evidence = self.test.evidence(begin)
        is_clear = self.clear[begin:]
        for day in np.flatnonzero((evidence >= -math.log(CHANCE)) | is_clear).tolist():
            has_value = np.ones(day + 1, dtype=bool)
            since = day if is_clear[day] else anytime_test.change_point(scores[: day + 1], has_value)
            if self.mean(begin + since, begin + day + 1) > self.most:
                return begin + since, begin + day
        return None

    def closed(self, since: int, opened: int) -> int | None:
        """The day on which it was as promised again, or better."""
        scores, first = self.test.scores(since), opened + 1
        after = anytime_test.returned(
            scores[first - since :],
            float(scores[: first - since].mean()),
            self.test.variance,
            lambda begin, end: self.mean(first + begin, first + end) <= self.most,
        )
        return None if after is None else first + after

    def mean(self, begin: int, end: int) -> float:
        """The mean loss of some days."""
        return float(self.sums[begin:end].sum() / self.counts[begin:end].sum())


def _is_clear(holdout: HoldoutLosses, of: _Days) -> npt.NDArray[np.bool_]:
    """Which days are worse beyond doubt by themselves: shape (days,)."""
    import numpy as np

    limit = CLEAR * max(float(holdout.bound()), float(holdout.means.max())) + holdout.rare(of.sizes)
    return np.asarray((of.counts >= CLEAR_ROWS) & (of.means - limit > CLEAR_ERRORS * np.sqrt(of.noises)))
