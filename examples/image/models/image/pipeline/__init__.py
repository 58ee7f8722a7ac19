"""A picture → the probability of each digit."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler


def build(
    estimator: BaseEstimator, categories: list[str], numbers: list[str], vectors: dict[str, list[str]]
) -> Pipeline:
    """An unfitted pipeline; `vectors` names the columns of each vector's numbers."""
    others = [("categories", "drop", categories), ("numbers", "passthrough", numbers)]  # there are none
    columns = ColumnTransformer([*others, ("pixels", MinMaxScaler(), vectors["pixels"])])
    return Pipeline([("columns", columns), ("estimator", estimator)])
