"""Numbers as they are stored: rounded to significant digits, as small losses count as much as great ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Any

DIGITS = 9


def short(value: Any, of: float = 0.0) -> float:
    """Nine digits, and no -0.0: without what a sum may differ in between two machines.

    Args:
        value: finite.
        of: the number that it is a difference of, if it is one: the digits are those of that number.
    """
    value = float(value)
    return (round(value, DIGITS - 1 - math.floor(math.log10(abs(of)))) if of else float(f"{value:.{DIGITS}g}")) + 0.0


def text(value: Any) -> str:
    """A value as text: 1 and 1.0 are the same."""
    if not isinstance(value, float):
        return str(value)
    return str(int(value)) if value.is_integer() else repr(float(value))


def plain(value: Any, digits: int = DIGITS) -> Any:
    """A value as JSON has it: times as texts, floats to so many digits, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry, digits) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, digits) for entry in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") + 0.0 if math.isfinite(value) else None
    return value
