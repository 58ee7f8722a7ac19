"""Extreme days, far outside of everything the reference has seen: in another unit, all missing, unknown, stuck.

Ranks (anytime_test.py) cannot detect these soon: of 31 days any is the largest once in 31. So what counts here is by
how much, and of how many of the day's rows; one such day is enough. A day that is only outside is not extreme: winter
lies below all temperatures of a summer, by less than their range. The limits have no proof, their error rate is
measured (docs/benchmarks/drift.md).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FEWEST_DAYS = 7
"""A reference of fewer days has seen too little."""

RANGES = 3
"""Half of a day's values are extreme so many ranges of the reference's values beyond its smallest or largest."""

FAR_RANGES, FAR_SHARE, FAR_ROWS = 10, 0.01, 5
"""So are fewer of them, if they lie so much further out that the root mean square of all is beyond so many ranges."""

MISSING = 0.9
"""A share that is missing is extreme so far between the most of any day of the reference, if that is at most HALF, and
all."""

HALF = 0.5

UNKNOWN, TIMES = 0.1, 3
"""So is a share of unknown values that is so much, and so many times, above the most of any day of the reference."""

STUCK_ROWS, STUCK_SHARE, USUAL = 30, 0.25, 0.05
"""A day of so many rows and one value is extreme where a bin has at most so much of the reference, and no day of it
varied less than so much of what is usual."""


def levels(
    seen: tuple[float, float], days: int, mean: Floats, variance: Floats, outside: Floats, counts: Floats
) -> Bools:
    """Days of a number whose values lie far outside of what the reference has seen.

    Args:
        seen: the smallest and the largest value of the reference.
        days: how many days it has.
        mean: (days,) of the stream.
        variance: (days,) within the day.
        outside: (days,) the share of values outside of `seen`.
        counts: (days,) how many values.
    """
    low, high = seen
    width = high - low or abs(high)
    if days < FEWEST_DAYS or not width:
        return np.zeros(len(mean), dtype=bool)
    # by Cantelli's inequality at least half of the values lie above mean − spread, and half below mean + spread
    spread = np.sqrt(variance)
    most = (mean - spread > high + RANGES * width) | (mean + spread < low - RANGES * width)
    some = np.sqrt(variance + (mean - (low + high) / 2) ** 2) > FAR_RANGES * width
    return np.asarray(most | (some & (outside >= FAR_SHARE) & (outside * counts >= FAR_ROWS)))


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


def missing(before: Floats, now: Floats) -> Bools:
    """Days on which nearly all is missing that never was; or something is known that never was."""
    most, least = _ends(before)
    lost = now >= most + MISSING * (1 - most) if most <= HALF else np.zeros(len(now), dtype=bool)
    return np.asarray(lost | ((least == 1) & (now <= HALF)))


def unknown(before: Floats, now: Floats, counts: Floats) -> Bools:
    """Days with many values that the reference does not know."""
    most, _ = _ends(before)
    return np.asarray((now >= most + UNKNOWN) & (now >= TIMES * most) & (now * counts >= FAR_ROWS))


def _ends(before: Floats) -> tuple[float, float]:
    """The most and the least of any day; of too few days, infinities that no day passes."""
    shares = before[np.isfinite(before)]
    return (float(shares.max()), float(shares.min())) if len(shares) >= FEWEST_DAYS else (np.inf, -np.inf)
