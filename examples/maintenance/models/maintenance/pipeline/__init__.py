"""A reading → the probability of each cause of a failure."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline: gaps are filled, products of two numbers (torque × speed is power) are features too."""
    fill = make_pipeline(SimpleImputer(), StandardScaler(), PolynomialFeatures(2, include_bias=False))
    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([("categories", encode, categories), ("numbers", fill, numbers)])
    return Pipeline([("columns", columns), ("estimator", estimator)])
