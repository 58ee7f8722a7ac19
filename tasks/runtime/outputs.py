"""Outputs: an estimator that answers several labels of a row, in whichever way it does so.

scikit-learn has a way for each kind: a forest takes a matrix of labels and gives a list of probabilities, a chain gives
one matrix of the probabilities of yes, and most estimators take one label only. Here each class is its place among the
sorted classes of its label when an estimator is fitted, so that yes and no are 1 and 0 to all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.utils import get_tags

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

YES_OR_NO = (ClassifierChain, OneVsRestClassifier)
"""They take several labels of two classes each; their tags do not say so (scikit-learn 1.9)."""


class Outputs(BaseEstimator):  # type: ignore[misc] # scikit-learn ships no types
    """An estimator for several labels: fitted once on all of them where it can, else a copy of it for each.

    Args:
        estimator: of one label or several.
        names: of the labels, in the order in which an estimator of several gets them.
        of_classes: whether labels are classes; else numbers.
    """

    def __init__(self, estimator: BaseEstimator, names: list[str], of_classes: bool) -> None:
        self.estimator = estimator
        self.names = names
        self.of_classes = of_classes

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Outputs:  # noqa: N803 - scikit-learn's names
        """Fit it; `y` is a table with a column per label.

        Raises:
            ValueError: the estimator answers yes or no, and a label has more classes.
        """
        more = {} if sample_weight is None else {"sample_weight": sample_weight}
        columns = [np.asarray(y[name]) for name in self.names]
        if self.of_classes:
            self.classes_ = [np.unique(column).tolist() for column in columns]
            columns = [np.unique(column, return_inverse=True)[1] for column in columns]
        self.is_joint_ = self._takes_all()
        if self.is_joint_:
            self.estimators_ = [clone(self.estimator).fit(X, np.column_stack(columns), **more)]
        else:
            self.estimators_ = [clone(self.estimator).fit(X, column, **more) for column in columns]
        return self

    def _takes_all(self) -> bool:
        """Whether the estimator takes a matrix of labels, by what it says of itself."""
        try:
            tags = get_tags(self.estimator)
        except (AttributeError, TypeError):  # a team's own, without tags
            return False
        if not self.of_classes:
            return bool(tags.target_tags.multi_output)
        many = [name for name, classes in zip(self.names, self.classes_, strict=True) if len(classes) > 2]
        if many and isinstance(self.estimator, YES_OR_NO):
            raise ValueError(
                f"{type(self.estimator).__name__} answers yes or no, and {', '.join(many)} has more than two classes. "
                f"Wrap the estimator in MultiOutputClassifier, or leave it as it is: then it is fitted for each label"
            )
        is_multi_label = tags.classifier_tags is not None and tags.classifier_tags.multi_label
        return bool(tags.target_tags.multi_output or (is_multi_label and not many))

    def predict(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's names
        """What is answered: a table with a column per label, of numbers or of classes."""
        import pandas as pd

        if not self.of_classes:
            return pd.DataFrame(self._matrix(X), columns=self.names)
        places = self.places(X).T
        named = zip(self.names, self.classes_, places, strict=True)
        return pd.DataFrame({name: np.array(classes)[own] for name, classes, own in named})

    def places(self, X: Any) -> Ints:  # noqa: N803 - scikit-learn's names
        """The place of the class that is decided for among those of each label: shape (rows, labels)."""
        return self._matrix(X).astype(np.int64)

    def predict_proba(self, X: Any) -> list[Floats]:  # noqa: N803 - scikit-learn's names
        """The probabilities of the classes of each label, in their sorted order: shape (rows, classes) each."""
        answers: Any = [estimator.predict_proba(X) for estimator in self.estimators_]
        if self.is_joint_:
            (answers,) = answers
        if isinstance(answers, np.ndarray):  # of yes alone
            answers = [np.column_stack([1 - yes, yes]) for yes in answers.T]
        return [np.asarray(of_label, dtype=np.float64) for of_label in answers]

    def _matrix(self, X: Any) -> Floats:  # noqa: N803 - scikit-learn's names
        """What the estimators' own `predict` answers: shape (rows, labels)."""
        answers = [np.asarray(estimator.predict(X), dtype=np.float64) for estimator in self.estimators_]
        return answers[0] if self.is_joint_ else np.column_stack(answers)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` has ended."""
        return hasattr(self, "estimators_")
