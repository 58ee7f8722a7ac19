"""A transformer of the team's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin


class Contrast(TransformerMixin, BaseEstimator):
    """Pixels relative to the darkest one of the training images."""

    def fit(self, X: Any, y: Any = None) -> Contrast:  # noqa: N803 - scikit-learn's names
        """Find the darkest pixel of `X` (n rows, k pixels)."""
        self.darkest_ = float(np.max(np.asarray(X)))
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803 - scikit-learn's names
        """Every pixel from 0 to 1: shape (n, k)."""
        scaled: npt.NDArray[np.float64] = np.asarray(X, dtype=np.float64) / self.darkest_
        return scaled
