"""The table that each writer was given: a column per kind of value, three rows; and how a suite declares the column."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

BERLIN = ZoneInfo("Europe/Berlin")
BIG = 2**53 + 1

GIVEN: dict[str, list[Any]] = {
    "integer": [1, -2, 3],
    "integer_missing": [1, None, 3],
    "number": [0.1, None, -2.5e-7],
    "text": ["plain", 'a, "b"', "two\nlines, ü"],
    "text_missing": ["x", "", None],
    "code": ["00123", "49", "7"],
    "code_as_number": [49, None, 7],
    "boolean": [True, False, True],
    "boolean_missing": [True, None, False],
    "date": [date(2024, 2, 29), None, date(1969, 7, 20)],
    "naive": [datetime(2024, 4, 1, 8), None, datetime(2024, 4, 1, 8, 0, 0, 123456)],
    "zoned": [datetime(2024, 4, 1, 8, tzinfo=BERLIN), None, datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN)],
    "decimal": [Decimal("12.30"), None, Decimal("-0.07")],
    "category": ["red", None, "red"],
    "large": [BIG, 1, -BIG],
    "large_missing": [BIG, None, -BIG],
    "time": [time(8, 30), None, time(23, 59, 59)],
    "all_missing": [None, None, None],
    "key": [7, 8, 9],
    "nested": [[1, 2], None, [3]],
}
"""Column → what the writer held."""

DECLARED = {
    "integer": "int64",
    "integer_missing": "Int64",
    "number": "float64",
    "text": "str",
    "text_missing": "str",
    "code": "str",
    "code_as_number": "str",
    "boolean": "bool",
    "boolean_missing": "boolean",
    "date": "datetime64[us]",
    "naive": "datetime64[us]",
    "zoned": "datetime64[us, UTC]",
    "decimal": "float64",
    "category": "str",
    "large": "int64",
    "large_missing": "Int64",
    "time": "str",
    "all_missing": "float64",
    "key": "int64",
    "nested": "str",
}
"""Column → the type that a suite declares for it."""

ABOUT = {
    "integer": "whole numbers",
    "integer_missing": "whole numbers, one missing",
    "number": "numbers, one missing",
    "text": "text with comma, quotation mark, line break, ü",
    "text_missing": "text, one empty, one missing",
    "code": "codes held as text («00123»)",
    "code_as_number": "codes held as whole numbers, one missing",
    "boolean": "true, false",
    "boolean_missing": "true, false, one missing",
    "date": "days, one missing",
    "naive": "local times, one missing",
    "zoned": "instants (Europe/Berlin), one missing",
    "decimal": "decimals of two digits, one missing",
    "category": "a category (dictionary), one missing",
    "large": "whole numbers from 2⁵³",
    "large_missing": "whole numbers from 2⁵³, one missing",
    "time": "times of day, one missing",
    "all_missing": "nothing but missing",
    "key": "the key (in pandas: the index)",
    "nested": "lists",
}
"""Column → what the page says of it."""


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
