"""A row of features → the expected load."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from tasks.runtime.ordinal_codes import Codes


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline: trees take categories as codes, and missing values as they are."""
    return Pipeline([("columns", Codes(categories, numbers)), ("estimator", estimator)])
