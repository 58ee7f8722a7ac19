"""Treelite answers as scikit-learn does, or does not answer."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from models.hourly_departures.pipeline.interval import WithInterval
from tasks.runtime import fast_trees

RNG = np.random.default_rng(0)
GAPS = np.where(RNG.random((600, 6)) < 0.1, np.nan, RNG.normal(size=(600, 6)))
WHOLE = np.nan_to_num(GAPS)
SUM = WHOLE.sum(axis=1)
TWO, THREE = (SUM > 0).astype(int), np.digitize(SUM, [-1, 1])
COUNTS = np.round(np.exp(SUM / 3))


class Own(RegressorMixin, BaseEstimator):
    """A team's own estimator around another."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def fit(self, X: Any, y: Any) -> Own:  # noqa: N803, D102
        self.fitted_ = {"one": [clone(self.held).fit(X, y)]}
        return self

    def predict(self, X: Any) -> Any:  # noqa: N803, D102
        return self.fitted_["one"][0].predict(X) + 1


class Subclass(HistGradientBoostingRegressor):
    """That may do anything."""

    def predict(self, X: Any) -> Any:  # noqa: N803, D102
        return 2 * super().predict(X)


FEW = {"max_iter": 20}
BOOSTED = HistGradientBoostingRegressor(**FEW)
HASTENED = {
    "two classes": (HistGradientBoostingClassifier(**FEW), GAPS, TWO, 1),
    "three classes": (HistGradientBoostingClassifier(**FEW), GAPS, THREE, 1),
    "text classes": (HistGradientBoostingClassifier(**FEW), GAPS, np.array(["no", "yes"])[TWO], 1),
    "values": (BOOSTED, GAPS, SUM, 1),
    "large values": (BOOSTED, GAPS, 1e9 * SUM, 1),
    "counts": (HistGradientBoostingRegressor(loss="poisson", **FEW), GAPS, COUNTS, 1),
    "a quantile": (HistGradientBoostingRegressor(loss="quantile", quantile=0.9, **FEW), GAPS, SUM, 1),
    "nothing to learn": (BOOSTED, GAPS, np.zeros(600), 1),
    "an interval": (WithInterval(BOOSTED), GAPS, SUM, 3),
    "calibrated": (CalibratedClassifierCV(HistGradientBoostingClassifier(**FEW), cv=3), GAPS, TWO, 3),
    "voting": (VotingRegressor([("a", BOOSTED), ("b", RandomForestRegressor(10))]), WHOLE, SUM, 2),
    "a team's own": (Own(BOOSTED), GAPS, SUM, 1),
    "forest, two classes": (RandomForestClassifier(10), WHOLE, TWO, 1),
    "forest, three classes": (RandomForestClassifier(10), WHOLE, THREE, 1),
    "forest, missing values": (RandomForestClassifier(10), GAPS, TWO, 1),
    "forest, gaps that the fit had none of": (RandomForestClassifier(10), WHOLE, TWO, 1),
    "forest, values": (RandomForestRegressor(10), WHOLE, SUM, 1),
    "extra trees": (ExtraTreesClassifier(10), WHOLE, THREE, 1),
    "extra trees, values": (ExtraTreesRegressor(10), WHOLE, SUM, 1),
}
LEFT = {
    "categories as such": (
        HistGradientBoostingRegressor(categorical_features=[0], **FEW),
        np.abs(np.round(WHOLE)),
        SUM,
    ),
    "two outputs": (RandomForestRegressor(10), WHOLE, np.column_stack([SUM, SUM])),
    "a subclass": (Subclass(**FEW), GAPS, SUM),
    "another kind": (GradientBoostingClassifier(n_estimators=5), WHOLE, TWO),
}


def scored(pipeline: Any, rows: Any) -> Any:
    """The answers as serving asks for them."""
    if hasattr(pipeline, "predict_proba"):
        return pipeline.predict_proba(rows)
    if hasattr(pipeline[-1], "predict_quantiles"):
        return np.column_stack([pipeline.predict(rows), pipeline[-1].predict_quantiles(rows)])
    return pipeline.predict(rows)


def fitted(estimator: Any, rows: Any, labels: Any) -> Any:
    """A pipeline with a fresh copy."""
    return make_pipeline(FunctionTransformer(), clone(estimator)).fit(rows, labels)


