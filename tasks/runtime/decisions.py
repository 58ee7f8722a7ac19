"""Decisions: the class that a pipeline's own `predict` answers, which is not always the most probable one.

A threshold moves it, `SVC(probability=True)` decides by other numbers than its probabilities, and a team's own
estimator as it likes. Where the probabilities alone tell what `predict` would say, a release says how (`decision` in
release.json) and nothing is asked twice; everywhere else `predict` is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.runtime import families

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from sklearn.pipeline import Pipeline

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

Decision = str | dict[str, float]
"""MOST_PROBABLE, PREDICT, or {"threshold": t}: the second of two classes from the probability t on."""

MOST_PROBABLE = "most_probable"
PREDICT = "predict"

TAKES_MOST_PROBABLE = {
    "sklearn.calibration": {"CalibratedClassifierCV"},
    "sklearn.discriminant_analysis": {"LinearDiscriminantAnalysis", "QuadraticDiscriminantAnalysis"},
    "sklearn.ensemble": {"ExtraTreesClassifier", "HistGradientBoostingClassifier", "RandomForestClassifier"},
    "sklearn.linear_model": {"LogisticRegression", "LogisticRegressionCV"},
    "sklearn.naive_bayes": {"BernoulliNB", "GaussianNB", "MultinomialNB"},
    "sklearn.neural_network": {"MLPClassifier"},
    "sklearn.tree": {"DecisionTreeClassifier", "ExtraTreeClassifier"},
}
"""Estimators of scikit-learn whose `predict` is the most probable class: read in their code (scikit-learn 1.9)."""


def of(pipeline: Pipeline, columns: Any) -> Decision:
    """How the decisions of a fitted classifier follow from its probabilities.

    Args:
        pipeline: fitted.
        columns: rows to try it on; whatever the pipeline's first step takes.
    """
    import numpy as np

    decision = _by_type(pipeline)
    if decision == PREDICT:
        return decision
    if hasattr(pipeline[-1], "of_classes"):  # of several labels; a tie of one is decided as everywhere
        places = np.column_stack([p.argmax(axis=1) for p in pipeline.predict_proba(columns)])
        return decision if np.array_equal(places, positions(pipeline, columns)) else PREDICT
    p = probabilities(pipeline, columns, class_order(pipeline))
    top = np.sort(p, axis=1)[:, -2:]
    is_close = decision == MOST_PROBABLE and (top[:, 0] == top[:, 1]).any()
    agrees = np.array_equal(by_probability(decision, p), positions(pipeline, columns))
    return decision if agrees and not is_close else PREDICT


def _by_type(estimator: Any) -> Decision:
    """What is known of a type; nothing of a subclass, which may decide otherwise."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, RandomizedSearchCV
    from sklearn.model_selection import TunedThresholdClassifierCV as Tuned
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.pipeline import Pipeline

    from tasks.runtime.outputs import Outputs

    kind = type(estimator)
    if kind is Pipeline:
        return _by_type(estimator[-1])
    if kind in (Outputs, MultiOutputClassifier):
        kinds = [_by_type(each) for each in estimator.estimators_]
        return MOST_PROBABLE if all(each == MOST_PROBABLE for each in kinds) else PREDICT
    if kind is FrozenEstimator or kind in (GridSearchCV, RandomizedSearchCV):
        return _by_type(estimator.estimator if kind is FrozenEstimator else estimator.best_estimator_)
    if kind is FixedThresholdClassifier:
        return _threshold(estimator, estimator.threshold, estimator.pos_label)
    if kind is Tuned and isinstance(estimator.scoring, str):
        return _threshold(estimator, estimator.best_threshold_, None)
    package = ".".join(kind.__module__.split(".")[:2])
    family = families.named(families.package_of(kind.__module__))
    known = {*TAKES_MOST_PROBABLE.get(package, ()), *(family.most_probable if family else ())}
    return MOST_PROBABLE if kind.__name__ in known else PREDICT


def _threshold(estimator: Any, threshold: Any, positive: Any) -> Decision:
    """A threshold on the probability of the second class; nothing else is a number to compare it with."""
    is_of_second = positive is None or positive == estimator.classes_[1]
    if estimator.response_method not in ("auto", "predict_proba") or not is_of_second:
        return PREDICT
    return {"threshold": 0.5 if threshold == "auto" else float(threshold)}


def class_order(pipeline: Pipeline) -> Ints | None:
    """Where each class, in sorted order, stands in `classes_`; None where they are sorted, as scikit-learn's are."""
    import numpy as np

    order = np.argsort(pipeline.classes_, kind="stable")
    return None if np.array_equal(order, np.arange(len(order))) else order.astype(np.int64)


def probabilities(pipeline: Pipeline, columns: Any, order: Ints | None) -> Floats:
    """The probability of each class, in sorted order of the classes: shape (rows, classes)."""
    import numpy as np

    matrix = np.asarray(pipeline.predict_proba(columns), dtype=np.float64)
    return matrix if order is None else matrix[:, order]


def positions(pipeline: Pipeline, columns: Any) -> Ints:
    """The place of the class that `predict` answers among the sorted classes: shape (rows,).

    Of several labels: shape (rows, labels).

    Raises:
        ValueError: it answers what is none of its classes.
    """
    import numpy as np

    if hasattr(pipeline[-1], "of_classes"):
        places: Ints = pipeline[-1].places(pipeline[:-1].transform(columns) if len(pipeline) > 1 else columns)
        return places
    answers, classes = np.asarray(pipeline.predict(columns)), np.sort(pipeline.classes_)
    answers = answers.reshape(len(answers))  # CatBoost gives a column of more than two classes
    at = np.searchsorted(classes, answers).clip(max=len(classes) - 1)
    if (other := classes[at] != answers).any():
        raise ValueError(f"predict answers {answers[other].tolist()[0]!r}, which is none of its classes")
    return at.astype(np.int64)


def by_probability(decision: Decision, p: Floats) -> Ints:
    """The place of the class that is decided for, where probabilities alone tell it: shape (rows,)."""
    import numpy as np

    if isinstance(decision, dict):
        return (p[:, 1] >= decision["threshold"]).astype(np.int64)
    return np.asarray(p.argmax(axis=1), dtype=np.int64)
