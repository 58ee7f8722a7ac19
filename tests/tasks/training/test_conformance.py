"""The team's rows, held to params.yaml."""

# ruff: noqa: E501
# (a fault and what is said of it stand in one line)

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tasks.ground import params
from tasks.ground.errors import ModelCodeError
from tasks.training.conformance import conform
from tests.conftest import REPOSITORY

SMALL = yaml.safe_load((REPOSITORY / "tests" / "small" / "params.yaml").read_text())["models"]["tiny"]
GATE = {**SMALL["gate"], "loss": "squared"}


def model(**changes: Any) -> params.Model:
    """The section of the tiny model, with changes."""
    return params.Model.model_validate({**SMALL, **changes})


def rows(**changes: Any) -> pd.DataFrame:
    """Five rows as the tiny model's code gives them, with changes."""
    columns = {
        "id": list("abcde"),
        "time": pd.date_range("2013-01-01", periods=5),
        "label": [0, 1, 0, 1, 0],
        "vibration": [0.1, None, 0.3, 0.4, 0.5],
        "pressure": [1, 2, 3, 4, 5],
        "starts": [1, 2, 3, 4, 5],
        "hour": [0, 6, 12, 18, 0],
        "weekday": [2, 3, 4, 5, 6],
        "station": list("nnssn"),
        "of no concern": 1,
    }
    return pd.DataFrame({**columns, **changes})


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────


def test_rows_have_the_columns_of_params_yaml_in_order() -> None:
    """Texts are texts, numbers are float64, the time is in microseconds; nothing else is kept."""
    told = conform(rows().set_axis(range(10, 15)), "tiny", model())
    assert {column: str(type_) for column, type_ in told.dtypes.items()} == {
        "station": "str", "weekday": "float64", "hour": "float64", "starts": "float64", "pressure": "float64",
        "vibration": "float64", "label": "int64", "time": "datetime64[us]", "id": "str",
    }  # fmt: skip
    assert told.index.tolist() == [0, 1, 2, 3, 4]
    assert told["vibration"].isna().tolist() == [False, True, False, False, False]


def test_weights_and_columns_to_slice_by_are_kept() -> None:
    """A weight as float64, where rows give one; a column that is no feature as text, which may be missing."""
    sliced = model(evaluate={"slices": ["station", "region", "year"]})
    told = conform(rows(weight=[1, 2, 0, 1, 1], region=["x", None, "y", "y", "x"], year=2013.0), "tiny", sliced)
    assert list(told)[-3:] == ["weight", "region", "year"]
    assert (str(told["weight"].dtype), told["weight"].sum()) == ("float64", 5)
    assert told["region"].isna().sum() == 1
    assert told["year"].unique().tolist() == ["2013"]
    with pytest.raises(ModelCodeError, match=r"^models/tiny/rows gives no column region, year; params.yaml and"):
        conform(rows(), "tiny", sliced)


@pytest.mark.parametrize(("weight", "told"), [(-1.0, "it is -1 in 1 row"), (np.inf, "it is inf in 1 row")])
def test_a_weight_that_is_none_is_told(weight: float, told: str) -> None:
    """How often a row counts cannot be below 0, nor without end."""
    with pytest.raises(ModelCodeError, match=rf"^models/tiny/rows: weight is no weight: {told} \(first: row 2\)"):
        conform(rows(weight=[1, weight, 1, 1, 1]), "tiny", model())
    with pytest.raises(ModelCodeError, match="weight is missing in 1 row"):
        conform(rows(weight=[1, None, 1, 1, 1]), "tiny", model())


def test_a_column_that_is_given_twice_is_told() -> None:
    """As a join gives it: which of both counts is not guessed."""
    for name in ("hour", "time"):
        with pytest.raises(ModelCodeError, match=f"^models/tiny/rows gives column {name} twice: which one counts"):
            conform(pd.concat([rows(), rows()[[name]]], axis=1), "tiny", model())


