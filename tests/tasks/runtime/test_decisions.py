"""The class that is answered is the one that the pipeline's own `predict` answers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from tasks.runtime import decisions, model_file, predictor
from tasks.runtime.ordinal_codes import Codes
from tests import releases
from tests.releases import CATEGORIES, NUMBERS, frame, rows

LEARNT, ASKED = rows(400), rows(600, seed=7)
SCORE = np.array([row["hour"] / 8 + 10 * (row["size"] or 0) + (row["kind"] == "b") for row in LEARNT])
TWO = np.quantile(SCORE, 0.8) < SCORE
THREE = np.digitize(SCORE, np.quantile(SCORE, [0.33, 0.66]))


class Backwards(ClassifierMixin, BaseEstimator):
    """A classifier whose classes are in falling order, and that decides for the rare one from a fifth on."""

    def fit(self, x: Any, y: Any) -> Backwards:
        """Fit it."""
        self.of_ = LogisticRegression().fit(x, y)
        self.classes_ = self.of_.classes_[::-1]
        return self

    def predict_proba(self, x: Any) -> Any:
        """Columns in the order of classes_."""
        return self.of_.predict_proba(x)[:, ::-1]

    def predict(self, x: Any) -> Any:
        """Not the most probable class."""
        return np.where(self.predict_proba(x)[:, 0] >= 0.2, self.classes_[0], self.classes_[1])


def lines(estimator: Any, label: Any) -> Pipeline:
    """A fitted pipeline that takes frames."""
    fill = make_pipeline(SimpleImputer(), StandardScaler())
    encode = OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("categories", encode, CATEGORIES), ("numbers", fill, NUMBERS)])
    return Pipeline([("columns", columns), ("estimator", estimator)]).fit(frame(LEARNT), label)


def trees(estimator: Any, label: Any) -> Pipeline:
    """A fitted pipeline of a model that ships."""
    return Pipeline([("columns", Codes(CATEGORIES, NUMBERS)), ("estimator", estimator)]).fit(frame(LEARNT), label)


def boosted() -> HistGradientBoostingClassifier:
    """Small."""
    return HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=5)


def fixed(threshold: float, **more: Any) -> FixedThresholdClassifier:
    """A threshold around a logistic regression."""
    return FixedThresholdClassifier(LogisticRegression(), threshold=threshold, **more)


def svc(label: Any) -> Pipeline:
    """One whose decisions do not follow from its probabilities; scikit-learn 1.9 warns that it goes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return lines(SVC(probability=True, random_state=0), label)


PROBABLE = decisions.MOST_PROBABLE
PIPELINES: dict[str, tuple[Callable[[], Pipeline], Any]] = {
    "plain": (lambda: trees(boosted(), TWO), PROBABLE),
    "fixed": (lambda: lines(fixed(0.1), TWO), {"threshold": 0.1}),
    "fixed_trees": (lambda: trees(FixedThresholdClassifier(boosted(), threshold=0.1), TWO), {"threshold": 0.1}),
    "of_the_first": (lambda: lines(fixed(0.9, pos_label=False), TWO), decisions.PREDICT,
    ),
    "of_scores": (lambda: lines(fixed(-2, response_method="decision_function"), TWO),
        decisions.PREDICT,
    ),
    "svc": (lambda: svc(TWO), decisions.PREDICT),
    "svc_three": (lambda: svc(THREE), decisions.PREDICT),
    "text": (lambda: lines(fixed(0.1), np.where(TWO, "yes", "no")),
        {"threshold": 0.1},
    ),
    "forest": (lambda: trees(RandomForestClassifier(5, random_state=0), THREE), PROBABLE),
    "gradient": (lambda: lines(GradientBoostingClassifier(n_estimators=3), TWO), decisions.PREDICT),
    "grid": (lambda: lines(GridSearchCV(LogisticRegression(), {"C": [1.0]}), THREE), PROBABLE),
    "voting": (lambda: lines(VotingClassifier([("a", GaussianNB())], voting="soft"), TWO), decisions.PREDICT),
    "backwards": (lambda: lines(Backwards(), TWO), decisions.PREDICT),
}  # fmt: skip


@cache
def made(name: str) -> Pipeline:
    """One of them, fitted once."""
    return PIPELINES[name][0]()


