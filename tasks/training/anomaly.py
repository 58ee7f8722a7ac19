"""Training of an outlier detector: rows without labels → a fitted pipeline, its threshold, and how stable it is.

What can be known without labels comes from two more fits, on a half of the rows each: how alike two models rank the
same rows when each has seen one half, and how many alerts a model raises on rows that it has not learned from. Some
detectors find what they learned less strange than anything else (LocalOutlierFactor: each row is its own neighbour),
so that a threshold taken from the training rows themselves would be too low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.ground import numbers
from tasks.ground.errors import ModelCodeError
from tasks.modelling import metrics
from tasks.runtime.alert_budget import AlertBudget

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from tasks.ground.params import Estimator

Floats = npt.NDArray[np.float64]

MOST_ROWS = 20_000
"""Of which halves are drawn: some detectors compare each row with each other."""

MOST_ALERTS = 0.5
"""The share of the rows that may raise an alert."""

GRID = 101
"""Quantiles of the scores of the training rows that are kept."""

EXAMPLES = (
    "sklearn.ensemble.IsolationForest, sklearn.neighbors.LocalOutlierFactor with novelty: true, or "
    "sklearn.svm.OneClassSVM"
)


def refuse_other_estimators(pipeline: Pipeline, name: str, estimator: Estimator) -> None:
    """Refuse, before anything is fitted, what is no outlier detector, or cannot judge rows that it has not seen.

    Raises:
        ModelCodeError: names the estimator, and some that can do it.
    """
    from sklearn.base import is_outlier_detector

    where = f"params.yaml: models.{name}.estimator: {estimator.class_}"
    if not is_outlier_detector(pipeline):
        raise ModelCodeError(f"{where} is no outlier detector, which task: anomaly needs: name {EXAMPLES}")
    if not hasattr(pipeline, "decision_function"):
        raise ModelCodeError(
            f"{where} has no decision_function as it is: it judges only the rows that it learned from. "
            f"Add novelty: true to its params, if it is a LocalOutlierFactor, or name {EXAMPLES}"
        )


def fit(
    pipeline: Pipeline, features: pd.DataFrame, times: pd.Series[Any], alerts_per_day: float | None
) -> tuple[Pipeline, dict[str, Any]]:
    """Fit a pipeline, and set its threshold where a budget of alerts is given.

    Returns:
        The pipeline; and for training.json: `baseline` (`alert_rate`: the share of rows above the threshold that is to
        be expected of rows that it has not seen; `scores`: GRID quantiles of the scores of its training rows) and
        `stability` (rank correlation of the scores of two models that each learned from a half of the rows).
    """
    halves = _Halves.fit(pipeline, features)
    pipeline.fit(features)
    if alerts_per_day is None:
        expected = halves.alert_rate()
    else:
        if not (days := times.dt.normalize().nunique()):
            raise ValueError("estimator.alerts_per_day takes rows with a time: without one, set the contamination")
        if (expected := alerts_per_day * days / len(features)) > MOST_ALERTS:
            raise ValueError(
                f"estimator.alerts_per_day: {alerts_per_day:g} alerts a day are {expected:.0%} of the training rows, "
                f"which are {len(features) / days:.3g} a day: what more than half of them are is not strange. Ask for "
                f"at most {MOST_ALERTS * len(features) / days:.3g}"
            )
        lenience = float(np.quantile(_scores(pipeline, features), 1 - halves.share_within(expected)))
        name, estimator = pipeline.steps[-1]
        pipeline.steps[-1] = (name, AlertBudget(estimator, lenience))
    scores = np.quantile(_scores(pipeline, features), np.linspace(0, 1, GRID))
    baseline = {"alert_rate": numbers.short(expected), "scores": [numbers.short(score) for score in scores]}
    return pipeline, {"baseline": baseline, "stability": numbers.short(halves.stability())}


@dataclass(frozen=True)
class _Halves:
    """Two models, each of one half of the rows, and what both score of all these."""

    scores: tuple[Floats, Floats]
    """Of both models, for every row; the rows of the first half stand first."""
    size: int
    """Rows in the first half."""

    @staticmethod
    def fit(pipeline: Pipeline, features: pd.DataFrame) -> _Halves:
        """Both are drawn: rows that alternate between two machines would be one machine's each."""
        from sklearn.base import clone

        drawn = features.iloc[np.random.default_rng(0).permutation(len(features))[:MOST_ROWS]]
        size = len(drawn) // 2
        first, second = (clone(pipeline).fit(half) for half in (drawn.iloc[:size], drawn.iloc[size:]))
        return _Halves((_scores(first, drawn), _scores(second, drawn)), size)

    @property
    def sides(self) -> list[tuple[Floats, Floats]]:
        """Of each model its scores of the rows that it learned from, and those of the others."""
        (first, second), size = self.scores, self.size
        return [(first[:size], first[size:]), (second[size:], second[:size])]

    def alert_rate(self) -> float:
        """Which share of rows that they have not seen they raise an alert on."""
        return float(np.mean([(others > 0).mean() for _, others in self.sides]))

    def share_within(self, share: float) -> float:
        """The share of a model's own training rows above the threshold that such a share of other rows is above."""
        return float(np.mean([(own > np.quantile(others, 1 - share)).mean() for own, others in self.sides]))

    def stability(self) -> float:
        """How alike the two rank the rows: 1 where in the same order."""
        return metrics.rank_agreement(*self.scores)


def _scores(pipeline: Pipeline, features: pd.DataFrame) -> Floats:
    """Higher is stranger; above 0 is an alert."""
    return -np.asarray(pipeline.decision_function(features), dtype=np.float64)
