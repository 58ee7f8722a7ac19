"""Feature types: from JSON to the table that a pipeline is given, and back."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from tasks.runtime import feature_types, request_schema

NUMBER: dict[str, Any] = {"type": "number", "about": "x", "example": 0.0}
FEATURES: dict[str, dict[str, Any]] = {
    "Torque [Nm]": NUMBER,
    "due": {"type": "datetime", "about": "x", "example": "2024-01-31T12:00:00", "min": "2020-01-01T00:00:00",
            "timezone": "Europe/Berlin", "nullable": True},
    "image": {"type": "vector", "about": "x", "example": 0.5, "length": 3, "max": 9.0, "nullable": True},
    "message": {"type": "text", "about": "x", "example": "hello", "max_length": 300},
    "urgent": {"type": "boolean", "about": "x", "example": True, "nullable": True},
}  # fmt: skip
Row = request_schema.request_row(FEATURES)
GOOD = {"Torque [Nm]": 40.5, "due": "2024-07-01T12:00:00Z", "image": [1, 2.5, 3], "message": "", "urgent": False}


def parsed(**changed: Any) -> dict[str, Any]:
    """A row as it comes in a request, parsed."""
    return dict(Row.model_validate_json(json.dumps({**GOOD, **changed})).__dict__)


@pytest.mark.parametrize(
    ("given", "local"),
    [
        ("2024-07-01T12:00:00Z", "2024-07-01T14:00:00"),
        ("2024-01-01T12:00:00.5+00:00", "2024-01-01T13:00:00.500000"),
        ("2024-01-01 12:00:00", "2024-01-01T12:00:00"),
        ("2024-12-31t23:30:00-05:00", "2025-01-01T05:30:00"),
    ],
)
def test_a_time_becomes_local_time(given: str, local: str) -> None:
    """With an offset it is converted; without one it is local already."""
    assert parsed(due=given)["due"] == datetime.fromisoformat(local)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("due", "2024-01-01", "is no time: write it as"),
        ("due", "1700000000", "is no time: write it as"),
        ("due", 1700000000, "is no time, but int"),
        ("due", "2024-02-30T00:00:00", "day is out of range"),
        ("due", "2019-12-31T22:59:59Z", "at or after 2020-01-01T00:00:00"),
        ("due", "0001-01-01T00:00:00+23:00", "outside of the years"),
        ("urgent", 1, "valid boolean"),
        ("urgent", "true", "valid boolean"),
        ("image", [1, 2], "at least 3 items"),
        ("image", [1, 2, 3, 4], "at most 3 items"),
        ("image", [1, 2, None], "valid number"),
        ("image", [1, 2, 10], "less than or equal to 9"),
        ("image", "123", "valid"),
        ("message", "x" * 301, "at most 300 characters"),
        ("message", None, "valid string"),
        ("Torque [Nm]", True, "valid number"),
    ],
)
def test_what_is_not_of_its_type_is_refused(field: str, value: Any, problem: str) -> None:
    """Nothing is converted in silence; the place is the feature's, by its own name."""
    with pytest.raises(ValidationError) as error:
        parsed(**{field: value})
    (fault, *_) = error.value.errors()
    assert fault["loc"][0] == field
    assert problem in fault["msg"]


def test_a_table_and_requests_are_each_other() -> None:
    """Rows as they are posted, the table that a pipeline gets, and the same rows again; missing stays missing."""
    rows = [parsed(), parsed(due=None, urgent=None, image=None, message="ärger 温")]
    table = feature_types.frame({name: [row[name] for row in rows] for name in FEATURES}, FEATURES)
    assert list(table.columns) == feature_types.table_columns(FEATURES)
    assert table.columns[-3:].tolist() == ["image_0", "image_1", "image_2"]
    assert {str(type_) for type_ in table.dtypes} == {"float64", "datetime64[us]", "str"}
    assert table["urgent"].tolist()[0] == 0.0
    assert table.iloc[1].isna().sum() == 5
    posted = feature_types.requests(table, FEATURES)
    assert posted[0] == {**GOOD, "due": "2024-07-01T14:00:00", "image": [1.0, 2.5, 3.0]}
    assert [name for name, value in posted[1].items() if value is None] == ["due", "image", "urgent"]
    again = [dict(Row.model_validate_json(json.dumps(row)).__dict__) for row in posted]
    assert again == rows
    flat = {name: [feature_types.flat(row, FEATURES)[name] for row in rows] for name in table.columns}
    pd.testing.assert_frame_equal(feature_types.table(flat, FEATURES), table)


def test_an_explanation_has_few_parts_at_any_width() -> None:
    """Each feature by itself while they are few; then groups, then neighbours; a single group is cut."""
    numbers = {f"n{i}": NUMBER for i in range(64)}
    assert feature_types.players(numbers) == {name: [name] for name in numbers}
    pixels = {f"p{i}": {**NUMBER, "group": "p{0..783}"} for i in range(784)}
    parts = feature_types.players(pixels)
    assert len(parts) == 64
    assert next(iter(parts)) == "p0 … p11"
    assert [column for columns in parts.values() for column in columns] == list(pixels)
    both = feature_types.players({**pixels, "age": NUMBER})
    assert {name: len(columns) for name, columns in both.items()} == {"p{0..783}": 784, "age": 1}
    assert len(feature_types.players({f"n{i}": NUMBER for i in range(500)})) == 64
    with_vector = feature_types.players({"age": NUMBER, "image": FEATURES["image"]})
    assert with_vector == {"age": ["age"], "image": ["image_0", "image_1", "image_2"]}


def test_an_integer_is_posted_whole() -> None:
    """As a client would."""
    table = pd.DataFrame({"hour": [7.0, np.nan]})
    posted = feature_types.requests(table, {"hour": {**NUMBER, "type": "integer"}})
    assert json.dumps(posted) == '[{"hour": 7}, {"hour": null}]'


def test_a_hash_in_the_log_is_not_taken_for_a_text() -> None:
    """A row of which the log keeps a hash cannot be asked again."""
    hashed = feature_types.for_log(GOOD, ["message"])
    assert feature_types.is_whole(GOOD, FEATURES)
    assert not feature_types.is_whole(hashed, FEATURES)
    assert feature_types.for_log({"message": None}, ["message"]) == {"message": None}
    assert {**hashed, "message": ""} == GOOD