def of(pipeline: Pipeline) -> decisions.Decision:
    """How it decides."""
    return decisions.of(pipeline, frame(LEARNT))


@pytest.mark.parametrize("name", PIPELINES)
def test_it_is_said_how_a_pipeline_decides(name: str) -> None:
    """By its type where that is known, and `predict` is asked everywhere else."""
    pipeline, expected = made(name), PIPELINES[name][1]
    assert of(pipeline) == expected


def test_a_tuned_threshold_is_a_number() -> None:
    """The one that was chosen."""
    tuned = TunedThresholdClassifierCV(LogisticRegression(), scoring="f1", random_state=0)
    pipeline = lines(tuned, TWO)
    assert of(pipeline) == {"threshold": pipeline[-1].best_threshold_}


def test_what_a_type_says_is_tried_on_rows() -> None:
    """A release asks `predict` where the two differ, as where somebody changed an estimator after its fit."""
    pipeline = trees(boosted(), TWO)
    pipeline[-1].predict = lambda x: np.ones(len(x), dtype=bool)
    assert of(pipeline) == decisions.PREDICT


@pytest.mark.parametrize("name", PIPELINES)
def test_a_release_answers_as_the_pipeline_predicts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row, with the type of the label, and the probability of that class; alone and in a batch."""
    pipeline, expected = made(name), PIPELINES[name][1]
    classes = sorted(pipeline.classes_.tolist())
    facts = releases.write(tmp_path, pipeline, "classification", classes, max_rows=1000)
    assert facts["decision"] == expected
    monkeypatch.setattr(predictor.model_file, "load", lambda *_, **__: pipeline)
    release = predictor.Predictor(tmp_path)
    predicted = pipeline.predict(frame(ASKED)).tolist()
    for batch in (ASKED, ASKED[:1], ASKED[11:12]):
        answer = json.loads(release.predict([json.dumps({"rows": batch}).encode()])[0].body)["predictions"]
        where = ASKED.index(batch[0])
        assert [row["prediction"] for row in answer] == predicted[where : where + len(batch)]
    shares = pipeline.predict_proba(frame(ASKED))[:, pipeline.classes_.tolist().index(classes[-1])]
    answer = json.loads(release.predict([json.dumps({"rows": ASKED}).encode()])[0].body)["predictions"]
    assert [row["probabilities"][str(classes[-1])] for row in answer] == pytest.approx(shares.tolist(), abs=1e-12)


@pytest.mark.parametrize("name", PIPELINES)
def test_predictions_of_a_frame_are_the_same(name: str) -> None:
    """For evaluation, gate and batch: a column with the class where it is not always the most probable one."""
    pipeline, decision = made(name), PIPELINES[name][1]
    answers = model_file.predict(pipeline, frame(ASKED), "classification", decision)
    assert list(answers)[: len(pipeline.classes_)] == [f"p_{c}" for c in sorted(pipeline.classes_.tolist())]
    predicted = pipeline.predict(frame(ASKED)).tolist()
    if decision == PROBABLE:
        classes = sorted(pipeline.classes_.tolist())
        assert [classes[place] for place in answers.to_numpy().argmax(axis=1)] == predicted
    else:
        assert answers["prediction"].tolist() == predicted


def test_an_explanation_is_of_the_class_that_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than two; of two it is of the second one, whatever is decided."""
    pipeline = made("svc_three")
    releases.write(tmp_path, pipeline, "classification", [0, 1, 2])
    monkeypatch.setattr(predictor.model_file, "load", lambda *_, **__: pipeline)
    release = predictor.Predictor(tmp_path)
    for row in ASKED[:10]:
        answer = json.loads(release.predict([json.dumps({"rows": [row]}).encode()])[0].body)["predictions"][0]
        explained = json.loads(release.explain(json.dumps({"row": row}).encode()).body)
        assert explained["of"] == f"probability of {answer['prediction']}"


def test_an_answer_that_is_no_class_is_told() -> None:
    """A team's own predict may say anything."""
    pipeline = lines(LogisticRegression(), TWO)
    pipeline[-1].predict = lambda x: np.full(len(x), 7)
    with pytest.raises(ValueError, match="predict answers 7, which is none of its classes"):
        decisions.positions(pipeline, frame(LEARNT))
