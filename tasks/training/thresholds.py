"""Thresholds of decisions: from which probability on the second of two classes is decided for, and how it is chosen.

Chosen on the training rows alone: each fold is answered by a pipeline that has not learned from it, so that the choice
is not made on what the estimator knows by heart. Where the split is by time a fold is only answered by what came before
it. The estimator that is kept learns from all rows; the threshold stands around it, in the model file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.ground.errors import ModelCodeError
from tasks.modelling.rows import row_hashes

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from tasks.ground.params import DecisionRule

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Fit = Callable[["pd.DataFrame"], "Pipeline"]
"""Rows → a pipeline that is fitted on them."""

FOLDS = 5
FEWEST = 20
"""Rows of each class that must have been answered, for a choice that means something."""


@dataclass(frozen=True)
class Chosen:
    """A threshold, and what it is worth on the rows that it was chosen on."""

    threshold: float
    by: str
    """What was made as small, or as large, as it goes: `cost(1, 10)`, `f1`, `balanced_accuracy`."""
    value: float
    at_half: float
    """The same with a threshold of 0.5."""
    rows: int
    folds: int

    def as_json(self) -> dict[str, Any]:
        """For training.json."""
        return asdict(self)


def choose(decision: DecisionRule, learn: pd.DataFrame, features: list[str], fit: Fit, *, by_time: bool) -> Chosen:
    """The threshold that would have cost least, or given most, on training rows that were answered out of fold.

    Raises:
        ModelCodeError: too few rows of one class could be answered.
    """
    classes = sorted(learn["label"].unique().tolist())
    answered, shares, folds = _out_of_fold(learn, features, fit, by_time)
    positive = (answered["label"] == classes[1]).to_numpy()
    weights = answered["weight"].to_numpy() if "weight" in answered else np.ones(len(answered))
    counts = weights > 0
    if (few := min((positive & counts).sum(), (~positive & counts).sum())) < FEWEST:
        raise ModelCodeError(
            f"params.yaml: estimator.decision: a threshold cannot be chosen: of {len(answered):,} training rows that "
            f"were answered out of fold, {few} are of the rarer class; {FEWEST} are needed. Deliver more, or give one "
            f"(decision: {{threshold: 0.5}})"
        )
    what = decision.cost.loss if decision.cost and not decision.maximise else str(decision.maximise)
    worth = _worth(decision)
    candidates = _candidates(shares)
    values = worth(*_counts(shares, positive, weights, candidates))
    best = int(np.argmin(values) if what.startswith("cost") else np.argmax(values))
    of_half = worth(*_counts(shares, positive, weights, np.array([0.5])))
    return Chosen(float(candidates[best]), what, float(values[best]), float(of_half[0]), len(answered), folds)


def _out_of_fold(learn: pd.DataFrame, features: list[str], fit: Fit, by_time: bool) -> tuple[pd.DataFrame, Floats, int]:
    """The rows that a pipeline answered which had not learned from them; the second class's probability; the folds."""
    import pandas as pd

    parts, shares = [], []
    for earlier, fold in _folds(learn, by_time):
        if earlier["label"].nunique() == 2:
            pipeline = fit(earlier)
            place = pipeline.classes_.tolist().index(max(pipeline.classes_.tolist()))
            shares.append(pipeline.predict_proba(fold[features])[:, place])
            parts.append(fold)
    if not parts:
        return learn.head(0), np.empty(0), 0
    return pd.concat(parts, ignore_index=True), np.concatenate(shares).astype(np.float64), len(parts)


def _folds(learn: pd.DataFrame, by_time: bool) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """What is learned from, and what is answered. By time: blocks of whole days, each answered by the earlier ones."""
    if not by_time:
        fold = (row_hashes(learn["id"]) >> np.uint64(8)) % np.uint64(FOLDS)  # the highest bits chose the holdout
        return [(learn[fold != k], learn[fold == k]) for k in range(FOLDS)]
    days = learn["time"].dt.normalize()
    edges = days.quantile(np.arange(1, FOLDS + 1) / (FOLDS + 1), "lower").drop_duplicates()
    block = np.searchsorted(edges.to_numpy(), days.to_numpy(), side="left")
    return [(learn[block < k], learn[block == k]) for k in range(1, int(block.max(initial=0)) + 1)]


def _candidates(shares: Floats) -> Floats:
    """Between any two probabilities that occur; 0, at which all are positive; and above all, be it a hair above 1."""
    steps = np.unique(shares)
    between = (steps[:-1] + steps[1:]) / 2
    above = (steps[-1] + 1) / 2 if steps[-1] < 1 else np.nextafter(1.0, 2.0)
    return np.concatenate([[0.0], between, [above]])


def _counts(
    shares: Floats, positive: Flags, weights: Floats, thresholds: Floats
) -> tuple[Floats, Floats, float, float]:
    """At each threshold the weight of true and of false positives; and that of all positives, and of all negatives."""
    order = np.argsort(shares, kind="stable")
    beyond = np.searchsorted(shares[order], thresholds, side="left")
    sums = []
    for members in (positive, ~positive):
        upto = np.concatenate([[0.0], np.cumsum(weights[order] * members[order])])
        sums.append(upto[-1] - upto[beyond])
    return sums[0], sums[1], float(weights[positive].sum()), float(weights[~positive].sum())


def _worth(decision: DecisionRule) -> Callable[[Floats, Floats, float, float], Floats]:
    """What is to be small (a cost) or large, of true and false positives, all positives and all negatives."""
    cost = decision.cost
    if decision.maximise == "f1":
        return lambda hits, false, positives, _: 2 * hits / (hits + false + positives)
    if decision.maximise == "balanced_accuracy":
        return lambda hits, false, positives, negatives: (hits / positives + 1 - false / negatives) / 2
    assert cost is not None
    return lambda hits, false, positives, negatives: (
        (cost.false_positive * false + cost.false_negative * (positives - hits)) / (positives + negatives)
    )


def around(pipeline: Pipeline, threshold: float, features: pd.DataFrame, labels: pd.Series[Any]) -> Pipeline:
    """The fitted pipeline with a threshold around its last step, which is not fitted again."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.model_selection import FixedThresholdClassifier

    (name, last), few = pipeline.steps[-1], labels.drop_duplicates().index
    decided = FixedThresholdClassifier(FrozenEstimator(last), threshold=threshold, response_method="predict_proba")
    taken = pipeline[:-1].transform(features.loc[few]) if len(pipeline) > 1 else features.loc[few]
    pipeline.steps[-1] = (name, decided.fit(taken, labels.loc[few]))
    return pipeline
