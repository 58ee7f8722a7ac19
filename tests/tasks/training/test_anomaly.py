"""An outlier detector is fitted without labels, its threshold set by a budget of alerts, and its stability measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from tasks.ground.errors import ModelCodeError
from tasks.ground.params import Estimator
from tasks.runtime import model_file
from tasks.training import anomaly

DETECTORS = [
    IsolationForest(n_estimators=50, random_state=0),
    LocalOutlierFactor(n_neighbors=20, novelty=True),
    OneClassSVM(nu=0.05, gamma="scale"),
    EllipticEnvelope(random_state=0),
]


def rows(number: int, seed: int) -> pd.DataFrame:
    """Numbers of a heavy tail: some are strange."""
    return pd.DataFrame(np.random.default_rng(seed).standard_t(3, (number, 3)), columns=list("abc"))


def days(number: int, a_day: int) -> pd.Series[Any]:
    """The time of each row."""
    return pd.Series(pd.Timestamp("2013-01-01") + pd.to_timedelta(np.arange(number) // a_day, unit="D"))


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: type(detector).__name__)
def test_a_budget_holds_on_rows_that_were_not_learned_from(detector: Any) -> None:
    """Also of a detector that finds nothing less strange than what it has learned."""
    fitted, learned = anomaly.fit(make_pipeline(StandardScaler(), detector), rows(2000, 0), days(2000, 100), 5.0)
    answers = model_file.predict(fitted, rows(4000, 1), "anomaly")
    assert learned["baseline"]["alert_rate"] == 0.05
    assert answers["prediction"].mean() == pytest.approx(0.05, abs=0.02)
    assert 0 < learned["stability"] <= 1


def test_without_a_budget_its_own_threshold_counts() -> None:
    """What scikit-learn's `predict` calls an outlier is an alert."""
    fitted, _ = anomaly.fit(
        make_pipeline(IsolationForest(contamination=0.1, random_state=0)), rows(500, 0), days(500, 50), None
    )
    asked = rows(300, 1)
    answers = model_file.predict(fitted, asked, "anomaly")
    assert (answers["prediction"].to_numpy() == (fitted.predict(asked) == -1)).all()


def test_a_moved_threshold_outlives_the_model_file(tmp_path: Any) -> None:
    """It is a part of the pipeline that is served."""
    fitted, _ = anomaly.fit(make_pipeline(IsolationForest(random_state=0)), rows(500, 0), days(500, 50), 2.0)
    model_file.dump(fitted, tmp_path / "model.skops")
    loaded = model_file.load(tmp_path / "model.skops", None)
    pd.testing.assert_frame_equal(
        model_file.predict(loaded, rows(50, 1), "anomaly"), model_file.predict(fitted, rows(50, 1), "anomaly")
    )


def test_a_budget_a_day_takes_days() -> None:
    """Rows without a time have none."""
    undated = pd.Series([pd.NaT] * 100, dtype="datetime64[us]")
    with pytest.raises(ValueError, match=r"alerts_per_day takes rows with a time: without one, set the contamination"):
        anomaly.fit(make_pipeline(IsolationForest(random_state=0)), rows(100, 0), undated, 2.0)


def test_a_budget_of_more_than_half_of_the_rows_is_refused() -> None:
    """It was cut to a half in silence."""
    with pytest.raises(ValueError, match=r"8 alerts a day are 80% of the training rows, which are 10 a day: .*most 5$"):
        anomaly.fit(make_pipeline(IsolationForest(random_state=0)), rows(500, 0), days(500, 10), 8.0)


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (LogisticRegression(), "is no outlier detector, which task: anomaly needs: name sklearn.ensemble.Isolation"),
        (DBSCAN(), "is no outlier detector"),
        (LocalOutlierFactor(), "has no decision_function as it is: it judges only the rows that it learned from"),
    ],
)
def test_an_estimator_that_cannot_do_it_is_refused_before_it_is_fitted(estimator: Any, said: str) -> None:
    """With some that can."""
    wanted = Estimator.model_validate({"class": f"sklearn.{type(estimator).__name__}"})
    with pytest.raises(ModelCodeError, match=said):
        anomaly.refuse_other_estimators(Pipeline([("estimator", estimator)]), "payments", wanted)
