"""Forecasts: training rows that are known at the first origin, conformal intervals, and the seasonal-naive baseline.

A row is a forecast of one series for `time`, made `lead` steps before it (the feature `lead`; without it, `horizon`
steps): that is its origin. The model stays as it is while the origins roll through the holdout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.ground.errors import DataMissing
from tasks.runtime.conformal import LEAD, Conformal, bounds, places

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from sklearn.pipeline import Pipeline

    from tasks.training.origins import Asked

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CALIBRATION = 0.2
"""The newest training rows, of which intervals are made by a model that has not learned them."""

FEWEST_OF_LEAD = 50
"""Calibration rows that a lead needs for an interval of its own."""

LOW, HIGH = 0.1, 0.9

SEASONS = 3
"""So many seasons further back the baseline looks, where a value is missing."""


# ── training ──────────────────────────────────────────────────────────────────────────────────────


def with_intervals(
    pipeline: Pipeline,
    again: Callable[[pd.DataFrame], Pipeline],
    learn: pd.DataFrame,
    features: list[str],
    asked: Asked,
) -> Pipeline:
    """A pipeline that was fitted on all training rows, with intervals around its answers.

    How far answers are off is found out on the newest fifth of the rows, by another fit on those that were known before
    the first of these was asked.

    Args:
        pipeline: fitted on `learn`.
        again: fits another one, on some of the rows.
        learn: the training rows.
        features: their feature columns.
        asked: the forecast.

    Raises:
        DataMissing: the rows span too short a time.
    """
    from sklearn.pipeline import Pipeline

    begin = learn["time"].quantile(1 - CALIBRATION, "nearest")
    calibration = learn[learn["time"] >= begin]
    earlier = learn[learn["time"] <= asked.origins(calibration).min()]
    if earlier["label"].nunique() < 2:
        raise DataMissing(
            f"the training rows span {learn['time'].min()} to {learn['time'].max()}: too short a time to try a "
            f"forecast {asked.horizon} steps of {asked.step} ahead in. Deliver more, or lower split.forecast.horizon"
        )
    trial = again(earlier)
    off = calibration["label"].to_numpy(dtype=np.float64)[:, None] - bounds(trial, calibration[features])
    leads = _leads_of_their_own(calibration)
    place = places(calibration[LEAD], leads) if len(leads) else np.zeros(len(calibration))
    members = [*(place == at for at in range(len(leads))), np.ones(len(place), dtype=bool)]
    below = np.array([_order_statistic(off[own, 0], LOW) for own in members])
    above = np.array([_order_statistic(off[own, 1], HIGH) for own in members])
    return Pipeline([("forecast", Conformal(pipeline, below, above, leads))])


def _leads_of_their_own(calibration: pd.DataFrame) -> Floats:
    """The leads that have enough rows."""
    if LEAD not in calibration:
        return np.empty(0)
    leads, counts = np.unique(calibration[LEAD].to_numpy(dtype=np.float64), return_counts=True)
    return np.asarray(leads[counts >= FEWEST_OF_LEAD], dtype=np.float64)


def _order_statistic(values: Floats, share: float) -> float:
    """The quantile that the next value lies beyond with the chance that is meant: of n + 1 values, not of n."""
    count, ranked = len(values), np.sort(values)
    rank = np.floor((count + 1) * share) if share < 0.5 else np.ceil((count + 1) * share)
    return float(ranked[int(np.clip(rank, 1, count)) - 1])


# ── the baseline ──────────────────────────────────────────────────────────────────────────────────


def seasonal(learn: pd.DataFrame, holdout: pd.DataFrame, asked: Asked) -> pd.DataFrame:
    """What the season before says of each holdout row, as far as it was known at its origin.

    Args:
        learn: the training rows, with label, time and the columns of `asked`.
        holdout: the same of the holdout.
        asked: the forecast.

    Returns:
        With the holdout's index: `seasonal_naive`, the label of the same series a whole number of seasons before, the
        newest one that was known; where there is none, the mean of the training rows. `seasonal_error`: the mean
        absolute difference of the series' training labels from one season to the next, which scales MASE (Hyndman &
        Koehler 2006).
    """
    import pandas as pd

    both = pd.concat([learn, holdout], ignore_index=True)
    names, steps = asked.names(both), asked.steps(both["time"])
    labels = pd.Series(both["label"].to_numpy(dtype=np.float64), index=pd.MultiIndex.from_arrays([names, steps]))
    labels = labels[~labels.index.duplicated(keep="last")]
    old, new = slice(len(learn)), slice(len(learn), None)
    seasons = -(-asked.leads(holdout) // asked.season)
    naive = np.full(len(holdout), np.nan)
    for more in range(SEASONS):
        before = _at(labels, names[new], steps[new] - (seasons + more) * asked.season)
        naive = np.where(np.isnan(naive), before, naive)
    naive = np.where(np.isnan(naive), float(learn["label"].mean()), naive)
    change = np.abs(learn["label"].to_numpy(dtype=np.float64) - _at(labels, names[old], steps[old] - asked.season))
    overall = float(np.nanmean(change)) if np.isfinite(change).any() else float(learn["label"].std())
    by_series = pd.Series(change).groupby(names[old]).mean()
    error = by_series.reindex(names[new]).fillna(overall).to_numpy(dtype=np.float64)
    error = np.where(error > 0, error, overall if overall > 0 else 1.0)
    return pd.DataFrame({"seasonal_naive": naive, "seasonal_error": error}, index=holdout.index)


def _at(labels: pd.Series[Any], names: Ints, steps: Ints) -> Floats:
    import pandas as pd

    return labels.reindex(pd.MultiIndex.from_arrays([names, steps])).to_numpy(dtype=np.float64)