@pytest.mark.parametrize("name", HASTENED)
def test_few_rows_are_answered_by_treelite_and_as_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, some, as many as may be; one more is scikit-learn's again. What was not seen in the fit as well."""
    import treelite

    estimator, rows, labels, held = HASTENED[name]
    pipeline = fitted(estimator, rows, labels)
    new = 3 * (GAPS if "gaps" in name else rows)[::-1] + 0.1
    before = {n: scored(pipeline, new[:n]) for n in (1, 7, fast_trees.MOST_ROWS, fast_trees.MOST_ROWS + 1)}
    asked: list[int] = []
    predict = treelite.gtil.predict
    monkeypatch.setattr(
        treelite.gtil, "predict", lambda model, data, **how: asked.append(len(data)) or predict(model, data, **how)
    )
    assert len(fast_trees.accelerate(pipeline, lambda: scored(pipeline, rows[:50]))) == held
    for n, answers in before.items():
        asked.clear()
        again = scored(pipeline, new[:n])
        assert again.shape == answers.shape
        if "forest" in name or "extra" in name or name == "voting":
            np.testing.assert_allclose(again, answers, rtol=fast_trees.CLOSE, atol=fast_trees.CLOSE)
        else:
            np.testing.assert_array_equal(again, answers)
        assert set(asked) <= {n}
        assert bool(asked) is (n <= fast_trees.MOST_ROWS)


@pytest.mark.parametrize("name", LEFT)
def test_what_treelite_may_know_otherwise_is_left_alone(name: str) -> None:
    """Its answers are scikit-learn's, to the last bit."""
    estimator, rows, labels = LEFT[name]
    pipeline = fitted(estimator, rows, labels)
    before = scored(pipeline, rows[:9])
    assert fast_trees.accelerate(pipeline, lambda: scored(pipeline, rows[:50])) == []
    np.testing.assert_array_equal(scored(pipeline, rows[:9]), before)


def test_answers_that_differ_are_not_given(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A Treelite that reads a scikit-learn of another day wrongly."""
    import treelite

    pipeline = fitted(WithInterval(BOOSTED), GAPS, SUM)
    before = scored(pipeline, GAPS[:9])
    predict = treelite.gtil.predict
    monkeypatch.setattr(treelite.gtil, "predict", lambda *a, **how: predict(*a, **how) + 1e-9)
    assert fast_trees.accelerate(pipeline, lambda: scored(pipeline, GAPS[:50])) == []
    assert "does not answer as scikit-learn does" in capsys.readouterr().err
    np.testing.assert_array_equal(scored(pipeline, GAPS[:9]), before)


def test_a_model_that_treelite_cannot_read_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said with Treelite's own words."""
    import treelite

    def refuse(*_: Any) -> Any:
        raise treelite.TreeliteError("no such model")

    pipeline = fitted(WithInterval(BOOSTED), GAPS, SUM)
    before = scored(pipeline, GAPS[:9])
    monkeypatch.setattr(treelite.sklearn, "import_model", refuse)
    assert fast_trees.accelerate(pipeline, lambda: scored(pipeline, GAPS[:50])) == []
    assert "no such model" in capsys.readouterr().err
    np.testing.assert_array_equal(scored(pipeline, GAPS[:9]), before)


def test_a_row_that_the_pipeline_fails_on_is_no_reason_to_fail(capsys: pytest.CaptureFixture[str]) -> None:
    """It is answered with an error when it is asked; the others are answered, by scikit-learn."""

    def picky(rows: Any) -> Any:
        if (rows > 2).any():
            raise ArithmeticError("too large")
        return rows

    pipeline = make_pipeline(FunctionTransformer(picky), clone(BOOSTED).fit(WHOLE, SUM))
    before = pipeline.predict(WHOLE[:1] / 9)
    assert fast_trees.accelerate(pipeline, lambda: pipeline.predict(WHOLE[:50])) == []
    said = capsys.readouterr().err
    assert "(ArithmeticError)" in said
    assert "too large" not in said  # it may hold what is in the row
    np.testing.assert_array_equal(pipeline.predict(WHOLE[:1] / 9), before)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # scikit-learn's own
@pytest.mark.parametrize("name", ["values", "forest, values"])
def test_what_scikit_learn_refuses_it_still_refuses(name: str) -> None:
    """Too few features, no row, what is no number of 32 bits."""
    estimator, rows, labels, _ = HASTENED[name]
    pipeline = fitted(estimator, rows, labels)
    assert fast_trees.accelerate(pipeline, lambda: scored(pipeline, rows[:50]))
    with pytest.raises(ValueError, match="features"):
        pipeline.predict(rows[:3, :4])
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        pipeline.predict(rows[:0])
    if name == "forest, values":
        for bad in (np.inf, 1e300):
            with pytest.raises(ValueError, match="infinity"):
                pipeline.predict(np.full((1, 6), bad))


def test_without_trees_treelite_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a tenth of a second."""
    from sklearn.linear_model import LinearRegression

    monkeypatch.setitem(sys.modules, "treelite", None)
    pipeline = fitted(LinearRegression(), WHOLE, SUM)
    assert fast_trees.accelerate(pipeline, lambda: scored(pipeline, WHOLE[:50])) == []
