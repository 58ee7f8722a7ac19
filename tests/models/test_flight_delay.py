"""Flights and weather → one row per flight that arrived; and the pipeline around an estimator."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from models.flight_delay.pipeline import build
from models.flight_delay.rows import WEATHER, rows


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    """Four flights: on time, late, cancelled, and one in an hour of which there is no weather."""
    hours = pd.to_datetime(["2013-01-04 11:00", "2013-01-04 11:00", "2013-01-04 11:00", "2013-01-06 23:00"], utc=True)
    flights = pd.DataFrame(
        {
            "year": 2013, "month": 1, "day": [4, 4, 4, 6], "hour": [6, 6, 6, 18], "minute": [0, 30, 45, 5],
            "sched_dep_time": [600, 630, 645, 1805], "arr_delay": [15.0, 16.0, None, -3.0],
            "carrier": ["UA", "AA", "UA", "B6"], "flight": [1, 2, 3, 4], "origin": ["EWR", "JFK", "EWR", "EWR"],
            "dest": "IAH", "distance": 1400, "time_hour": hours,
        }
    )  # fmt: skip
    weather = pd.DataFrame({"origin": ["EWR", "JFK"], "time_hour": hours[:2], **dict.fromkeys(WEATHER, 10.0)})
    return {"flights": flights, "weather": weather.assign(wind_speed=[1048.4, 20.0])}


def test_a_flight_is_late_from_the_minute_after_the_limit(tables: dict[str, pd.DataFrame]) -> None:
    """Cancelled flights are neither late nor on time; the order of flights is kept."""
    made = rows(tables, late_after=15)
    assert made["carrier"].tolist() == ["UA", "AA", "B6"]
    assert made["label"].tolist() == [0, 1, 0]
    assert rows(tables, late_after=14)["label"].tolist() == [1, 1, 0]


def test_weather_is_that_of_the_origin_and_hour(tables: dict[str, pd.DataFrame]) -> None:
    """Missing where there is none, and where a sensor was broken."""
    made = rows(tables, late_after=15)
    assert made["temp"].isna().tolist() == [False, False, True]
    np.testing.assert_array_equal(made["wind_speed"], [np.nan, 20.0, np.nan])


def test_a_row_says_when_and_which_flight_it_is(tables: dict[str, pd.DataFrame]) -> None:
    """4 January 2013 was a Friday."""
    made = rows(tables, late_after=15)
    assert made["weekday"].tolist() == [5, 5, 7]
    assert made["time"].tolist() == [
        pd.Timestamp(text) for text in ("2013-01-04 06:00", "2013-01-04 06:30", "2013-01-06 18:05")
    ]
    assert made["id"].tolist() == ["20130104UA1EWR600", "20130104AA2JFK630", "20130106B64EWR1805"]


@pytest.mark.parametrize("estimator", [LogisticRegression(), HistGradientBoostingClassifier(max_iter=2)])
def test_the_pipeline_takes_missing_values_and_unseen_categories(estimator: object) -> None:
    """Whether the estimator takes missing values itself or not."""
    frame = pd.DataFrame({"carrier": ["UA", "AA"] * 60, "temp": [1.0, None, 3.0, 4.0] * 30})
    fitted = build(estimator, categories=["carrier"], numbers=["temp"]).fit(frame, [0, 1] * 60)
    asked = pd.DataFrame({"carrier": ["ZZ", "UA"], "temp": [np.nan, 2.0]})
    assert np.isfinite(fitted.predict_proba(asked)).all()
