"""Several labels are answered alike, whichever way scikit-learn's estimators do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_linnerud, make_multilabel_classification
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline

from tasks.runtime import answer_columns, answers, decisions, model_file
from tasks.runtime.outputs import Outputs

ROWS, TAGS = make_multilabel_classification(200, 6, n_classes=3, random_state=0)
FEATURES = pd.DataFrame(ROWS, columns=[f"x{i}" for i in range(6)])
LABELS = pd.DataFrame({"a": np.where(TAGS[:, 0], "yes", "no"), "b": TAGS[:, 1] == 1, "c": TAGS[:, 2]})
THREE = LABELS.assign(c=TAGS[:, 2] + (FEATURES["x0"] > 6).to_numpy())


def fitted(estimator: Any, labels: pd.DataFrame) -> Pipeline:
    """A pipeline of nothing but the estimator."""
    return Pipeline([("estimator", Outputs(estimator, list(labels), True))]).fit(FEATURES, labels)


@pytest.mark.parametrize(
    ("estimator", "is_joint", "decision"),
    [
        (RandomForestClassifier(5, random_state=0), True, "most_probable"),
        (MultiOutputClassifier(LogisticRegression()), True, "most_probable"),
        (ClassifierChain(LogisticRegression()), True, "predict"),
        (OneVsRestClassifier(LogisticRegression()), True, "predict"),
        (MLPClassifier((4,), tol=0.1, n_iter_no_change=2, random_state=0), True, "most_probable"),
        (GaussianNB(), False, "most_probable"),
        (FixedThresholdClassifier(LogisticRegression(), threshold=0.2), False, "predict"),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else None,
)
def test_each_class_is_answered_as_the_estimator_decides(
    estimator: Any, is_joint: bool, decision: str, tmp_path: Path
) -> None:
    """From the model file, as a table and as JSON; a class is what the labels have."""
    model_file.dump(fitted(estimator, LABELS), tmp_path / "model.skops")
    pipeline = model_file.load(tmp_path / "model.skops", None)
    assert pipeline[-1].is_joint_ == is_joint
    assert decisions.of(pipeline, FEATURES) == decision
    table = model_file.predict(pipeline, FEATURES, "classification", decision)
    shares = table[["a:p_no", "a:p_yes", "b:p_False", "b:p_True", "c:p_0", "c:p_1"]].to_numpy()
    assert np.allclose(shares.reshape(-1, 3, 2).sum(axis=2), 1)
    meant = pipeline.predict(FEATURES)
    answered = answers.of("classification", pipeline, decision)
    given = [answered.answer(row)[0] for row in answered.decided(pipeline, FEATURES).tolist()]
    assert pd.DataFrame([row["prediction"] for row in given]).equals(meant)
    assert given[0]["probabilities"]["a"] == {"no": shares[0, 0], "yes": shares[0, 1]}
    assert isinstance(given[0]["prediction"]["b"], bool)
    if decision == "predict":
        assert table[["a:prediction", "b:prediction", "c:prediction"]].set_axis(list(LABELS), axis=1).equals(meant)


@pytest.mark.parametrize("estimator", [RandomForestClassifier(5), GaussianNB()], ids=["all", "each"])
def test_a_label_may_have_more_classes_than_another(estimator: Any) -> None:
    """Two, two and three."""
    table = model_file.predict(fitted(estimator, THREE), FEATURES, "classification")
    assert list(table) == ["a:p_no", "a:p_yes", "b:p_False", "b:p_True", "c:p_0", "c:p_1", "c:p_2"]


def test_an_estimator_of_yes_and_no_refuses_three_classes() -> None:
    """Before anything is fitted, with what to do."""
    with pytest.raises(ValueError, match=r"^ClassifierChain answers yes or no, and c has more than two classes\. Wrap"):
        fitted(ClassifierChain(LogisticRegression()), THREE)


@pytest.mark.parametrize(
    ("estimator", "is_joint"),
    [
        (RandomForestRegressor(5, random_state=0), True),
        (MultiOutputRegressor(Ridge()), True),
        (RegressorChain(Ridge()), True),
        (HistGradientBoostingRegressor(max_iter=3), False),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else None,
)
def test_each_number_is_answered_by_its_name(estimator: Any, is_joint: bool) -> None:
    """scikit-learn's three numbers of twenty middle-aged men."""
    men = load_linnerud(as_frame=True)
    pipeline = Pipeline([("estimator", Outputs(estimator, list(men.target), False))]).fit(men.data, men.target)
    assert pipeline[-1].is_joint_ == is_joint
    table = model_file.predict(pipeline, men.data, "regression")
    assert list(table) == ["Weight:prediction", "Waist:prediction", "Pulse:prediction"]
    assert np.allclose(table.mean(), men.target.mean(), rtol=0.1)
    answered = answers.of("regression", pipeline)
    given, main = answered.answer(answered.decided(pipeline, men.data)[0].tolist())
    assert given == {"prediction": dict(zip(men.target, table.iloc[0].tolist(), strict=True))}
    assert main == pytest.approx(table.iloc[0].mean())


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("rain:label", ("rain", "label")),
        ("rain:p_a:b", ("rain", "p_a:b")),
        ("rain:prediction", ("rain", "prediction")),
        ("p_a:prediction", ("", "p_a:prediction")),
        ("slice:label", ("", "slice:label")),
        ("rain:area", ("", "rain:area")),
        ("label", ("", "label")),
    ],
)
def test_a_column_says_of_which_label_it_is(name: str, parts: tuple[str, str]) -> None:
    """A class may hold a colon; a slice of the monitor is none."""
    assert answer_columns.split(name) == parts
