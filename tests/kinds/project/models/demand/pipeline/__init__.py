"""One station, hour and lead → bicycles lent."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from tasks.runtime.ordinal_codes import Codes


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline around the estimator that params.yaml names."""
    return Pipeline([("columns", Codes(categories, numbers)), ("estimator", estimator)])
