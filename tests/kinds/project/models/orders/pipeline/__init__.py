"""One order → the probability that it is late."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from .plain import filled, hours


def build(
    estimator: BaseEstimator,
    categories: list[str],
    numbers: list[str],
    booleans: list[str],
    datetimes: list[str],
    texts: list[str],
    vectors: dict[str, list[str]],
) -> Pipeline:
    """An unfitted pipeline: no word of a text stays in it."""
    fill = make_pipeline(SimpleImputer(), StandardScaler())
    words = make_pipeline(FunctionTransformer(filled), HashingVectorizer(n_features=256))
    columns = ColumnTransformer(
        [
            ("categories", OneHotEncoder(handle_unknown="ignore"), categories),
            ("numbers", fill, [*numbers, *booleans]),
            ("datetimes", make_pipeline(FunctionTransformer(hours), SimpleImputer()), datetimes),
            *((name, words, name) for name in texts),
            *((name, StandardScaler(), columns) for name, columns in vectors.items()),
        ]
    )
    return Pipeline([("columns", columns), ("estimator", estimator)])
