"""A payment → the probability that it is fraud."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline; rare categories, and those that were never seen, are one column."""
    encode = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50, sparse_output=False)
    columns = ColumnTransformer([("categories", encode, categories), ("numbers", "passthrough", numbers)])
    return Pipeline([("columns", columns), ("estimator", estimator)])
