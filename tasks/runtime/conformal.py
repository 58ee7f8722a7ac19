"""Conformal intervals: a fitted pipeline, and how far its answers were off on rows that it had not learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin

Floats = npt.NDArray[np.float64]

LEAD = "lead"
"""The feature that says how many steps ahead is asked; each step has an interval of its own."""


class Conformal(RegressorMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn ships no types
    """The interval that eight labels of ten lie in, as split conformal prediction has it (Vovk et al. 2005).

    Args:
        pipeline: from the columns of a request to a prediction, perhaps with `predict_quantiles`.
        below: what is added to the lower quantile, or the prediction: for each lead, and then for every other one.
        above: the same of the upper one.
        leads: the leads that `below` and `above` begin with.
    """

    def __init__(self, pipeline: Any, below: Floats, above: Floats, leads: Floats) -> None:
        self.pipeline = pipeline
        self.below = below
        self.above = above
        self.leads = leads

    def fit(self, X: Any, y: Any) -> Conformal:  # noqa: N803 - scikit-learn's names
        """Fit the pipeline; the intervals stay as wide as they were."""
        self.pipeline.fit(X, y)
        return self

    def predict(self, X: Any) -> Floats:  # noqa: N803 - scikit-learn's names
        """The expected value of each row."""
        return np.asarray(self.pipeline.predict(X), dtype=np.float64)

    def predict_quantiles(self, X: Any) -> Floats:  # noqa: N803 - scikit-learn's names
        """The ends of each row's interval: shape (n, 2), the lower first."""
        ends = bounds(self.pipeline, X)
        place = places(X[LEAD], self.leads) if len(self.leads) else np.zeros(len(ends), dtype=np.int64)
        return np.sort(ends + np.column_stack([self.below[place], self.above[place]]), axis=1)

    def __sklearn_is_fitted__(self) -> bool:
        """It is made of one that is."""
        return True


def bounds(pipeline: Any, columns: Any) -> Floats:
    """What intervals are widened from: the pipeline's own quantiles, or twice its prediction. Shape (n, 2)."""
    if hasattr(pipeline[-1], "predict_quantiles"):
        matrix = pipeline[:-1].transform(columns) if len(pipeline) > 1 else columns
        return np.asarray(pipeline[-1].predict_quantiles(matrix), dtype=np.float64)
    return np.repeat(np.asarray(pipeline.predict(columns), dtype=np.float64)[:, None], 2, axis=1)


def places(asked: Any, leads: Floats) -> npt.NDArray[np.int64]:
    """The place of each row's lead among some; one behind the last, where it is none of them."""
    asked = np.asarray(asked, dtype=np.float64)
    at = np.minimum(np.searchsorted(leads, asked), len(leads) - 1)
    return np.where(leads[at] == asked, at, len(leads)).astype(np.int64)