def test_a_text_that_is_missing_stays_missing() -> None:
    """It does not become the text «None»."""
    nullable = {**SMALL["features"], "station": {**SMALL["features"]["station"], "nullable": True}}
    told = conform(rows(station=["n", None, "s", "s", "n"]), "tiny", model(features=nullable))
    assert told["station"].isna().sum() == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"time": np.array(["2013-01-01", "29999-01-01", "2013-01-03", "2013-01-04", "2013-01-05"], "datetime64[s]")}, "time is no local time: its year is beyond 9999 in 1 row (first: row 2); were milliseconds taken for seconds?"),
        ({"pressure": list("abcde")}, "pressure is no number: could not convert string to float: 'a'"),
        ({"starts": [1, 2.5, 3, 4, 0.5]}, "starts is no integer in 2 rows (first: row 2), as 2.5"),
        ({"starts": [1, 2, 3, 4, float("inf")]}, "starts is infinite in 1 row (first: row 5), as inf; give another value, or None where it is missing"),
        ({"pressure": [1, None, None, 4, 5]}, "pressure is missing in 2 rows (first: row 2), but params.yaml does not say"),
        ({"station": ["n", None, "s", "s", "n"]}, "station is missing in 1 row (first: row 2), but params.yaml does not say"),
        ({"label": [0, 1, None, 0, 1]}, "label is missing in 1 row (first: row 3); leave such rows out"),
        ({"time": [pd.NaT, *pd.date_range("2013-01-01", periods=4)]}, "time is missing in 1 row (first: row 1); leave such rows out"),
        ({"time": pd.date_range("2013-01-01", periods=5, tz="UTC")}, "time is no local time: "),
        ({"time": [1704067200000] * 5}, "time is no local time: it is a number, of which nobody knows the unit"),
        ({"pressure": pd.date_range("2013-01-01", periods=5)}, "pressure is no number: it is datetime64"),
        ({"station": ["n", "", "s", "", "n"]}, "station is empty in 2 rows (first: row 2), as ''; give another value, or None where it is missing"),
        ({"station": ["n", "n", "s", "x" * 201, "n"]}, "station is longer than 200 characters in 1 row (first: row 4), as 'xxx"),
        ({"pressure": [1, 2, -1, 4, 5]}, "pressure is below 0 in 1 row (first: row 3), as -1; widen its limits in params.yaml, or leave such rows out"),
        ({"hour": [0, 6, 12, 18, 24]}, "hour is above 23 in 1 row (first: row 5), as 24; widen"),
        ({"starts": [1, 2, 3, 4, 2**60]}, "starts is above 9.0072e+15 in 1 row (first: row 5)"),
        ({"vibration": [0.1, None, float("inf"), 0.4, 0.5]}, "vibration is infinite in 1 row (first: row 3), as inf; give"),
        ({"label": [0, 1, "one", 0, 1]}, "label is no class: a class is a whole number, a truth value or a text, the same throughout; it is text in row 3, whole number in row 1"),
        ({"label": [True, 1, 0, 0, 1]}, "label is no class: a class is a whole number, a truth value or a text, the same throughout; it is truth value in row 1, whole number in row 2"),
        ({"label": [0.0, 1.0, 0.5, 0.0, 1.0]}, "label is no class: a class is a whole number, a truth value or a text, the same throughout; it is fraction in row 3"),
        ({"label": [0.1, 0.2, 0.3, 0.4, 0.5]}, "label is no class: a class is a whole number, a truth value or a text; it is a fraction in row 1, 0.1; what is to be estimated as a number is task: regression"),
        ({"label": pd.date_range("2013-01-01", periods=5)}, "label is no class: a class is a whole number, a truth value or a text; it is a Timestamp in row 1"),
        ({"label": [b"a", b"b", b"a", b"b", b"a"]}, "label is no class: a class is a whole number, a truth value or a text; it is a bytes in row 1"),
        ({"label": np.array([0, 1, 0, 1, 2**64 - 1], dtype="uint64")}, "label is no class: "),
        ({"id": [None, *"bcde"]}, "id is missing in 1 row (first: row 1); leave such rows out"),
        ({"id": list("abbde")}, "id 'b' stands twice (rows 2, 3); it must name one row"),
        ({"id": [1, 2, 2, 3, 4]}, "id '2' stands twice (rows 2, 3); it must name one row"),
    ],
)  # fmt: skip
def test_rows_that_are_not_what_the_interface_asks_are_refused(changed: dict[str, Any], said: str) -> None:
    """Where the code is, and what is wrong with what it gave."""
    with pytest.raises(ModelCodeError) as caught:
        conform(rows(**changed), "tiny", model())
    assert str(caught.value).startswith(f"models/tiny/rows: {said}")


def test_columns_that_are_lacking_are_named() -> None:
    """All of them."""
    with pytest.raises(ModelCodeError) as caught:
        conform(rows().drop(columns=["hour", "id"]), "tiny", model())
    assert str(caught.value) == ("models/tiny/rows gives no column hour, id; params.yaml and the interface ask for it")


