"""Flights and weather → one row per airport and hour; and an estimator that says how far off it may be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from models.hourly_departures.pipeline import build
from models.hourly_departures.pipeline.interval import WithInterval
from models.hourly_departures.rows import WEATHER, rows


def test_an_hour_counts_the_flights_that_left() -> None:
    """Not those that were cancelled; an hour without a flight counts none, and one without weather is not known."""
    hours = pd.to_datetime(["2013-01-04 11:00", "2013-01-04 12:00", "2013-01-04 13:00"], utc=True)
    flights = pd.DataFrame(
        {
            "origin": ["EWR", "EWR", "EWR", "JFK", "EWR"],
            "dep_time": [601.0, 605.0, None, 610.0, 800.0],
            "time_hour": [hours[0], hours[0], hours[0], hours[0], hours[2]],
        }
    )
    weather = pd.DataFrame(
        {
            "origin": ["EWR", "JFK", "EWR"], "time_hour": [hours[0], hours[0], hours[1]],
            "year": 2013, "month": 1, "day": 4, "hour": [6, 6, 7], **dict.fromkeys(WEATHER, 1.0),
        }
    )  # fmt: skip
    made = rows({"flights": flights, "weather": weather})
    assert made["label"].tolist() == [2.0, 1.0, 0.0]
    assert made["id"].tolist() == ["EWR2013010411", "JFK2013010411", "EWR2013010412"]
    assert made["time"].tolist() == [pd.Timestamp("2013-01-04 06:00")] * 2 + [pd.Timestamp("2013-01-04 07:00")]


def test_the_interval_holds_about_eight_of_ten() -> None:
    """And its lower end is never above the upper."""
    rng = np.random.default_rng(0)
    seen, asked = rng.uniform(0, 10, (2000, 1)), rng.uniform(0, 10, (2000, 1))
    fitted = WithInterval(HistGradientBoostingRegressor(max_iter=40)).fit(seen, rng.poisson(seen[:, 0] + 5))
    low, high = fitted.predict_quantiles(asked).T
    truth = rng.poisson(asked[:, 0] + 5)
    assert (low <= high).all()
    assert 0.7 < ((low <= truth) & (truth <= high)).mean() < 0.92


@pytest.mark.parametrize(("estimator", "offers"), [(HistGradientBoostingRegressor(), True), (Ridge(), False)])
def test_the_interval_is_offered_where_the_estimator_can(estimator: object, offers: bool) -> None:
    """Another estimator in params.yaml needs no other pipeline."""
    built = build(estimator, categories=["origin"], numbers=["hour"])
    assert hasattr(built[-1], "predict_quantiles") == offers
