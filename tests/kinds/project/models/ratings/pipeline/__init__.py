"""One home → whether its people complain, and how they rate it."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline around the estimator that params.yaml names."""
    encode = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("categories", encode, categories), ("numbers", "passthrough", numbers)])
    return Pipeline([("columns", columns), ("estimator", estimator)])
