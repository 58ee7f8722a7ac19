"""One row of features → the probability that the flight is late."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.utils import get_tags


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline around the estimator that params.yaml names.

    Trees get categories as numbers and missing values as they are; an estimator that takes no missing
    values gets them imputed, scaled and one-hot encoded.
    """
    if get_tags(estimator).input_tags.allow_nan:
        encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        columns = ColumnTransformer([("categories", encode, categories), ("numbers", "passthrough", numbers)])
    else:
        fill = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
        encode = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50)
        columns = ColumnTransformer([("categories", encode, categories), ("numbers", fill, numbers)])
    return Pipeline([("columns", columns), ("estimator", estimator)])
