"""A message → the probability of each team."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str], texts: list[str]) -> Pipeline:
    """An unfitted pipeline: words that five messages have at least, and no other word, stand in the release."""
    encode = OneHotEncoder(handle_unknown="ignore")
    words = [(name, TfidfVectorizer(min_df=5, sublinear_tf=True), name) for name in texts]
    columns = ColumnTransformer([("categories", encode, categories), ("numbers", "passthrough", numbers), *words])
    return Pipeline([("columns", columns), ("estimator", estimator)])
