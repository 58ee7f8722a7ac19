"""Expressions of a policy, in CEL (Common Expression Language): compiled, tried on an example, and asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import celpy
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.celtypes import BoolType, TimestampType
from celpy.evaluation import CELEvalError

from tasks.ground.errors import PolicyError, did_you_mean


@dataclass(frozen=True)
class Expression:
    """A condition that holds or not."""

    where: str
    text: str
    _program: Any

    def holds(self, facts: Mapping[str, Any], now: datetime) -> bool:
        """Whether it holds of JSON `facts`, whose `now` is an instant.

        Raises:
            PolicyError: it asks for what is not there, or gives no truth value: a rule that fails approves nothing.
        """
        given = {name: json_to_cel(value) for name, value in facts.items()}
        given["now"] = TimestampType(now.astimezone(UTC))
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
        return Expression(where, text, environment.program(environment.compile(text)))
    except CELParseError as error:
        at = f", column {error.column}" if error.column else ""
        raise PolicyError(
            f"{where}: {text!r} is no CEL expression{at}. An example: model == 'late' && verdict.moves.most > 0.2"
        ) from None


def _reason(error: CELEvalError, facts: Mapping[str, Any]) -> str:
    """The library's first words, which name what is missing; not the activation that it prints."""
    words = str(error.args[0]).partition(" (in activation")[0]
    name = words.rpartition("'")[0].rpartition("'")[2]
    known = [*facts, "now", *facts.get("verdict", {})]
    return f"{words}{did_you_mean(name, known) if name and name not in known else ''}"
