"""Extreme days, far outside of everything the reference has seen: in another unit, all missing, unknown, stuck.

Ranks (anytime_test.py) cannot detect these soon: of 31 days any is the largest once in 31. So what counts here is by
how much, and of how many of the day's rows; one such day is enough. A day that is only outside is not extreme: winter
lies below all temperatures of a summer, by less than their range. The limits have no proof, their error rate is
measured (docs/benchmarks/drift.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FEWEST_DAYS = 7
"""A reference of fewer days has seen little: what counts is farther outside (`_stretch`), or more of it."""

FEWEST_ROWS = 30
"""A reference of fewer rows has seen nothing."""

RANGES = 3
"""Half of a day's values are extreme so many ranges of the reference's values beyond its smallest or largest."""

MEAN_RANGES, FEWEST_MEANS = 1.5, 14
"""The mean of a measure is extreme so many ranges of the means of the reference's days beyond the smallest or the
largest, of at least so many days."""

FAR_RANGES, FAR_SHARE, FAR_ROWS = 10, 0.01, 5
"""So are fewer of them, if they lie so much further out that the root mean square of all is beyond so many ranges."""

MISSING = 0.9
"""A share that is missing is extreme so far between the most of any day of the reference, if that is at most HALF, and
all."""

HALF = 0.5

BY_CHANCE = 1e-6
"""That all of a day's few rows are among those that always were missing must be less likely than this."""

UNKNOWN, TIMES, MOST = 0.1, 3, 0.5
"""So is a share of unknown values that is so much, and so many times, above the most of any day of the reference; above
that of a reference of few days it must be MOST."""

STUCK_ROWS, STUCK_SHARE, USUAL = 30, 0.25, 0.05
"""A day of so many rows and one value is extreme where a bin has at most so much of the reference, and no day of it
varied less than so much of what is usual."""


@dataclass(frozen=True)
class Seen:
    """What a reference has seen of a number."""

    low: float
    high: float
    days: int
    rows: float

    @property
    def stretch(self) -> float:
        """How much farther outside than of FEWEST_DAYS a value must lie: as days scatter, so do their ends."""
        return float(np.sqrt(max(FEWEST_DAYS / max(self.days, 1), 1.0)))


def levels(seen: Seen, mean: Floats, variance: Floats, outside: Floats, counts: Floats) -> Bools:
    """Days of a number whose values lie far outside of what the reference has seen.

    Args:
        seen: by the reference.
        mean: (days,) of the stream.
        variance: (days,) within the day.
        outside: (days,) the share of values outside of `seen`.
        counts: (days,) how many values.
    """
    low, high = seen.low, seen.high
    width = (high - low or abs(high)) * seen.stretch
    if (seen.days < FEWEST_DAYS and seen.rows < FEWEST_ROWS) or not width:
        return np.zeros(len(mean), dtype=bool)
    # by Cantelli's inequality at least half of the values lie above mean − spread, and half below mean + spread
    spread = np.sqrt(variance)
    most = (mean - spread > high + RANGES * width) | (mean + spread < low - RANGES * width)
    some = np.sqrt(variance + (mean - (low + high) / 2) ** 2) > FAR_RANGES * width
    return np.asarray(most | (some & (outside >= FAR_SHARE) & (outside * counts >= FAR_ROWS)))


def far_days(before: Floats, now: Floats, rows: Floats, rows_now: Floats) -> Bools:
    """Days of a measure whose mean lies far outside of the means of the reference's days.

    A measure, as the share of a text's unknown words, has no seasons, and the rows of a day have all of its values:
    what no row shows the day's mean does.

    Args:
        before: (reference days,) the mean of each day; nan where there is none.
        now: (days,) the same of the stream.
        rows: (reference days,) how many values it is of.
        rows_now: (days,)
    """
    means = before[np.isfinite(before)]
    if len(means) < FEWEST_MEANS or not np.ptp(means):
        return np.zeros(len(now), dtype=bool)
    fewer = np.median(rows[np.isfinite(before)]) / np.maximum(rows_now, 1)
    reach = MEAN_RANGES * np.ptp(means) * np.sqrt(np.maximum(fewer, 1))
    return np.asarray((now > means.max() + reach) | (now < means.min() - reach))


def stuck(before: Floats, usual: Floats, now: Floats, shares: Floats, counts: Floats, step: float) -> Bools:
    """Days on which a number has one value, where it always varied.

    Args:
        before: (reference days,) the spread within each day; nan where there is none.
        usual: (bins,) the share of each bin in the reference.
        now: (days,) the spread.
        shares: (days, bins) of the stream.
        counts: (days,) how many values.
        step: what is less cannot be told from no spread at all.
    """
    spreads = before[np.isfinite(before)]
    if len(spreads) < FEWEST_DAYS or spreads.min() < max(USUAL * np.median(spreads), step):
        return np.zeros(len(now), dtype=bool)
    common = usual[np.argmax(np.nan_to_num(shares), axis=1)] if shares.shape[1] else np.ones(len(now))
    return np.asarray((now < step) & (counts >= STUCK_ROWS) & (common <= STUCK_SHARE))


def missing(before: Floats, now: Floats, counts: Floats, rows: float) -> Bools:
    """Days on which nearly all is missing that never was; or something is known that never was.

    Args:
        before: (reference days,) the share that is missing.
        now: (days,) of the stream.
        counts: (days,) how many rows.
        rows: of the reference.
    """
    most, least = _ends(before, rows)
    if _is_short(before):  # something may be missing on all of a day
        least = 0.0
    lost = now >= most + MISSING * (1 - most) if most <= HALF else np.zeros(len(now), dtype=bool)
    lost &= counts * np.log(max(min(most, HALF), 1 / max(rows, 1))) <= np.log(BY_CHANCE)
    return np.asarray(lost | ((least == 1) & (now <= HALF)))


def unknown(before: Floats, now: Floats, counts: Floats, rows: float, unseen: float) -> Bools:
    """Days with many values that the reference does not know.

    Args:
        before: (reference days,) the share of unknown values.
        now: (days,) of the stream.
        counts: (days,) how many values.
        rows: of the reference.
        unseen: the share of rows that would be of values which so few rows happen to lack.
    """
    most = max(_ends(before, rows)[0], unseen)
    least = MOST if _is_short(before) else UNKNOWN
    return np.asarray((now >= most + least) & (now >= TIMES * most) & (now * counts >= FAR_ROWS))


def _is_short(before: Floats) -> bool:
    return int(np.isfinite(before).sum()) < FEWEST_DAYS


def _ends(before: Floats, rows: float) -> tuple[float, float]:
    """The most and the least of any day; of too few days and rows, infinities that no day passes."""
    shares = before[np.isfinite(before)]
    has_seen = len(shares) >= FEWEST_DAYS or (len(shares) and rows >= FEWEST_ROWS)
    return (float(shares.max()), float(shares.min())) if has_seen else (np.inf, -np.inf)
