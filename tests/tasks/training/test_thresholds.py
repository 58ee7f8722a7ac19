"""A threshold that is chosen on training folds, and stands in the model file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from tasks.ground import files
from tasks.ground.errors import ModelCodeError
from tasks.ground.params import Cost, DecisionRule
from tasks.modelling import metrics
from tasks.runtime import decisions, model_file
from tasks.training import thresholds

FEATURES = ["a", "b"]


def table(rows: int = 6000, seed: int = 0, share: float = -2.5) -> pd.DataFrame:
    """Rows of a rare class over sixty days, whose probability a logistic regression finds."""
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=rows), draw.normal(size=rows)
    label = draw.random(rows) < 1 / (1 + np.exp(-(share + a + b)))
    time = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.sort(draw.integers(0, 60 * 24, rows)), unit="h")
    return pd.DataFrame({"a": a, "b": b, "label": label, "time": time, "id": [f"{seed}-{i}" for i in range(rows)]})


def fit(learn: pd.DataFrame) -> Pipeline:
    """A pipeline of two steps."""
    pipeline = Pipeline([("scaled", StandardScaler()), ("estimator", LogisticRegression())])
    return pipeline.fit(learn[FEATURES], learn["label"])


ROWS = table()
TEN = DecisionRule(cost=Cost(false_positive=1, false_negative=10))


@pytest.mark.parametrize("by_time", [True, False])
def test_a_cost_gives_the_threshold_that_theory_says(by_time: bool) -> None:
    """Of true probabilities it is false_positive / (false_positive + false_negative) (Elkan 2001)."""
    chosen = thresholds.choose(TEN, ROWS, FEATURES, fit, by_time=by_time)
    assert chosen.by == "cost(1, 10)"
    assert 1 / 11 - 0.04 < chosen.threshold < 1 / 11 + 0.04
    assert chosen.value < 0.7 * chosen.at_half
    assert chosen.folds == 5


def test_what_is_promised_is_what_new_rows_cost() -> None:
    """Out of fold: not what is known by heart."""
    chosen, new = thresholds.choose(TEN, ROWS, FEATURES, fit, by_time=True), table(seed=1)
    pipeline = thresholds.around(fit(ROWS), chosen.threshold, ROWS[FEATURES], ROWS["label"])
    answers = model_file.predict(pipeline, new[FEATURES], "classification", {"threshold": chosen.threshold})
    assert answers["prediction"].tolist() == pipeline.predict(new[FEATURES]).tolist()
    assert metrics.losses("cost(1, 10)", new["label"], answers).mean() == pytest.approx(chosen.value, rel=0.1)


@pytest.mark.parametrize("what", ["f1", "balanced_accuracy"])
def test_what_is_made_as_large_as_it_goes(what: str) -> None:
    """By name, and more than at a half."""
    chosen = thresholds.choose(DecisionRule(maximise=what), ROWS, FEATURES, fit, by_time=False)
    assert (chosen.by, chosen.threshold < 0.5) == (what, True)
    assert chosen.value > chosen.at_half + 0.05


def test_by_time_a_row_is_only_answered_by_earlier_days() -> None:
    """Whole days, in five blocks; the first is not answered."""
    learned: list[tuple[pd.Timestamp, pd.Timestamp]] = []

    def spied(learn: pd.DataFrame) -> Pipeline:
        learned.append((learn["time"].min(), learn["time"].max()))
        return fit(learn)

    chosen = thresholds.choose(TEN, ROWS, FEATURES, spied, by_time=True)
    folds = thresholds._folds(ROWS, True)
    assert [until for _, until in learned] == [earlier["time"].max() for earlier, _ in folds]
    for earlier, fold in folds:
        assert earlier["time"].dt.normalize().max() < fold["time"].dt.normalize().min()
    assert chosen.rows == sum(len(fold) for _, fold in folds) < len(ROWS)


def test_a_weight_of_three_is_three_rows() -> None:
    """Also for the choice."""
    weights = np.random.default_rng(0).integers(1, 4, len(ROWS)).astype(float)
    fixed = fit(ROWS)
    weighted = thresholds.choose(TEN, ROWS.assign(weight=weights), FEATURES, lambda _: fixed, by_time=True)
    repeated = ROWS.loc[ROWS.index.repeat(weights.astype(int))].reset_index(drop=True)
    again = thresholds.choose(TEN, repeated, FEATURES, lambda _: fixed, by_time=True)
    assert weighted.threshold == pytest.approx(again.threshold, abs=0.02)


def test_too_few_of_a_class_are_told() -> None:
    """With what to do."""
    rare = ROWS.assign(label=np.arange(len(ROWS)) % 1000 == 1)
    with pytest.raises(ModelCodeError, match=r"are of the rarer class; 20 are needed\. Deliver more, or give one"):
        thresholds.choose(TEN, rare, FEATURES, fit, by_time=True)


def test_rows_that_weigh_nothing_are_no_rows_of_a_class() -> None:
    """Of them no threshold can be chosen, and the best of nothing is not NaN."""
    weightless = ROWS.assign(weight=(~ROWS["label"]).astype(float))
    with pytest.raises(ModelCodeError, match="0 are of the rarer class"):
        thresholds.choose(DecisionRule(maximise="f1"), weightless, FEATURES, fit, by_time=False)


def test_never_can_be_chosen_where_a_wrong_row_has_the_probability_1() -> None:
    """As a tree says of it: above 1 lies nothing."""
    label = np.arange(200) % 2 == 0
    candidates = thresholds._candidates(np.where(label, 1.0, 0.5))
    taken, false, _, _ = thresholds._counts(np.ones(200), label, np.ones(200), candidates)
    assert (taken[-1], false[-1]) == (0, 0)


def test_the_model_file_holds_the_threshold(tmp_path: Path) -> None:
    """The same bytes each time; the estimator is as it was fitted, and what is loaded decides alike."""
    plain = fit(ROWS)
    pipeline = thresholds.around(fit(ROWS), 0.1, ROWS[FEATURES], ROWS["label"])
    model_file.dump(pipeline, tmp_path / "one")
    model_file.dump(thresholds.around(fit(ROWS), 0.1, ROWS[FEATURES], ROWS["label"]), tmp_path / "two")
    assert files.sha256(tmp_path / "one") == files.sha256(tmp_path / "two")
    loaded = model_file.load(tmp_path / "one", sha256=None)
    assert np.array_equal(loaded.predict_proba(ROWS[FEATURES]), plain.predict_proba(ROWS[FEATURES]))
    assert np.array_equal(loaded.predict(ROWS[FEATURES]), plain.predict_proba(ROWS[FEATURES])[:, 1] >= 0.1)
    assert decisions.of(loaded, ROWS[FEATURES]) == {"threshold": 0.1}
