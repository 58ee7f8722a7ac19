"""Expressions of a policy, in CEL (Common Expression Language): compiled, tried on an example, and asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import celpy
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.celtypes import BoolType, DoubleType, IntType, MapType, StringType, TimestampType, Value
from celpy.evaluation import CELEvalError, base_functions

from tasks.ground.errors import PolicyError, did_you_mean


class _AnyCheck(MapType):
    """Checks of an example verdict: whichever is asked for has a value."""

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, _: Any) -> Any:
        return DoubleType(0.5)

    def get(self, *_: Any) -> Any:
        return DoubleType(0.5)


def _comparing(operator: str) -> Callable[[Value, Value], Any]:
    """An operator that compares also a whole number with a float, as CEL does and cel-python 0.5 in part."""

    def compare(left: Value, right: Value) -> Any:
        if isinstance(left, DoubleType) and isinstance(right, IntType):
            right = DoubleType(right)
        elif isinstance(left, IntType) and isinstance(right, DoubleType):
            left = DoubleType(left)
        return base_functions[operator](left, right)

    return compare


_COMPARISONS = {operator: _comparing(operator) for operator in ("_<_", "_<=_", "_>_", "_>=_", "_==_", "_!=_")}


@dataclass(frozen=True)
class Expression:
    """A condition that holds or not."""

    where: str
    text: str
    _program: Any

    def holds(self, facts: Mapping[str, Any], now: datetime, *, any_check: bool = False) -> bool:
        """Whether it holds of JSON `facts`, whose `now` is an instant; `any_check`: as if each check had a value.

        Raises:
            PolicyError: it asks for what is not there, or gives no truth value: a rule that fails approves nothing.
        """
        given: dict[str, Any] = {name: json_to_cel(value) for name, value in facts.items()}
        given["now"] = TimestampType(now.astimezone(UTC))
        if any_check:
            given["verdict"][StringType("checks")] = _AnyCheck()
        try:
            value = self._program.evaluate(given)
        except CELEvalError as error:
            raise PolicyError(f"{self.where}: {self.text!r} cannot be computed: {_reason(error, facts)}") from None
        if not isinstance(value, BoolType):
            raise PolicyError(f"{self.where}: {self.text!r} gives {value!r}; a condition gives true or false")
        return bool(value)


def compiled(where: str, text: str) -> Expression:
    """An expression that was read.

    Raises:
        PolicyError: it is no CEL.
    """
    environment = celpy.Environment()
    try:
        return Expression(where, text, environment.program(environment.compile(text), functions=_COMPARISONS))
    except CELParseError as error:
        at = f", column {error.column}" if error.column else ""
        raise PolicyError(
            f"{where}: {text!r} is no CEL expression{at}. An example: model == 'late' && verdict.moves.most > 0.2"
        ) from None


def _reason(error: CELEvalError, facts: Mapping[str, Any]) -> str:
    """The library's first words, which name what is missing; not the activation that it prints."""
    words = str(error.args[0]).partition(" (in activation")[0]
    name = words.rpartition("'")[0].rpartition("'")[2]
    verdict = facts.get("verdict", {})
    names = [*facts, "now", *verdict, *verdict.get("checks", {}), *verdict.get("moves", {})]
    if "no such" in words and "verdict" in facts:
        words += "; of a check that may be missing ask has(verdict.checks.NAME) first"
    return f"{words}{did_you_mean(name, names) if name and name not in names else ''}"
