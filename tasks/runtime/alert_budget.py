"""Alert budget: an outlier detector with another threshold than its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, OutlierMixin


class AlertBudget(OutlierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn ships no types
    """A fitted outlier detector whose decision function is moved.

    Args:
        estimator: fitted, with `decision_function`: below 0 is an outlier.
        lenience: is added to it: how much stranger than by its own threshold a row must be, to raise an alert.
    """

    def __init__(self, estimator: BaseEstimator, lenience: float) -> None:
        self.estimator = estimator
        self.lenience = lenience

    def fit(self, X: Any, y: Any = None) -> AlertBudget:  # noqa: N803 - scikit-learn's names
        """Fit the detector; its threshold is moved as before."""
        self.estimator.fit(X, y)
        return self

    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803 - scikit-learn's names
        """Below 0 for each row that raises an alert: shape (n,)."""
        return np.asarray(self.estimator.decision_function(X), dtype=np.float64) + self.lenience

    def predict(self, X: Any) -> npt.NDArray[np.int64]:  # noqa: N803 - scikit-learn's names
        """-1 for each row that raises an alert, 1 for the others: shape (n,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def __sklearn_is_fitted__(self) -> bool:
        """It is made of one that is."""
        return True
