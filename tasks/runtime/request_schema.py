"""Request schema: a typed model of a request's row, made from the features of params.yaml, as plain dicts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

LONGEST = 200
"""Characters of a category."""

EXACT = 2**53
"""Above this, a whole number would not survive as the float64 that it becomes."""

AHEAD = "EVERGREEN_MAX_AHEAD_S"
"""The setting: so far may the `time` of a request be ahead of the clock here. Clocks differ by less; what is further
ahead is a mistake that monitoring would take for the newest day until that day comes."""


def max_ahead_s() -> float:
    """The value of that setting, in seconds."""
    return float(os.environ.get(AHEAD) or 300)


def request_row(features: Mapping[str, Mapping[str, Any]]) -> type[BaseModel]:
    """The model of one row: a field per feature, in order, and no other.

    Nothing is converted: a number in quotes, a truth value for a number, 3.5 for an integer, NaN and infinity are
    refused; 17.0 is an integer, as in JSON Schema. A nullable feature may be null or left out.

    Args:
        features: name → type (category, integer or number), about, example; optional: unit, min, max, nullable.
    """
    fields: dict[str, Any] = {name: _field(feature) for name, feature in features.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", 'Field name ".*" .* shadows an attribute')  # a feature may be called copy
        return create_model("Row", __config__=strict(example_row(features)), **fields)


def strict(example: Any) -> ConfigDict:
    """How a part of a request is read; nothing of what it held is in a message."""
    return ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        protected_namespaces=(),
        json_schema_extra={"example": example},
    )


def example_row(features: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A full row that is valid: for OpenAPI, and to warm a service up."""
    return {name: _typed(feature, feature["example"]) for name, feature in features.items()}


def _field(feature: Mapping[str, Any]) -> tuple[Any, Any]:
    """Annotation and default of one field."""
    kind: Any = {"category": str, "integer": int, "number": float}[feature["type"]]
    limited: Any = Annotated[kind, Field(**limits(feature))]
    if kind is int:
        limited = Annotated[limited, BeforeValidator(lambda value: _whole(value) if type(value) is float else value)]
    about = feature["about"] + (f" [{feature['unit']}]" if feature.get("unit") else "")
    described: dict[str, Any] = {"description": about, "examples": [_typed(feature, feature["example"])]}
    if feature.get("nullable"):
        return limited | None, Field(default=None, **described)
    return limited, Field(**described)


def limits(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Constraints for pydantic: `min_length` and `max_length` of a category, `ge` and `le` of a number."""
    if feature["type"] == "category":
        return {"min_length": 1, "max_length": LONGEST}
    low, high = feature.get("min"), feature.get("max")
    if feature["type"] == "integer":
        return {"ge": -EXACT if low is None else _whole(low), "le": EXACT if high is None else _whole(high)}
    return {name: limit for name, limit in (("ge", low), ("le", high)) if limit is not None}


def _typed(feature: Mapping[str, Any], value: Any) -> str | int | float | None:
    return _whole(value) if feature["type"] == "integer" and value is not None else value


def _whole(value: float) -> int | float:
    """An int, where a float is a whole number: 7, not 7.0."""
    return int(value) if float(value).is_integer() else value