def test_a_fault_names_the_partition() -> None:
    """Where there is one."""
    with pytest.raises(ModelCodeError, match=r"models/tiny/rows, partition 2013-01: label is missing in 1 row"):
        conform(rows(label=[0, 1, None, 0, 1]), "tiny", model(), "2013-01")


CLASSES: list[Any] = [0, 1, 0, 1, 0]
NAMES = ["kept", "returned", "kept", "returned", "kept"]


@pytest.mark.parametrize(
    ("label", "dtype", "values"),
    [
        (pd.Series(CLASSES, dtype="Int64"), "int64", CLASSES),
        (pd.Series(CLASSES, dtype="int64[pyarrow]"), "int64", CLASSES),
        (pd.Series(CLASSES, dtype="uint8"), "int64", CLASSES),
        (pd.Series(CLASSES, dtype="float32"), "int64", CLASSES),
        (pd.Series(CLASSES, dtype="Float64"), "int64", CLASSES),
        (pd.Series(CLASSES, dtype=object), "int64", CLASSES),
        (pd.Series([Decimal(value) for value in CLASSES]), "int64", CLASSES),
        (pd.Series(CLASSES, dtype="boolean"), "bool", CLASSES),
        (pd.Series([bool(value) for value in CLASSES], dtype=object), "bool", CLASSES),
        (pd.Series(CLASSES).astype("category"), "int64", CLASSES),
        (pd.Series(NAMES, dtype="string"), "str", NAMES),
        (pd.Series(NAMES, dtype="string[pyarrow]"), "str", NAMES),
        (pd.Series(NAMES, dtype=object), "str", NAMES),
        (pd.Series(pd.Categorical(NAMES, categories=["exchanged", "kept", "returned"])), "str", NAMES),
        (pd.Series(pd.Categorical(NAMES, categories=["returned", "kept"], ordered=True)), "str", NAMES),
        (pd.Series(["nö", "ja, gern", "nö", "nö", "nö"]), "str", ["nö", "ja, gern", "nö", "nö", "nö"]),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")) or None,
)
def test_a_class_has_one_type_whatever_it_came_in(label: pd.Series[Any], dtype: str, values: list[Any]) -> None:
    """Else p_0 of one month is p_0.0 of the next, or a class that no row has is asked for."""
    told = conform(rows(label=label), "tiny", model())["label"]
    assert (str(told.dtype), told.tolist()) == (dtype, values)


@pytest.mark.parametrize(
    ("label", "dtype"),
    [
        (pd.Series(CLASSES, dtype="Int64"), "int64"),
        (pd.Series(CLASSES, dtype="boolean"), "int64"),
        (pd.Series([0.5] * 5, dtype="Float64"), "float64"),
        (pd.Series([0.5] * 5, dtype="float32"), "float64"),
        (pd.Series([Decimal("0.5")] * 5), "float64"),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")) or None,
)
def test_what_is_estimated_is_a_number(label: pd.Series[Any], dtype: str) -> None:
    """A whole one or a float, of 64 bits."""
    told = conform(rows(label=label), "tiny", model(task="regression", gate=GATE))["label"]
    assert (str(told.dtype), told.tolist()) == (dtype, [float(value) for value in label])


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (list("abcde"), "label is no number: it is text; a regression estimates numbers"),
        (["1", "2", "3", "4", "5"], "label is no number: it is text; a regression estimates numbers"),
        (pd.Series(list("abcde"), dtype="category"), "label is no number: it is text"),
        ([1, 2, float("-inf"), 4, 5], "label is no number: it is infinite in 1 row (first: row 3)"),
        (pd.date_range("2013-01-01", periods=5), "label is no number: it is datetime64"),
    ],
)
def test_what_cannot_be_estimated_is_told(label: Any, said: str) -> None:
    """Before anything is trained on it."""
    with pytest.raises(ModelCodeError) as caught:
        conform(rows(label=label), "tiny", model(task="regression", gate=GATE))
    assert str(caught.value).startswith(f"models/tiny/rows: {said}")


