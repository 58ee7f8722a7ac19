"""Ordinal codes: raw columns → one matrix, in one go, for a pipeline of trees.

scikit-learn's ColumnTransformer with an OrdinalEncoder does the same, and spends 2 ms on a request of one row, ten
times what all the rest of its answer takes (docs/benchmarks/serving.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

UNSEEN = -1.0
"""The code of a category that was not there at the fit."""


class Codes(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Categories become their place among those seen, sorted; numbers stay. Missing stays missing (NaN).

    Takes a DataFrame, or a mapping of columns to equally long lists, in which None is missing: a request's rows need
    no DataFrame.

    Args:
        categories: names of text columns; they come first.
        numbers: names of number columns.
    """

    def __init__(self, categories: Sequence[str], numbers: Sequence[str]) -> None:
        self.categories = categories
        self.numbers = numbers

    def fit(self, X: Any, y: Any = None) -> Codes:  # noqa: N803, ARG002 - scikit-learn's names
        """Learn the categories of `X` (n rows)."""
        seen = {name: sorted({str(value) for value in pd.Series(X[name]).dropna()}) for name in self.categories}
        self.codes_ = {name: {value: float(code) for code, value in enumerate(seen[name])} for name in seen}
        self.n_features_in_ = len(self.categories) + len(self.numbers)
        return self

    def transform(self, X: pd.DataFrame | Mapping[str, Sequence[Any]]) -> npt.NDArray[np.float64]:  # noqa: N803
        """The matrix of `X`: float64, a row per row, categories before numbers."""
        columns: list[Any] = [_coded(X[name], self.codes_[name]) for name in self.categories]
        columns += [X[name] for name in self.numbers]
        matrix = np.empty((len(columns[0]), len(columns)), dtype=np.float64)
        for i, column in enumerate(columns):
            matrix[:, i] = column  # None becomes NaN
        return matrix

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:  # noqa: ARG002
        """The names of the matrix' columns."""
        return np.array([*self.categories, *self.numbers], dtype=object)


def _coded(values: Any, codes: Mapping[str, float]) -> list[float]:
    if isinstance(values, pd.Series):
        values = values.astype(object).where(values.notna(), None)
    return [codes.get(value, UNSEEN) if value is not None else np.nan for value in values]
