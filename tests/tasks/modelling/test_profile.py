"""The reference profile: right against pandas, a JSON value, equal for equal frames, and at ease with odd columns."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.modelling import profile
from tests.tasks.modelling.sample import FEATURES, frame


def test_profile_as_pandas():
    """Shares, moments and counts are those that pandas gives."""
    rows = frame(1000)
    made = profile.reference_profile(rows, FEATURES, None)
    assert made["rows"] == 1000
    assert list(made["features"]) == list(FEATURES)
    temp, carrier = made["features"]["temp"], made["features"]["carrier"]
    assert temp["missing"] == 0.1
    assert temp["mean"] == pytest.approx(rows["temp"].mean(), rel=1e-8)
    assert temp["std"] == pytest.approx(rows["temp"].std(ddof=0), rel=1e-8)
    assert (temp["min"], temp["max"]) == (rows["temp"].min(), rows["temp"].max())
    assert temp["quantiles"][10] == pytest.approx(rows["temp"].median(), abs=0.3)
    assert len(temp["quantiles"]) == profile.GRID
    assert carrier["values"] == rows["carrier"].value_counts().to_dict()
    assert carrier["missing"] == pytest.approx(rows["carrier"].isna().mean())
    assert made["label"]["values"] == {"0": int((rows["label"] == 0).sum()), "1": int((rows["label"] == 1).sum())}


def test_profile_is_json_and_the_same_again():
    """A profile survives JSON, and the rows' order does not show in it beyond what a sum can differ."""
    rows = frame(1000)
    made = profile.reference_profile(rows, FEATURES, rows[["temp"]].rename(columns={"temp": "prediction"}).fillna(0))
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    again = profile.reference_profile(rows.sample(frac=1, random_state=1), FEATURES, None)
    assert again["features"] == made["features"]
    assert set(made["predictions"]) == {"prediction"}


def test_histogram_of_the_reference_has_nothing_outside():
    """Every known value lies in a bin, and bins of a continuous feature hold about a twentieth each."""
    entry = profile.number(frame(1000)["temp"])
    assert sum(entry["counts"]) == 900
    assert entry["counts"][0] == entry["counts"][-1] == 0
    assert max(entry["counts"]) < 50
    assert len(entry["counts"]) == len(entry["edges"]) + 1


def test_always_missing():
    """A feature without any value has no moments and no bins, and stays JSON."""
    entry = profile.number(pd.Series([np.nan, np.nan, np.inf]))
    assert entry["missing"] == 1
    assert entry["mean"] is None
    assert entry["counts"] == entry["edges"] == entry["quantiles"] == []
    assert profile.histogram(np.array([1.0]), entry["edges"]) == []
    empty = profile.category(pd.Series([None, None], dtype="str"))
    assert (empty["missing"], empty["values"], empty["other"]) == (1, {}, 0)


def test_constant_feature_shows_when_it_moves():
    """A feature that never changed has one bin, and later values fall below or above it."""
    entry = profile.number(pd.Series([3.0] * 50))
    assert entry["counts"] == [0, 50, 0]
    assert profile.histogram(np.array([2.0, 3.0, 3.5, 4.0, np.nan]), entry["edges"]) == [1, 1, 2]


def test_common_smallest_value_has_its_own_bin():
    """Rain that is mostly none is told from a little rain."""
    rain = pd.Series([0.0] * 900 + list(np.linspace(0.01, 1, 100)))
    entry = profile.number(rain)
    assert entry["counts"][1] == 900
    assert profile.number(pd.Series([0.0, 1.0] * 10))["counts"] == [0, 10, 10, 0]
    assert profile.number(pd.Series([0.0] + [1.0] * 99))["counts"] == [0, 1, 99, 0]


def test_rare_categories_are_summed():
    """Beyond the most frequent ones, categories are counted together."""
    values = pd.Series([f"d{i:03d}" for i in range(150)] + ["d000"] * 3)
    entry = profile.category(values)
    assert entry["distinct"] == 150
    assert len(entry["values"]) == profile.TOP
    assert entry["other"] == 50
    assert next(iter(entry["values"])) == "d000"


@given(
    st.lists(
        st.one_of(st.floats(-1e6, 1e6), st.integers(-3, 3).map(float), st.just(float("nan"))), min_size=1, max_size=80
    )
)
def test_any_numbers(values):
    """Whatever the numbers, every known one is counted once and inside, and the entry is JSON."""
    entry = profile.number(pd.Series(values, dtype="float64"))
    known = int(np.isfinite(values).sum())
    assert sum(entry["counts"]) == known
    if known:
        assert entry["counts"][0] == entry["counts"][-1] == 0
        assert entry["edges"] == sorted(entry["edges"])
    json.dumps(entry, allow_nan=False)


def test_label_of_a_regression_and_of_texts():
    """A label of many numbers is profiled as a number, one of texts as a category."""
    rows = frame(1000).assign(label=np.linspace(0, 1, 1000))
    assert "values" not in profile.reference_profile(rows, FEATURES, None)["label"]
    rows = frame(1000).assign(label="yes")
    assert profile.reference_profile(rows, FEATURES, None)["label"]["values"] == {"yes": 1000}
