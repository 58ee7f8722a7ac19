"""How numbers are written down. Small losses count as much as great ones: digits are kept, not decimals."""

from __future__ import annotations

import math
from typing import Any

DIGITS = 9


def short(value: Any, of: float = 0.0) -> float:
    """Nine digits, and no -0.0: what a sum may differ in between two machines is left out.

    Args:
        value: finite.
        of: what it is a difference of, if it is one: the digits are those of this, and what is less is 0.
    """
    value = float(value)
    return (round(value, DIGITS - 1 - math.floor(math.log10(abs(of)))) if of else float(f"{value:.{DIGITS}g}")) + 0.0


def text(value: Any) -> str:
    """A value as text: 1 and 1.0 are the same, however many digits they have."""
    if not isinstance(value, float):
        return str(value)
    return str(int(value)) if value.is_integer() else repr(float(value))
