"""Types of a model's rows, as a module that an editor and mypy understand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PYTHON = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list[Any]", "null": "None"}


def module(model: str, schema: dict[str, Any], release: str) -> str:
    """The text of a module with a TypedDict for the rows of a model."""
    lines = [
        f'"""Rows of {model}, as release {release} takes them; written by `python -m evergreen_client types`."""',
        "",
        "from typing import Any, NotRequired, TypedDict",
        "",
        f"{_class_name(model)} = TypedDict(",
        f'    "{_class_name(model)}",',
        "    {",
        *_fields(schema),
        "    },",
        ")",
        "",
    ]
    return "\n".join(lines)


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    for name, field in schema["properties"].items():
        about = " ".join(str(field.get("description", "")).split())
        limits = ", ".join(f"{word} {field[key]}" for key, word in (("minimum", "≥"), ("maximum", "≤")) if key in field)
        type_ = _type(field)
        written = type_ if name in required else f"NotRequired[{type_}]"
        yield f"        {name!r}: {written},  # {about}{f' ({limits})' if limits else ''}".rstrip(" #")


def _type(field: dict[str, Any]) -> str:
    """Of one field; null where it may be missing."""
    choices = field.get("anyOf") or [field]
    return " | ".join(dict.fromkeys(PYTHON.get(each.get("type"), "Any") for each in choices))


def _class_name(model: str) -> str:
    return "".join(part.capitalize() for part in model.split("_")) + "Row"