@pytest.mark.parametrize(
    ("codes", "texts"),
    [
        ([1, 49, 3, 4, 5], ["1", "49", "3", "4", "5"]),
        ([1.0, 49.0, 3.5, 4.0, None], ["1", "49", "3.5", "4", None]),
        (pd.array([1, 49, None, 4, 5], dtype="Int64"), ["1", "49", None, "4", "5"]),
        (pd.Series([1.0, 49.0, 1.0, 1.0, 1.0], dtype="category"), ["1", "49", "1", "1", "1"]),
        ([Decimal(1), Decimal("49.0"), Decimal("2.5"), 4, "x"], ["1", "49", "2.5", "4", "x"]),
        (pd.array(["a", None, "b", "c", "d"], dtype="string"), ["a", None, "b", "c", "d"]),
        ([True, False, None, True, True], ["True", "False", None, "True", "True"]),
    ],
)
def test_a_code_has_one_text_whatever_it_came_in(codes: Any, texts: list[str | None]) -> None:
    """49 and 49.0 are one category, or each would be unknown to the model of the other month."""
    nullable = {**SMALL["features"], "station": {**SMALL["features"]["station"], "nullable": True}}
    told = conform(rows(station=codes), "tiny", model(features=nullable))["station"]
    assert str(told.dtype) == "str"
    assert [None if pd.isna(value) else value for value in told] == texts


def test_numbers_come_in_any_type() -> None:
    """Nullable, Arrow's, of few bits, Decimal: float64, with NaN where they are missing."""
    for values in (
        pd.array([0.5, None, 1, 2, 3], dtype="Float64"),
        pd.Series([0.5, None, 1, 2, 3], dtype="float64[pyarrow]"),
        pd.Series([0.5, None, 1, 2, 3], dtype="float32"),
        [Decimal("0.5"), None, Decimal(1), Decimal(2), Decimal(3)],
    ):
        told = conform(rows(vibration=values), "tiny", model())["vibration"]
        assert (str(told.dtype), told.isna().tolist()) == ("float64", [False, True, False, False, False])
        assert told.dropna().tolist() == [0.5, 1.0, 2.0, 3.0]


# ── no time ───────────────────────────────────────────────────────────────────────────────────────


def test_rows_without_a_time_have_the_column_all_the_same() -> None:
    """With none in it: whatever reads rows finds the same columns."""
    undated = conform(rows().drop(columns="time"), "tiny", model(split={"by": "random", "holdout": 0.2}))
    assert str(undated["time"].dtype) == "datetime64[us]"
    assert undated["time"].isna().all()


def test_a_split_by_time_asks_for_a_time() -> None:
    """It says what to write where there is none."""
    with pytest.raises(ModelCodeError) as caught:
        conform(rows().drop(columns="time"), "tiny", model(), "2013-01")
    assert str(caught.value) == (
        "models/tiny/rows, partition 2013-01: the rows have no column time, and params.yaml splits by it. Give them their "
        "time, or, if they have none, say split: {by: random, holdout: 0.2}"
    )


def test_a_time_that_some_rows_lack_is_refused_whatever_the_split() -> None:
    """It is a mistake of these rows, and no model without a time."""
    some = rows(time=[pd.Timestamp("2013-01-01"), None, *pd.date_range("2013-01-02", periods=3)])
    with pytest.raises(ModelCodeError, match="time is missing in 1 row \\(first: row 2\\); leave such rows out"):
        conform(some, "tiny", model(split={"by": "random", "holdout": 0.2}))


# ── anomalies ─────────────────────────────────────────────────────────────────────────────────────

ANOMALY = {
    "task": "anomaly",
    "gate": {**SMALL["gate"], "loss": "average_precision", "floors": {}, "ceilings": {"alert_rate": 0.1}},
}


def test_rows_of_an_anomaly_model_need_no_label() -> None:
    """The column is there all the same, and nothing is in it."""
    told = conform(rows().drop(columns="label"), "tiny", model(**ANOMALY))["label"]
    assert (str(told.dtype), told.isna().all()) == ("float64", True)


@pytest.mark.parametrize(
    "marks",
    [[1, 0, None, 0, 1], [True, False, None, False, True], pd.array([1, 0, None, 0, 1], dtype="Int64")],
    ids=["numbers", "truth values", "nullable"],
)
def test_a_mark_of_an_anomaly_comes_in_any_type(marks: Any) -> None:
    """1.0, 0.0 or missing."""
    told = conform(rows(label=marks), "tiny", model(**ANOMALY))["label"]
    assert told.tolist()[:2] == [1.0, 0.0]
    assert told.isna().tolist() == [False, False, True, False, False]


