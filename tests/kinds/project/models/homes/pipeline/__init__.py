"""One home → the energy that it needs for heating and cooling."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline around the estimator that params.yaml names."""
    fill = make_pipeline(SimpleImputer(), StandardScaler())
    encode = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("categories", encode, categories), ("numbers", fill, numbers)])
    return Pipeline([("columns", columns), ("estimator", estimator)])
