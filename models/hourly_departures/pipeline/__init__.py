"""One airport and hour → the expected number of departures, and the interval that eight hours of ten fall into."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from models.hourly_departures.pipeline.interval import WithInterval
from tasks.runtime.ordinal_codes import Codes


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline around the estimator that params.yaml names."""
    offers_quantiles = "quantile" in estimator.get_params()
    last = WithInterval(estimator) if offers_quantiles else estimator
    return Pipeline([("columns", Codes(categories, numbers)), ("estimator", last)])
