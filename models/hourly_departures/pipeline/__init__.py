"""One airport and hour → the expected number of departures, and the interval that eight hours of ten fall into."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from models.hourly_departures.pipeline.interval import WithInterval


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline around the estimator that params.yaml names."""
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("categories", encode, categories), ("numbers", "passthrough", numbers)])
    offers_quantiles = "quantile" in estimator.get_params()
    return Pipeline([("columns", columns), ("estimator", WithInterval(estimator) if offers_quantiles else estimator)])
