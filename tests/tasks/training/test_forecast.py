"""A forecast's training rows, intervals and baseline: nothing is known before its time."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline, make_pipeline

from tasks.ground.errors import DataMissing, ModelCodeError
from tasks.runtime import model_file
from tasks.training import forecast, origins
from tasks.training.origins import Asked


def asked(**changes: Any) -> Asked:
    """Six steps ahead, by the hour, of a daily season."""
    return Asked(**{"horizon": 6, "season": 24, "step": "1h", "series": [], "known_ahead": [], **changes})


def hours(number: int, begin: str = "2013-01-01", **columns: Any) -> pd.DataFrame:
    """A row an hour: its label is the hour of the day."""
    time = pd.date_range(begin, periods=number, freq="h")
    frame = pd.DataFrame({"time": time, "label": time.hour.astype(float), "id": time.strftime("%Y%m%d%H")})
    return frame.assign(**columns)


def linear(learn: pd.DataFrame, features: list[str]) -> Pipeline:
    """A pipeline that is fitted."""
    return make_pipeline(LinearRegression()).fit(learn[features], learn["label"])


def test_a_row_was_asked_its_lead_before_its_time() -> None:
    """Without the feature `lead`, the whole horizon before; months are as long as they are."""
    frame = hours(2, "2013-03-31 05:00")
    assert asked().origins(frame).tolist() == [pd.Timestamp("2013-03-30 23:00"), pd.Timestamp("2013-03-31 00:00")]
    own = asked().origins(frame.assign(lead=[1.0, 5.0])).tolist()
    assert own == [pd.Timestamp("2013-03-31 04:00"), pd.Timestamp("2013-03-31 01:00")]
    monthly = pd.DataFrame({"time": pd.to_datetime(["2013-03-01", "2013-01-01"])})
    before = asked(step="month", horizon=2).origins(monthly)
    assert before.tolist() == [pd.Timestamp("2013-01-01"), pd.Timestamp("2012-11-01")]


def test_the_baseline_is_the_newest_season_that_was_known() -> None:
    """A day before for leads of up to a day, two days before for longer ones."""
    learn, holdout = hours(96), hours(24, "2013-01-05")
    learn["label"] += np.repeat([0.0, 100.0, 200.0, 300.0], 24)
    near = forecast.seasonal(learn, holdout, asked())
    assert near["seasonal_naive"].tolist() == (holdout["label"] + 300).tolist()
    far = forecast.seasonal(learn, holdout, asked(horizon=25))
    assert far["seasonal_naive"].tolist() == (holdout["label"] + 200).tolist()
    assert set(near["seasonal_error"]) == {100.0}


def test_each_series_has_its_own_baseline() -> None:
    """And one that nobody has seen yet has the mean of the others."""
    both = [hours(48, place=place, label=value) for place, value in (("a", 1.0), ("b", 5.0))]
    new = pd.concat([hours(2, "2013-01-03", place=place) for place in ("a", "b", "c")])
    told = forecast.seasonal(pd.concat(both), new, asked(series=["place"]))
    assert told["seasonal_naive"].tolist() == [1.0, 1.0, 5.0, 5.0, 3.0, 3.0]
    assert (told["seasonal_error"] > 0).all()


@pytest.mark.parametrize("leads", [(6,), (1, 6)])
def test_eight_labels_of_ten_lie_within_the_intervals(leads: tuple[int, ...]) -> None:
    """Of each lead, though the far one is four times as uncertain; also after the model file."""
    draw = np.random.default_rng(0)

    def rows(number: int, begin: str) -> pd.DataFrame:
        frames = [hours(number, begin, lead=float(lead), x=draw.normal(size=number)) for lead in leads]
        noise = [frame["lead"] / 6 * draw.normal(scale=4, size=number) for frame in frames]
        return pd.concat([frame.assign(label=frame["x"] + off) for frame, off in zip(frames, noise, strict=True)])

    learn, later = rows(3000, "2013-01-01"), rows(3000, "2014-01-01")
    features = ["x", "lead"]
    fitted = forecast.with_intervals(
        linear(learn, features), partial(linear, features=features), learn, features, asked()
    )
    answers = model_file.predict(fitted, later[features], "forecast")
    within = (later["label"] >= answers["q10"]) & (later["label"] <= answers["q90"])
    for lead in leads:
        assert within[(later["lead"] == lead).to_numpy()].mean() == pytest.approx(0.8, abs=0.05)


def test_too_short_a_time_is_told() -> None:
    """Nothing was known before the rows that intervals are made of."""
    learn, again = hours(40, x=0.0), partial(linear, features=["x"])
    with pytest.raises(DataMissing, match="too short a time to try a forecast 48 steps of 1h ahead in"):
        forecast.with_intervals(again(learn), again, learn, ["x"], asked(horizon=48))


def test_two_rows_of_one_series_and_time_are_told() -> None:
    """As where a column that tells series apart is not named."""
    both = pd.concat([hours(2, place=place, id=[f"{place}0", f"{place}1"]) for place in "ab"], ignore_index=True)
    with pytest.raises(ModelCodeError, match=r"m: ids 'a0' and 'b0' are of one series .* name what tells series apart"):
        origins.refuse_double_rows(both, asked(), "m")
    origins.refuse_double_rows(both, asked(series=["place"]), "m")