def test_what_is_no_mark_of_an_anomaly_is_refused() -> None:
    """scikit-learn's own -1 and 1 mean the opposite."""
    with pytest.raises(ModelCodeError) as caught:
        conform(rows(label=[1, -1, 1, 1, -1]), "tiny", model(**ANOMALY), "2013-01")
    assert str(caught.value) == (
        "models/tiny/rows, partition 2013-01: label is no mark of an anomaly: 1 is an anomaly, 0 is none, missing is not "
        "known; it is -1 in 2 rows (first: row 2)"
    )


# ── other types ───────────────────────────────────────────────────────────────────────────────────

ABOUT = {"about": "x", "example": 0}
TYPES: dict[str, dict[str, Any]] = {
    "yes": {"type": "boolean", "about": "x", "example": True, "nullable": True},
    "due": {"type": "datetime", "about": "x", "example": "2024-01-01T00:00:00", "max": "2030-01-01T00:00:00",
            "timezone": "Europe/Berlin"},
    "message": {"type": "text", "about": "x", "example": "hello", "max_length": 30},
    "image": {"type": "vector", "length": 2, "max": 9, **ABOUT},
    "kind": {"type": "category", "about": "x", "example": "a"},
}  # fmt: skip
GIVEN: dict[str, Any] = {
    "yes": [True, False, None], "due": pd.to_datetime(["2024-07-01T12:00Z"] * 3), "message": ["a", "", "c"],
    "image": [[1, 2], np.array([3.0, 4.0]), (5, 6)], "kind": ["a", 49.0, "b"],
}  # fmt: skip


def typed(**changes: Any) -> pd.DataFrame:
    """Three rows with features of the other types, conformed."""
    head = {"id": list("abc"), "time": pd.date_range("2013-01-01", periods=3), "label": [0, 1, 0]}
    frame = pd.DataFrame({**head, **GIVEN, **changes})
    return conform(frame, "tiny", model(features=TYPES, evaluate={}))


def test_each_type_has_its_column_and_a_vector_several() -> None:
    """Truth values are 1 and 0, times are local, and a vector may come as its columns too."""
    rows = typed()
    assert list(rows.columns) == ["due", "kind", "message", "yes", "image_0", "image_1", "label", "time", "id"]
    assert rows["yes"].fillna(-1).tolist() == [1, 0, -1]
    assert rows["due"].astype(str).tolist() == ["2024-07-01 14:00:00"] * 3
    assert rows[["image_0", "image_1"]].to_numpy().tolist() == [[1, 2], [3, 4], [5, 6]]
    assert rows["kind"].tolist() == ["a", "49", "b"]
    frame = pd.DataFrame(
        {"id": ["a"], "time": [pd.Timestamp(2013, 1, 1)], "label": [0], "image_0": [1], "image_1": [2]}
    )
    wide = conform(frame, "tiny", model(features={"image": TYPES["image"]}, evaluate={}))
    assert wide[["image_0", "image_1"]].to_numpy().tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind": [[1, 2], "a", "b"]}, "kind is no category: it is a list in row 1, [1, 2]"),
        ({"kind": pd.to_datetime(["2024-01-01"] * 3)}, "kind is no category: it is datetime64"),
        ({"kind": ["a", dt.date(2024, 1, 1), "b"]}, "kind is no category: it is a date in row 2, 2024-01-01"),
        ({"message": ["a", 7, "b"]}, "message is no text: it is a int in row 2, 7"),
        (
            {"message": ["a", "b", "x" * 31]},
            "message is longer than 30 characters in 1 row (first: row 3), as one of 31; shorten it",
        ),
        ({"yes": [True, "true", None]}, "yes is no boolean: it is a str in row 2"),
        ({"yes": [1, 0, 2]}, "yes is no boolean: it is 2 in row 3; true and false are 1 and 0"),
        ({"due": [1, 2, 3]}, "due is no datetime: it is a number, of which nobody knows the unit"),
        ({"due": ["2024-01-01"] * 3}, "due is no datetime: it is text; use pd.to_datetime"),
        (
            {"due": pd.to_datetime(["2024-01-01", "2031-01-01", "2024-01-01"])},
            "due is after 2030-01-01T00:00:00 in 1 row (first: row 2), as 2031-01-01",
        ),
        ({"image": [[1, 2], [1], [1, 2]]}, "image is no vector: it has the shape (1,) in row 2; its length is 2"),
        ({"image": [[1, 2], "ab", [1, 2]]}, "image is no vector: it is a str in row 2, no list of 2 numbers"),
        ({"image": [[1, 2], [1, "x"], [1, 2]]}, "image is no vector: it has no numbers in row 2"),
        ({"image": [[1, 2], [1, None], [1, 2]]}, "image is no vector: its number 1 is missing in row 2"),
        ({"image": [[1, 2], [1, 10], [1, 2]]}, "image has a number above 9 in 1 row (first: row 2); widen its limits"),
        (
            {"image": [[1, 2], None, [1, 2]]},
            "image is missing in 1 row (first: row 2); say in params.yaml that it is nullable",
        ),
    ],
)
def test_a_value_that_is_not_of_its_type_is_told_with_its_row(changed: dict[str, Any], said: str) -> None:
    """And no text of a customer is in a message."""
    with pytest.raises(ModelCodeError) as caught:
        typed(**changed)
    assert said in str(caught.value)
    assert "xxxx" not in str(caught.value)


