"""Gross changes against a reference of few days, or of rows without a time: what can be told when ranks cannot.

Ranks (anytime_test.py) say little of a value that lies beyond all of a week, and nothing of one that lies beyond a day.
Here its distance counts. How much days differ is not known from so few of them, so it is put together from what there
is: the days of the reference, those of production as they follow each other (a change leaves their differences as they
were), and a prior of one day, that days differ as much as rows do. With it the mean of the days of production is held
against that of the reference by Student's t. A look a day is paid for: day d may err with a chance of 1/(d(d + 1)).

The bound is wide: a shift by one standard deviation of the rows is hardly ever told, one by five within a week or two,
of three rows a week within two months. It assumes that days are about normal; its false alarms are measured
(tests/tasks/monitoring/drift/test_gross.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special

from tasks.monitoring.drift.anytime_test import WEEK

Floats = npt.NDArray[np.float64]

FEWEST = 3
"""Days of production with a value."""

ALIKE = 3
"""So many days that follow each other say as much as one: a front passes in three."""

PRIOR_DAYS = 1
"""So many observed days the prior is worth."""

MOST_SCORE = 2.5
"""As far out as a rank among the days of some months may be."""

AHEAD_DAYS, STREAMS = 182, 25
"""How far ahead, and on how many simulated streams, `delay` is estimated."""


@dataclass(frozen=True)
class GrossTest:
    """Of one number per day: its days in the reference and in production. Days without a value are nan."""

    before: tuple[Floats, Floats]
    """The values, and how many rows each is of."""
    now: tuple[Floats, Floats]
    squares: Floats
    """The mean of the squared rows of each day of production."""
    noise: float
    """Variance between the rows of a day."""
    prior: float
    """Variance between days, as it is assumed."""

    @property
    def has_value(self) -> npt.NDArray[np.bool_]:
        """Which days of production have one."""
        return np.isfinite(self.now[0])

    def log_evidence(self, begin: int) -> Floats:
        """The logarithm of the evidence after each day from one on: shape (days,)."""
        values, rows, squares = (of[begin:] for of in (*self.now, self.squares))
        has_value = np.isfinite(values)
        out = np.zeros(len(values))
        if has_value.any() and len(self._reference[0]):
            out[has_value] = self._evidence(values[has_value], rows[has_value], squares[has_value])
        return np.maximum.accumulate(out)

    def scores(self, begin: int) -> Floats:
        """How many standard errors each day from one on lies off, no more than MOST_SCORE; 0 where it has no value."""
        values, rows, squares = (of[begin:] for of in (*self.now, self.squares))
        has_value, (x, _) = np.isfinite(values), self._reference
        out = np.zeros(len(values))
        if has_value.any() and len(x):
            y, counts = values[has_value], rows[has_value]
            squared, freedom = self._between(y, counts)
            between = (self._prior + squared) / (self._freedom + freedom)
            variance = between * (1 / len(x) + 1) + self._noise(y, counts, squares[has_value]) / counts
            with np.errstate(divide="ignore", invalid="ignore"):
                off = (y - x.mean()) / np.sqrt(variance)
            out[has_value] = np.clip(np.nan_to_num(off), -MOST_SCORE, MOST_SCORE)
        return out

    @property
    def _reference(self) -> tuple[Floats, Floats]:
        known = np.isfinite(self.before[0])
        return self.before[0][known], self.before[1][known]

    @property
    def _prior(self) -> float:
        """The sum of squares between days, before production: as assumed, and as in the reference.

        With what rows add to it: of a row a day nobody can tell them apart.
        """
        x, _ = self._reference
        return PRIOR_DAYS * self.prior + float(((x - x.mean()) ** 2).sum())

    @property
    def _freedom(self) -> int:
        return PRIOR_DAYS + len(self._reference[0]) - 1

    def _evidence(self, y: Floats, rows: Floats, squares: Floats) -> Floats:
        """A change may come late: days from each week on are held against all before them. Weights sum to 1."""
        evidence = np.zeros(len(y))
        noise = self._noise(y, rows, squares)
        for week, begin in enumerate(range(0, len(y), WEEK), start=1):
            since = self._since(begin, y, rows, noise) - np.log(week * (week + 1))
            evidence[begin:] = np.maximum(evidence[begin:], since)
        return evidence

    def _since(self, begin: int, y: Floats, rows: Floats, noise: Floats) -> Floats:
        """The evidence of each day from one on, if that is when the change came."""
        x, of = (np.concatenate([old, new[:begin]]) for old, new in zip(self._reference, (y, rows), strict=True))
        earlier, freedom = (part[-1] if begin else 0.0 for part in self._between(y[:begin], rows[:begin]))
        y, rows, noise = y[begin:], rows[begin:], noise[begin:]
        n, days, (squared, own) = np.arange(1, len(y) + 1), len(x), self._between(y, rows)
        freedom = self._freedom + freedom + own
        between = (self._prior + earlier + squared) / freedom
        alike = 1 / np.maximum(days / ALIKE, 1) + 1 / np.maximum(n / ALIKE, 1)
        variance = between * alike + noise * (np.mean(1 / of) / days + np.cumsum(1 / rows) / n**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(np.cumsum(y) / n - x.mean()) / np.sqrt(variance)
            log_p = np.log(2 * special.stdtr(freedom, -np.nan_to_num(t, posinf=1e150)))
        looks = np.log(2.0 * n * (n + 1))  # half of the error is that of the ranks
        return np.where(n >= FEWEST, np.minimum(-log_p, 700.0) - looks, 0.0)

    def _noise(self, y: Floats, rows: Floats, squares: Floats) -> Floats:
        """Between rows: as in the reference, or as they have scattered in production by then, if that is more."""
        total = np.cumsum(rows)
        centre, second = np.cumsum(rows * y) / total, np.cumsum(rows * squares) / total
        seen = np.maximum(second - centre**2, 0.0)
        return np.maximum(self.noise, np.where(total >= 2 * FEWEST, np.minimum(seen, 4 * self.noise), 0.0))

    def _between(self, y: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """The sum of squares between days of production, after each of them, and its degrees of freedom.

        Of days a week apart, whatever the level is (von Neumann 1941); one standard error, √(2/n), more than that.
        """
        steps, at = np.arange(len(y), dtype=np.float64), np.arange(len(y))
        back = np.maximum(at - WEEK, 0)
        squared = np.cumsum((y - y[back]) ** 2) / 2 * (1 + np.sqrt(2 / np.maximum(steps, 1)))
        sampled = np.cumsum((1 / rows + 1 / rows[back]) * (back < at)) / 2 * self.noise
        return np.maximum(squared - sampled, 0.0), steps


@lru_cache(maxsize=256)
def delay(days: int, rows: int, level: float, shift: float) -> int | None:
    """After how many days of so many rows half of the streams show a shift; None: not within AHEAD_DAYS.

    Args:
        days: of the reference, each of a hundred rows.
        rows: a day of production has.
        level: of evidence (natural logarithm).
        shift: in standard deviations of rows; days differ by a quarter of one.
    """
    rng = np.random.default_rng(0)
    delays = []
    for _ in range(STREAMS):
        before = rng.normal(0, 0.25, days) + rng.normal(0, 0.1, days)
        now = shift + rng.normal(0, 0.25, AHEAD_DAYS) + rng.normal(0, 1 / np.sqrt(rows), AHEAD_DAYS)
        counts = np.full(AHEAD_DAYS, float(rows))
        test = GrossTest((before, np.full(days, 100.0)), (now, counts), now**2 + 1 - 1 / rows, 1.0, 1.0)
        first = np.flatnonzero(test.log_evidence(0) >= level)
        delays.append(int(first[0]) + 1 if len(first) else AHEAD_DAYS + 1)
    half = sorted(delays)[STREAMS // 2]
    return half if half <= AHEAD_DAYS else None
