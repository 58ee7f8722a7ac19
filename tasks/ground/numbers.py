"""Numbers as they are stored: rounded to significant digits, as small losses count as much as great ones."""

from __future__ import annotations

import math
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
