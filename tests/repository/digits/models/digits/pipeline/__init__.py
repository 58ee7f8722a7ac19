"""64 pixels → the probability of each digit."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from models.digits.pipeline.contrast import Contrast


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline around the estimator that params.yaml names; how much ink there is says nothing new."""
    return Pipeline([("columns", ColumnTransformer([("pixels", Contrast(), numbers)])), ("estimator", estimator)])
