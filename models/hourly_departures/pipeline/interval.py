"""A regressor that also says how far off it may be: an estimator of the team's own, as the release carries it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin, clone

LOW, HIGH = 0.1, 0.9


class WithInterval(RegressorMixin, BaseEstimator):
    """Three fits of one estimator: the mean as it is, and the quantiles 0.1 and 0.9.

    Args:
        estimator: a regressor with `loss` and `quantile`, as HistGradientBoostingRegressor.
    """

    def __init__(self, estimator: BaseEstimator) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any) -> WithInterval:  # noqa: N803 - scikit-learn's names
        """Fit the three on `X` (n rows, encoded) and `y` (n)."""
        self.mean_ = clone(self.estimator).fit(X, y)
        self.low_ = clone(self.estimator).set_params(loss="quantile", quantile=LOW).fit(X, y)
        self.high_ = clone(self.estimator).set_params(loss="quantile", quantile=HIGH).fit(X, y)
        return self

    def predict(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803 - scikit-learn's names
        """The expected value of each row."""
        mean: npt.NDArray[np.float64] = self.mean_.predict(X)
        return mean

    def predict_quantiles(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803 - scikit-learn's names
        """The quantiles 0.1 and 0.9 of each row: shape (n, 2), the lower first."""
        both = np.column_stack([self.low_.predict(X), self.high_.predict(X)])
        return np.sort(both, axis=1)  # two separate fits may cross
