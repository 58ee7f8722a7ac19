"""Anytime-valid sequential test: is a series of days still as it was? It may be looked at every day, without end.

A *series* is one number per day, as the mean temperature of the day's flights. The question is whether the days of
the stream could be further days of the reference: whether all of them are exchangeable. The test is exact for that,
whatever the distribution; it asks nothing of the rows within a day, which are never independent.

1. A new day has a rank among the reference and the stream's earlier days. If days are exchangeable, ranks are uniform
   and independent of one another (Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, 2005, section 8.1),
   so the normal quantile z of the rank is standard normal (`normal_scores`). Among equal values the rank is uniform: z
   is replaced by its mean over them. By Jensen's inequality this makes exp(μz) smaller on average: nothing is drawn.
2. If z is standard normal, Π exp(μz − μ²/2) is a martingale with mean 1, and so is its mixture over μ ~ N(0, τ²): with
   S the sum of n scores it is exp(τ²S²/(2(1 + nτ²)))/√(1 + nτ²) (Robbins 1970, Annals of Mathematical Statistics 41).
3. The change may come late. A martingale is begun each week, and their mixture with weights that sum to 1 is the
   *evidence* (`log_evidence`). By Ville's inequality it ever exceeds 1/α with a probability of at most α, so that
   1/(its highest value so far) is a p-value at any time, however one stops.

Days of one week are alike (a front passes in three). What the reference's own weeks scatter more than seven independent
days would is divided out (`inflation`): a factor of at least 1, known before the stream begins, so 1 to 3 still hold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WEEK = 7

PRIORS = (0.02, 0.2, 2.0)
"""Variances τ² of the mean score under drift: a small, a middling and a great one, each a third of the mixture."""

STAKES = (0.05, 0.2, 0.5, 0.9)
"""What `mean_evidence` bets each day, as shares of what it has."""

HALF_BY = 12
"""Half of the weight is on changes within so many weeks; the rest falls as 1/weeks²."""

PRIOR_WEEKS, PRIOR_INFLATION = 4, 2.0
"""The prior of `inflation`: what is assumed of weeks, and how many observed weeks that is worth."""

RETURNED = float(np.log(1000))
"""So much log-likelihood must speak for the reference, against the drift, before it counts as over: a drift that stays
is declared over once in 1000 days at most, on average (Page 1954; Lorden 1971)."""


def normal_scores(reference: Floats, stream: Floats, *, learning: bool = True) -> Floats:
    """The score z of each of the stream's days.

    Args:
        reference: (series, reference days), in any order; nan where a series has no value.
        stream: (series, days), oldest first; nan likewise.
        learning: whether a day is ranked among the stream's earlier days too, which is what makes scores independent.

    Returns:
        (series, days): independent and standard normal, or closer to 0, if all days are exchangeable; 0 where the
        stream has no value.
    """
    scores = np.zeros(stream.shape)
    triangle = np.tri(stream.shape[1], k=-1, dtype=bool) & learning
    for series, (before, now) in enumerate(zip(reference, stream, strict=True)):
        has_value = np.isfinite(now)
        pool, values = np.sort(before[np.isfinite(before)]), now[has_value]
        earlier = triangle[: len(values), : len(values)]
        less = np.searchsorted(pool, values, "left") + ((values < values[:, None]) & earlier).sum(axis=1)
        equal = np.searchsorted(pool, values, "right") - np.searchsorted(pool, values, "left")
        equal = equal + ((values == values[:, None]) & earlier).sum(axis=1)
        scores[series, has_value] = _mean_score(less, equal + 1, len(pool) + learning * np.arange(len(values)) + 1)
    return scores


def scores_within(values: Floats) -> Floats:
    """The scores of days among themselves; shape (series, days), nan where there is no value."""
    scores = np.full(values.shape, np.nan)
    for series, row in enumerate(values):
        has_value = np.isfinite(row)
        pool = np.sort(row[has_value])
        less, upto = np.searchsorted(pool, row[has_value], "left"), np.searchsorted(pool, row[has_value], "right")
        scores[series, has_value] = _mean_score(less, upto - less, np.full(len(pool), len(pool)))
    return scores


def _mean_score(less: Ints, equal: Ints, count: Ints) -> Floats:
    """The mean of a standard normal variable between its quantiles less/count and (less + equal)/count."""
    low, high = special.ndtri(less / count), special.ndtri((less + equal) / count)
    density = np.exp(-(low**2) / 2) - np.exp(-(high**2) / 2)
    return np.asarray(density / np.sqrt(2 * np.pi) * count / equal, dtype=np.float64)


def inflation(reference: Floats) -> Floats:
    """How many times the variance of a week's mean is that of seven independent days; at least 1. Shape (series,).

    Args:
        reference: (series, days), in order of time; nan where a series has no value. Of few weeks little can be said:
            they are averaged with PRIOR_WEEKS weeks of PRIOR_INFLATION.
    """
    scores = scores_within(reference)
    weeks = scores.shape[1] // WEEK
    if not weeks:
        return np.full(len(scores), PRIOR_INFLATION)
    blocks = scores[:, : weeks * WEEK].reshape(len(scores), weeks, WEEK)
    days = np.isfinite(blocks).sum(axis=2)
    # the score of a week is the sum over √days: standard normal if days are independent, whatever is missing
    sums = np.nansum(blocks, axis=2) / np.sqrt(np.maximum(days, 1))
    squares, weeks_seen = (sums**2).sum(axis=1), (days > 0).sum(axis=1) + PRIOR_WEEKS
    # one standard error more than the estimate, whose own is √(2/weeks) of it
    likely = (squares + PRIOR_WEEKS * PRIOR_INFLATION) / weeks_seen * (1 + np.sqrt(2 / weeks_seen))
    return np.asarray(np.maximum(1.0, likely))


def log_evidence(scores: Floats, has_value: npt.NDArray[np.bool_], variance: Floats) -> Floats:
    """The logarithm of the evidence against «nothing has changed» after each day; shape (series, days).

    Args:
        scores: (series, days), as `normal_scores` gives them.
        has_value: (series, days); a day without a value is no day of the series.
        variance: (series,), at least 1: `inflation`.
    """
    series, days = scores.shape
    sums, counts = _cumulated(scores / np.sqrt(variance)[:, None]), _cumulated(has_value.astype(np.float64))
    mixed, left = np.zeros((series, days)), np.ones(days)
    for week, begin in enumerate(range(0, days, WEEK), start=1):
        weight = HALF_BY / ((week + HALF_BY - 1) * (week + HALF_BY))  # these sum to 1 over all weeks
        s, n = sums[:, begin + 1 :] - sums[:, [begin]], counts[:, begin + 1 :] - counts[:, [begin]]
        for prior in PRIORS:
            # 700: beyond it float64 overflows
            grown = np.exp(np.minimum(prior * s**2 / (2 * (1 + n * prior)), 700.0)) / np.sqrt(1 + n * prior)
            mixed[:, begin:] += weight / len(PRIORS) * grown
        left[begin:] -= weight
    return np.asarray(np.log(mixed + left))  # a martingale that has not begun is 1


def mean_evidence(values: Floats) -> Floats:
    """The logarithm of the evidence, after each day, against «none of these has an expected value above 1».

    For values ≥ 0, whatever their distribution and however each depends on the ones before: with a stake λ of at most 1
    the product of 1 + λ(value − 1) is a supermartingale that begins at 1 (Waudby-Smith & Ramdas 2024, JRSS B 86, 1-27).
    Stakes are mixed, and beginnings, as in `log_evidence`.

    Args:
        values: (days,), oldest first.
    """
    days = len(values)
    grown = _cumulated(np.log1p(np.outer(STAKES, values - 1)))
    mixed, left = np.zeros(days), np.ones(days)
    for week, begin in enumerate(range(0, days, WEEK), start=1):
        weight = HALF_BY / ((week + HALF_BY - 1) * (week + HALF_BY))
        since = np.minimum(grown[:, begin + 1 :] - grown[:, [begin]], 700.0)
        mixed[begin:] += weight * np.exp(since).mean(axis=0)
        left[begin:] -= weight
    return np.asarray(np.log(mixed + left))


def change_point(scores: Floats, has_value: npt.NDArray[np.bool_]) -> int:
    """The day since which one series most probably is another: the maximum of the likelihood over all days.

    Args:
        scores: (days,), up to the day on which the change was detected.
        has_value: (days,).
    """
    s, n = np.cumsum(scores[::-1])[::-1], np.cumsum(has_value[::-1])[::-1]
    return int(np.argmax(np.where(has_value, s**2 / np.maximum(n, 1), -1.0)))


def returned(
    scores: Floats, level: float, variance: float, is_back: Callable[[int, int], bool] | None = None
) -> int | None:
    """After how many days (counted from 0) a drifted series is as the reference again; None if it is not.

    A cumulative sum of the log-likelihood ratio between a mean score of 0 and one of half the drift's, so that a drift
    that weakens, or was taken for more than it is, is not over.

    Args:
        scores: (days,), since the drift was detected, against the reference alone.
        level: the mean score during the drift.
        variance: `inflation`.
        is_back: what must hold of the days that speak for the end, from a position up to another; without it, that
            their mean is within two standard errors of the reference's: a drift the other way is no return.
    """
    is_back = is_back or (lambda begin, end: scores[begin:end].sum() ** 2 <= 4 * variance * (end - begin))
    total, begin = 0.0, 0
    for day, score in enumerate(scores.tolist()):
        total += level / 2 * (level / 4 - score) / variance
        if total <= 0:
            total, begin = 0.0, day + 1
        elif total >= RETURNED and is_back(begin, day + 1):
            return day
    return None


def _cumulated(values: Floats) -> Floats:
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
