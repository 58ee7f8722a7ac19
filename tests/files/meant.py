"""The table that each writer was given: a column per kind of value, three rows; and how a suite declares the column."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

BERLIN = ZoneInfo("Europe/Berlin")
BIG = 2**53 + 1

COLUMNS: dict[str, tuple[str, str, list[Any]]] = {
    "integer": ("int64", "whole numbers", [1, -2, 3]),
    "integer_missing": ("Int64", "whole numbers, one missing", [1, None, 3]),
    "number": ("float64", "numbers, one missing", [0.1, None, -2.5e-7]),
    "text": ("str", "text with comma, quotation mark, line break, ü", ["plain", 'a, "b"', "two\nlines, ü"]),
    "text_missing": ("str", "text, one empty, one missing", ["x", "", None]),
    "code": ("str", "codes held as text («00123»)", ["00123", "49", "7"]),
    "code_as_number": ("str", "codes held as whole numbers, one missing", [49, None, 7]),
    "boolean": ("bool", "true, false", [True, False, True]),
    "boolean_missing": ("boolean", "true, false, one missing", [True, None, False]),
    "date": ("datetime64[us]", "days, one missing", [date(2024, 2, 29), None, date(1969, 7, 20)]),
    "naive": (
        "datetime64[us]",
        "local times, one missing",
        [datetime(2024, 4, 1, 8), None, datetime(2024, 4, 1, 8, 0, 0, 123456)],
    ),
    "zoned": (
        "datetime64[us, UTC]",
        "instants (Europe/Berlin), one missing",
        [datetime(2024, 4, 1, 8, tzinfo=BERLIN), None, datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN)],
    ),
    "decimal": ("float64", "decimals of two digits, one missing", [Decimal("12.30"), None, Decimal("-0.07")]),
    "category": ("str", "a category (dictionary), one missing", ["red", None, "red"]),
    "large": ("int64", "whole numbers from 2⁵³", [BIG, 1, -BIG]),
    "large_missing": ("Int64", "whole numbers from 2⁵³, one missing", [BIG, None, -BIG]),
    "time": ("str", "times of day, one missing", [time(8, 30), None, time(23, 59, 59)]),
    "all_missing": ("float64", "nothing but missing", [None, None, None]),
    "key": ("int64", "the key (in pandas: the index)", [7, 8, 9]),
    "nested": ("str", "lists", [[1, 2], None, [3]]),
}
"""Column → the type that a suite declares for it, what the page says of it, and what the writer held."""

DECLARED = {name: type_ for name, (type_, _, _) in COLUMNS.items()}
ABOUT = {name: about for name, (_, about, _) in COLUMNS.items()}
GIVEN = {name: values for name, (_, _, values) in COLUMNS.items()}


def meant(column: str) -> list[Any]:
    """A column's values as they are to be read."""
    made: dict[str, Any] = {
        "code_as_number": str,
        "date": lambda day: datetime(day.year, day.month, day.day),
        "zoned": lambda instant: instant.astimezone(UTC),
        "decimal": float,
        "time": lambda clock: clock.isoformat(),
        "nested": str,
    }
    return [None if value is None else made.get(column, lambda v: v)(value) for value in GIVEN[column]]
