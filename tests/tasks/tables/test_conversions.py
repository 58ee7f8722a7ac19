"""Columns of a file as the declared types: what loses nothing is converted, all else is refused."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from tasks.tables import conversions
from tasks.tables.contract import TYPES, Dialect

BERLIN = pa.timestamp("us", tz="Europe/Berlin")
EIGHT = datetime(2024, 4, 1, 8)


def converted(values: list[Any], found: Any, type_: str) -> list[Any] | str:
    """The values as the declared type, or what is said of the first that is refused."""
    column = pa.chunked_array([pa.array(values[:1], found), pa.array(values[1:], found)], found)
    got, refused = conversions.convert(column, type_)
    if refused is not None:
        return conversions.fault(column, type_, refused, [""], Dialect())
    assert got.type == conversions.arrow_type(type_)
    values = got.to_pylist()
    return [value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in values]


@pytest.mark.parametrize(
    ("values", "found", "type_", "expected"),
    [
        ([1, None], pa.uint8(), "Int64", [1, None]),
        ([1.0, 2.0], pa.float32(), "int64", [1, 2]),
        ([1.0, float("nan")], pa.float64(), "Int64", [1, None]),
        ([Decimal("2.00")], pa.decimal128(38, 2), "int64", [2]),
        (["7", " +8", "009", "2.0", "1e5", "1e+05", "0x1F"], pa.string(), "int64", [7, 8, 9, 2, 100000, 100000, 31]),
        (["9223372036854775807"], pa.string(), "int64", [2**63 - 1]),
        (["1", "", "NaN"], pa.large_string(), "Int64", [1, None, None]),
        ([1, 2**53], pa.int64(), "float64", [1.0, 2.0**53]),
        ([2**60], pa.int64(), "float64", [2.0**60]),
        ([1.5], pa.float32(), "float64", [1.5]),
        ([2.0, float("nan")], pa.float16(), "Int64", [2, None]),
        ([1.5], pa.float16(), "float64", [1.5]),
        ([Decimal("0.1"), Decimal("1234567890.12")], pa.decimal128(38, 18), "float64", [0.1, 1234567890.12]),
        ([" .5", "5.", "-1E-7"], pa.string(), "float64", [0.5, 5.0, -1e-7]),
        ([49, 7], pa.int16(), "str", ["49", "7"]),
        ([49.0, None], pa.float64(), "str", ["49", None]),
        ([Decimal("49.00")], pa.decimal128(10, 2), "str", ["49"]),
        (["00123"], pa.string_view(), "str", ["00123"]),
        ([b"DE"], pa.binary(), "str", ["DE"]),
        ([b"DE", b"AT"], pa.binary(2), "str", ["DE", "AT"]),
        (["DE", None, "DE"], pa.dictionary(pa.int8(), pa.string()), "str", ["DE", None, "DE"]),
        ([UUID(int=1).bytes], pa.uuid(), "str", [str(UUID(int=1))]),
        ([time(8, 30)], pa.time64("us"), "str", ["08:30:00"]),
        ([date(2024, 4, 1)], pa.date32(), "str", ["2024-04-01"]),
        ([0, 1], pa.int8(), "bool", [False, True]),
        (["t", "FALSE", " 1"], pa.string(), "bool", [True, False, True]),
        (["1.0", "0.0", ""], pa.string(), "boolean", [True, False, None]),
        ([True, None], pa.bool_(), "boolean", [True, None]),
        ([date(2024, 4, 1), None], pa.date32(), "datetime64[us]", [datetime(2024, 4, 1), None]),
        ([EIGHT], pa.timestamp("ns"), "datetime64[us]", [EIGHT]),
        (["2024-04-01T08", "2024-04-01 08:00:00.000000000"], pa.string(), "datetime64[us]", [EIGHT, EIGHT]),
        ([EIGHT], pa.timestamp("ms", tz="UTC"), "datetime64[us, UTC]", [EIGHT]),
        (["2024-04-01 10:00:00 +02:00"], pa.string(), "datetime64[us, UTC]", [EIGHT]),
        (["2024-04-01 08:00:00 UTC", "2024-04-01T10:00+0200"], pa.string(), "datetime64[us, UTC]", [EIGHT, EIGHT]),
        ([None, None], pa.null(), "str", [None, None]),
        ([None, None], pa.int32(), "datetime64[us]", [None, None]),
        ([float("nan")], pa.float64(), "str", [None]),
    ],
)
def test_what_loses_nothing_is_converted(values: list[Any], found: Any, type_: str, expected: list[Any]) -> None:
    """Whatever the width, the wrapping or the notation."""
    assert converted(values, found, type_) == expected


@pytest.mark.parametrize(
    ("values", "found", "type_", "said"),
    [
        ([1.0, 1.5, 2.5], pa.float64(), "int64", "row 2 (and 1 more rows): 1.5 would become 1 as int64: it is no whol"),
        ([2.0**53], pa.float64(), "int64", "row 1: 9007199254740992.0 would become 9007199254740992 as int64: from 2*"),
        ([float("inf")], pa.float64(), "int64", "row 1: inf is no int64"),
        ([1, 2**63], pa.uint64(), "int64", "row 2: 9223372036854775808 is no int64: beyond 64 bits"),
        ([True], pa.bool_(), "int64", "row 1: True (bool) would become 1 as int64: declare «bool»"),
        ([True], pa.bool_(), "str", "row 1: True (bool) would become true as str: declare «bool»"),
        ([EIGHT], pa.timestamp("us"), "int64", "would become 1711958400000000 as int64: declare «datetime64[us]»"),
        ([timedelta(1)], pa.duration("us"), "int64", "row 1: 1 day, 0:00:00 (duration[us]) would become 86400000000"),
        ([Decimal("2.5")], pa.decimal128(5, 1), "int64", "row 1: 2.5 would become 2 as int64"),
        ([1, None], pa.int64(), "int64", "row 2: missing, and int64 has no missing value: declare Int64 (or float64)"),
        (["x", ""], pa.string(), "int64", "row 1 (and 1 more rows): «x» is no int64: no number; if it means missing"),
        (["1", ""], pa.string(), "int64", "row 2: «» means missing, and int64 has no missing value"),
        (["1_0"], pa.string(), "int64", "row 1: «1_0» is no int64"),
        (["1.23457E+11"], pa.string(), "int64", "Excel shows long whole numbers so"),
        (["9223372036854775808"], pa.string(), "int64", "beyond 64 bits"),
        ([2**53 + 1], pa.int64(), "float64", "row 1: 9007199254740993 would become 9007199254740992.0 as float64"),
        ([Decimal("12345678901234567.89")], pa.decimal128(38, 2), "float64", "does not hold so many digits"),
        ([49.0, 49.5], pa.float64(), "str", "row 2: 49.5 would become 49.5 as str: programs write it as text in more"),
        ([b"\xff"], pa.binary(), "str", "row 1: b'\\xff' is no str"),
        ([EIGHT], pa.timestamp("us"), "str", "declare «datetime64[us]»"),
        ([[1]], pa.list_(pa.int64()), "str", "have each of its values written as a column"),
        ([0, 2], pa.int64(), "bool", "row 2: 2 would become True as bool: neither 0 nor 1"),
        (["yes"], pa.string(), "bool", "say what it means in `csv: {true_values:"),
        ([None], pa.bool_(), "bool", "row 1: missing, and bool has no missing value: declare boolean"),
        ([EIGHT], BERLIN, "datetime64[us]", "10:00:00+02:00 (timestamp[us, tz=Europe/Berlin]) would become 2024-04-01"),
        ([EIGHT], pa.timestamp("us"), "datetime64[us, UTC]", "would become 2024-04-01 08:00:00+00:00 as datetime64[us"),
        ([date(2024, 4, 1)], pa.date32(), "datetime64[us, UTC]", "a day begins elsewhere at another instant"),
        ([1711958400000], pa.int64(), "datetime64[us]", "would become 1970-01-20 19:32:38.400000 as datetime64[us]"),
        ([45383.5], pa.float64(), "datetime64[us]", "row 1: 45383.5 (double) is no datetime64[us]"),
        ([1], pa.timestamp("ns"), "datetime64[us]", "would become 1970-01-01 00:00:00 as datetime64[us]"),
        (["2024-04-01 08:00:00+02"], pa.string(), "datetime64[us]", "would become 2024-04-01 06:00:00 as datetime64[u"),
        (["2024-04-01 08:00:00.1234567"], pa.string(), "datetime64[us]", "more than six digits of a second"),
        (["2024-02-30"], pa.string(), "datetime64[us]", "row 1: «2024-02-30» is no datetime64[us]: day is out of rang"),
        (["1711958400"], pa.string(), "datetime64[us]", "no date as ISO 8601 has it"),
        (["2024-04-01 08:00"], pa.string(), "datetime64[us, UTC]", "it has no zone: declare «datetime64[us]»"),
        ([None, 2**62], pa.timestamp("ms"), "datetime64[us]", "row 2: 4611686018427387904 (ms since 1970) is no datet"),
        ([570000000000000000], pa.timestamp("us"), "datetime64[us]", "is no datetime64[us]: its year is not 1 to 9999"),
        ([2**62], pa.timestamp("ms", tz="UTC"), "datetime64[us, UTC]", "is no datetime64[us, UTC]: its year is not"),
        ([1, 3_000_000], pa.date32(), "datetime64[us]", "row 2: 3000000 (days since 1970) is no datetime64[us]: its y"),
        ([1001], pa.time64("ns"), "str", "row 1: 00:00:00.000001 would become 00:00:00.000001 as str: more than six"),
        ([timedelta(1)], pa.duration("us"), "str", "have it written as a number or text"),
        ([0], pa.timestamp("us", tz="Mars/Base"), "datetime64[us]", "(timestamp[us, tz=Mars/Base]) would become 1970"),
    ],
)
def test_what_would_lose_something_is_refused_with_row_and_both_values(
    values: list[Any], found: Any, type_: str, said: str
) -> None:
    """The value in the file, what it would become, and what to do."""
    got = converted(values, found, type_)
    assert isinstance(got, str), got
    assert said in got


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(
    "found",
    [
        pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(30, 3), pa.decimal256(60, 3),
        pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.date32(), pa.date64(), pa.time32("s"),
        pa.time64("ns"), pa.timestamp("s"), pa.timestamp("ns"), BERLIN, pa.duration("s"), pa.list_(pa.int8()),
        pa.struct({"a": pa.int8()}), pa.map_(pa.string(), pa.int8()), pa.month_day_nano_interval(), pa.uuid(),
        pa.dictionary(pa.int8(), pa.large_string()), pa.dictionary(pa.int32(), pa.int64()),
    ],
    ids=str,
)  # fmt: skip
def test_a_column_without_a_value_becomes_any_type(found: Any, type_: str) -> None:
    """A program does not know the type of a column in which it saw nothing."""
    got, refused = conversions.convert(pa.nulls(2, found), type_)
    assert got.type == conversions.arrow_type(type_)
    assert (refused is not None) == (type_ in {"int64", "bool"})
    assert conversions.convert(pa.nulls(0, found), type_)[1] is None