# ── several labels ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (rows(label=[[1, 2]] * 5), "label is a list in row 1"),
        (rows(label=pd.Series([np.array([1.0, 2.0])] * 5)), "label is a ndarray in row 1"),
        (rows(label=[1, {"wait": 1, "cost": 2}, 1, 1, 1]), "label is a dict in row 2"),
        (pd.concat([rows(), rows()[["label"]]], axis=1), "the columns label, label look like several labels"),
        (rows(label_wait=1.0, label_cost=2.0).drop(columns="label"), "the columns label_wait, label_cost look like"),
    ],
    ids=["lists", "arrays", "a dictionary", "two columns of a name", "two columns"],
)
@pytest.mark.parametrize("task", [{}, {"task": "regression", "gate": GATE}], ids=["classes", "numbers"])
def test_several_labels_are_refused_with_what_to_do(given: pd.DataFrame, said: str, task: dict[str, Any]) -> None:
    """A model each: never in the words of pandas."""
    with pytest.raises(ModelCodeError) as caught:
        conform(given, "tiny", model(**task), "2013-01")
    assert str(caught.value).startswith(f"models/tiny/rows, partition 2013-01: {said}")
    assert "write task: {" in str(caught.value)
    assert "else make a model each" in str(caught.value)


def test_a_feature_or_slice_may_be_called_as_a_label_is() -> None:
    """Where there is a label, what else the code gives is its affair."""
    features = {**SMALL["features"], "label_size": {"type": "number", "about": "x", "example": 1}}
    told = conform(rows(label_size=1.0, label_source="x"), "tiny", model(features=features))
    assert told["label"].tolist() == [0, 1, 0, 1, 0]


TAGS = {"task": {"classification": ["rain", "kind"]}}


def test_each_of_several_labels_is_a_column_of_its_own() -> None:
    """By the name that params.yaml has; one may be missing until it comes, in a type that has a word for it."""
    given = rows(rain=[1.0, np.nan, 0, 1, 0], kind=["a", "b", None, "a", "b"]).drop(columns="label")
    told = conform(given, "tiny", model(**TAGS))
    assert "label" not in told
    assert str(told["rain:label"].dtype) == "Int64"
    assert told["rain:label"].tolist() == [1, pd.NA, 0, 1, 0]
    assert told["kind:label"].isna().tolist() == [False, False, True, False, False]
    numbers = {"task": {"regression": ["rain", "kind"]}, "gate": GATE}
    told = conform(rows(rain=1.5, kind=2), "tiny", model(**numbers))
    assert [str(told[f"{name}:label"].dtype) for name in ("rain", "kind")] == ["float64", "int64"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rain": 1}, " gives no column kind, and params.yaml names rain, kind as the labels: give a column for each"),
        ({"rain": [1, None, 1, 1, 1], "kind": ["a", None, "b", "a", "b"]}, ": every label is missing in 1 row (first: row 2)"),
        ({"rain": [0.5, None, 1, 1, 1], "kind": "a"}, ": rain is no class: a class is a whole number, a truth value or a text"),
    ],
    ids=["one is not there", "a row without any", "a fraction"],
)  # fmt: skip
def test_what_is_wrong_with_several_labels_is_told(given: dict[str, Any], said: str) -> None:
    """With the label, and what to do."""
    with pytest.raises(ModelCodeError) as caught:
        conform(rows(**given), "tiny", model(**TAGS))
    assert str(caught.value).startswith(f"models/tiny/rows{said}")
