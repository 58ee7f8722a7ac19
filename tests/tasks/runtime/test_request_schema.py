"""What a request's row must be; test_predictor.py has what a whole request must be, and any JSON."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from tasks.ground import params
from tasks.runtime import request_schema

FEATURES = {
    "carrier": {"type": "category", "about": "Carrier", "example": "UA"},
    "hour": {"type": "integer", "about": "Hour", "unit": "h", "example": 17.0, "min": 0.0, "max": 23.0},
    "distance": {"type": "number", "about": "Distance", "unit": "miles", "example": 1400, "min": 0},
    "temp": {"type": "number", "about": "Temperature", "example": None, "nullable": True},
    "gate": {"type": "category", "about": "Gate", "example": "A1", "nullable": True},
}
Row = request_schema.request_row(FEATURES)
GOOD = {"carrier": "UA", "hour": 17, "distance": 1400.5, "temp": 70, "gate": "A1"}


def refused(**changed) -> list[tuple[str, str]]:
    """Field and kind of each fault of a row, as it comes in a request."""
    with pytest.raises(ValidationError) as error:
        Row.model_validate_json(json.dumps({**GOOD, **changed}))
    return [(str(fault["loc"][-1]), fault["type"]) for fault in error.value.errors()]


def test_a_good_row_is_taken_as_it_is():
    """A whole number is fine for a number; nothing else is converted."""
    assert Row.model_validate_json(json.dumps(GOOD)).model_dump() == GOOD


def test_a_feature_may_have_any_name():
    """In any script, and also one that pydantic has for a method of its own."""
    names = ["Torque [Nm]", "温度", "a.b", 'a"b', "copy", "schema", "class"]
    row = request_schema.request_row(dict.fromkeys(names, FEATURES["distance"]))
    given = dict.fromkeys(names, 2.5)
    assert row.model_validate_json(json.dumps(given)).__dict__ == given
    assert list(row.model_json_schema()["properties"]) == names


def test_a_nullable_feature_may_be_null_or_left_out():
    """Missing is a value that models know."""
    for row in ({**GOOD, "temp": None, "gate": None}, {k: v for k, v in GOOD.items() if k not in ("temp", "gate")}):
        taken = Row.model_validate_json(json.dumps(row)).model_dump()
        assert (taken["temp"], taken["gate"]) == (None, None)


@pytest.mark.parametrize("field", ["carrier", "hour", "distance"])
def test_other_features_must_be_there(field):
    """Neither null nor absence is guessed away."""
    assert [name for name, _ in refused(**{field: None})] == [field]
    with pytest.raises(ValidationError, match="Field required"):
        Row.model_validate_json(json.dumps({k: v for k, v in GOOD.items() if k != field}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("carrier", 1), ("carrier", ""), ("carrier", "x" * 201), ("carrier", ["UA"]),
        ("hour", 3.5), ("hour", "17"), ("hour", True), ("hour", 24), ("hour", -1),
        ("distance", "1400"), ("distance", True), ("distance", -0.1), ("distance", float("nan")),
        ("distance", float("inf")), ("temp", float("-inf")), ("temp", "warm"), ("temp", 10**400), ("gate", 3),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused_by_name(field, value):
    """Each fault names its field, and only that."""
    assert {name for name, _ in refused(**{field: value})} == {field}


def test_an_integer_without_limits_stays_exact_as_float64():
    """A whole number that float64 would round is refused rather than changed."""
    row = request_schema.request_row({"n": {"type": "integer", "about": "n", "example": 1}})
    assert row(n=2**53).model_dump() == {"n": 2**53}
    with pytest.raises(ValidationError):
        row(n=2**53 + 1)


def test_an_unknown_field_is_refused():
    """A misspelt nullable feature would otherwise count as missing."""
    assert refused(tmep=3) == [("tmep", "extra_forbidden")]


def test_the_description_tells_units_and_limits():
    """A reader of the OpenAPI page needs no other document."""
    hour = Row.model_json_schema()["properties"]["hour"]
    expected = {"type": "integer", "minimum": 0, "maximum": 23, "description": "Hour [h]", "examples": [17]}
    assert hour.items() >= expected.items()


@pytest.mark.parametrize("model", params.load().models.values(), ids=list(params.load().models))
def test_the_example_of_every_shipped_model_is_valid(model):
    """It is full, in the order of params.yaml, and passes its own schema."""
    features = {name: feature.model_dump() for name, feature in model.features.items()}
    example = request_schema.example_row(features)
    assert list(example) == list(features)
    assert request_schema.request_row(features).model_json_schema()["example"] == example
    assert request_schema.request_row(features).model_validate_json(json.dumps(example)).model_dump() == example


def test_a_schema_calls_features_as_the_table_does() -> None:
    """Pydantic's own titles are words of Python's: «Due At» of `due at`, «Due.At» of `due.at`."""
    number = {"type": "number", "about": "Hours", "example": 1.0}
    schema = request_schema.request_row({"due.at": number, "torque [Nm]": number}).model_json_schema()
    assert {name: each["title"] for name, each in schema["properties"].items()} == {
        "due.at": "due.at",
        "torque [Nm]": "torque [Nm]",
    }
