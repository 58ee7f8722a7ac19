"""Kinds of tasks: what of a task is a word, in one table, so that no module has a list of its own.

What a task computes is where the like of it is computed: answers in tasks/runtime/answers.py, losses and metrics in
tasks/modelling/metrics.py, the type of a label in tasks/training/conformance.py, pictures in tasks/training/plots.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["classification", "regression", "forecast", "anomaly"]


@dataclass(frozen=True)
class TaskKind:
    """A task."""

    losses: tuple[str, ...]
    """What its gate may compare. Of a task whose rows have a loss each, features matter by the first of them."""
    headline: str
    """The metric where there is room for one only."""
    headline_words: str
    estimator: str
    """The type of its estimators, as scikit-learn's tags have it."""
    number: str
    """What is compared of two answers."""
    card: str
    """What it answers, for people who do not build models; `{rows}` are the rows."""
    has_loss_by_row: bool = True
    may_have_several_labels: bool = False


KINDS: dict[str, TaskKind] = {
    "classification": TaskKind(
        losses=("log_loss", "brier", "cost"),
        headline="log_loss",
        headline_words="log loss",
        estimator="classifier",
        number="probability",
        card="For each of the {rows} it gives a probability of each answer, between 0 and 1, and the answer that it "
        "decides for.",
        may_have_several_labels=True,
    ),
    "regression": TaskKind(
        losses=("absolute", "squared", "poisson"),
        headline="mae",
        headline_words="mean absolute error",
        estimator="regressor",
        number="prediction",
        card="For each of the {rows} it gives a number.",
        may_have_several_labels=True,
    ),
    "forecast": TaskKind(
        losses=("absolute", "squared"),
        headline="mae",
        headline_words="mean absolute error",
        estimator="regressor",
        number="prediction",
        card="It gives numbers for times to come.",
    ),
    "anomaly": TaskKind(
        losses=("average_precision",),
        headline="alert_rate",
        headline_words="alert rate",
        estimator="outlier_detector",
        number="score",
        card="For each of the {rows} it gives a score: the higher, the more unusual; and whether that is an alert.",
        has_loss_by_row=False,
    ),
}

OF_SEVERAL = tuple(name for name, kind in KINDS.items() if kind.may_have_several_labels)
"""Tasks of which a model may have several labels."""
