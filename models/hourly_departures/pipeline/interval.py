"""A regressor that also says how far off it may be: an estimator of the team's own, as the release carries it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin, clone

LOW, HIGH = 0.1, 0.9


class WithInterval(RegressorMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn ships no types
    """Three fits of one estimator: the mean as it is, and the quantiles 0.1 and 0.9 of what it leaves over.

    The quantiles are of the residuals, as a boosted quantile never leaves a value that a tenth of all labels share
    (here: no flight at night): there its gradient is the same everywhere, so no tree finds a split.

    Args:
        estimator: a regressor with `loss` and `quantile`, as HistGradientBoostingRegressor.
    """

    def __init__(self, estimator: BaseEstimator) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any) -> WithInterval:  # noqa: N803 - scikit-learn's names
        """Fit the three on `X` (n rows, encoded) and `y` (n)."""
        self.mean_ = clone(self.estimator).fit(X, y)
        left_over = y - self.mean_.predict(X)
        self.low_ = clone(self.estimator).set_params(loss="quantile", quantile=LOW).fit(X, left_over)
        self.high_ = clone(self.estimator).set_params(loss="quantile", quantile=HIGH).fit(X, left_over)
        return self

    def predict(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803 - scikit-learn's names
        """The expected value of each row."""
        mean: npt.NDArray[np.float64] = self.mean_.predict(X)
        return mean

    def predict_quantiles(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803 - scikit-learn's names
        """The quantiles 0.1 and 0.9 of each row: shape (n, 2), the lower first."""
        both = np.column_stack([self.low_.predict(X), self.high_.predict(X)])
        quantiles: npt.NDArray[np.float64] = self.predict(X)[:, None] + np.sort(both, axis=1)  # separate fits may cross
        return quantiles
