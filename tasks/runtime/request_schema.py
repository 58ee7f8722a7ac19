"""Request schema: a typed model of a request's row, made from the features of params.yaml, as plain dicts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model
from pydantic_core import PydanticCustomError

from tasks.runtime import feature_types

LONGEST = 200
"""Characters of a category."""

LONGEST_TEXT = 20_000
"""Characters of a text, if params.yaml does not say how many."""

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
        features: name → type (feature_types.py has them), about, example; optional: unit, min, max, nullable,
            max_length (of a text), length (of a vector), timezone (of a datetime).
    """
    fields: dict[str, Any] = {name: _field(name, feature) for name, feature in features.items()}
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


def _field(name: str, feature: Mapping[str, Any]) -> tuple[Any, Any]:
    """Annotation and default of one field."""
    limited = _limited(feature)
    about = feature["about"] + (f" [{feature['unit']}]" if feature.get("unit") else "")
    described: dict[str, Any] = {"title": name, "description": about, "examples": [_typed(feature, feature["example"])]}
    if feature.get("nullable"):
        return limited | None, Field(default=None, **described)
    return limited, Field(**described)


def _limited(feature: Mapping[str, Any]) -> Any:
    """The annotation of a value that is not missing."""
    type_ = feature["type"]
    if type_ == "datetime":
        return Annotated[Any, BeforeValidator(_time_of(feature)), WithJsonSchema(_time_schema(feature))]
    if type_ == "vector":
        element: Any = Annotated[float, Field(**limits({**feature, "type": "number"}))]
        return Annotated[list[element], Field(min_length=feature["length"], max_length=feature["length"])]
    kind: Any = {"integer": int, "number": float, "boolean": bool}.get(type_, str)
    limited: Any = Annotated[kind, Field(**limits(feature))]
    if kind is int:
        limited = Annotated[limited, BeforeValidator(lambda value: _whole(value) if type(value) is float else value)]
    return limited


def _time_of(feature: Mapping[str, Any]) -> Callable[[Any], datetime | None]:
    """What makes a local time of a request's value."""
    zone = feature.get("timezone") or "UTC"
    low, high = (None if feature.get(name) is None else _time(feature, feature[name]) for name in ("min", "max"))

    def time(value: Any) -> datetime | None:
        if value is None and feature.get("nullable"):
            return None
        try:
            moment = feature_types.local_time(value, zone)
        except ValueError as error:
            raise PydanticCustomError("datetime", "{problem}", {"problem": str(error)}) from None
        for limit, is_beyond, word in ((low, low and moment < low, "after"), (high, high and moment > high, "before")):
            if limit and is_beyond:
                message = "Input should be at or {word} {limit}"
                raise PydanticCustomError("datetime", message, {"word": word, "limit": limit.isoformat()})
        return moment

    return time


def _time(feature: Mapping[str, Any], value: Any) -> datetime:
    return feature_types.local_time(value, feature.get("timezone") or "UTC")


def _time_schema(feature: Mapping[str, Any]) -> dict[str, Any]:
    zone = feature.get("timezone") or "UTC"
    return {"type": "string", "format": "date-time", "x-evergreen-local-time": zone}


def limits(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Constraints for pydantic: `min_length` and `max_length` of a category or text, `ge` and `le` of a number."""
    if feature["type"] == "category":
        return {"min_length": 1, "max_length": LONGEST}
    if feature["type"] == "text":
        return {"max_length": feature.get("max_length") or LONGEST_TEXT}
    if feature["type"] in ("boolean", "datetime"):
        return {}
    low, high = feature.get("min"), feature.get("max")
    if feature["type"] == "integer":
        return {"ge": -EXACT if low is None else _whole(low), "le": EXACT if high is None else _whole(high)}
    return {name: limit for name, limit in (("ge", low), ("le", high)) if limit is not None}


def _typed(feature: Mapping[str, Any], value: Any) -> Any:
    """An example as a client would post it; one number stands for all of a vector's."""
    if value is None:
        return None
    if feature["type"] == "vector":
        return value if isinstance(value, list) else [value] * feature["length"]
    return _whole(value) if feature["type"] == "integer" else value


def _whole(value: float) -> int | float:
    """An int, where a float is a whole number: 7, not 7.0."""
    return int(value) if float(value).is_integer() else value
