"""Lossless conversion of a file's columns to the types that a contract declares; all else is refused.

`exact` converts a single value: whole floats become integers, a dictionary becomes text, a date becomes midnight; a
zone, a digit or a unit is never made up and never dropped. Arrow's own casts do the same for whole columns where they
can be trusted; where one fails, or may have lost something, `exact` converts each distinct value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tasks.tables.contract import Dialect

if TYPE_CHECKING:
    import pyarrow as pa

PLAIN = Dialect()
"""Numbers, truth values and dates as they are written everywhere."""

SAFE = 2**53
"""Below it, a float64 holds every whole number; from it on, neighbours are the same."""

TAKES = {
    "int64": {"integer", "float", "decimal", "text"},
    "float64": {"integer", "float", "decimal", "text"},
    "str": {"text", "bytes", "integer", "float", "decimal", "date", "time", "uuid"},
    "bool": {"bool", "integer", "float", "text"},
    "datetime64[us]": {"naive timestamp", "date", "text"},
    "datetime64[us, UTC]": {"zoned timestamp", "text"},
}
TAKES |= {"Int64": TAKES["int64"], "boolean": TAKES["bool"]}
"""Declared type → the kinds of column that may become it. (A column without a value becomes any of them.)"""

ADVICE = {
    ("zoned timestamp", "datetime64[us]"): "it has a zone: declare «datetime64[us, UTC]», or have local times written",
    ("naive timestamp", "datetime64[us, UTC]"): "it has no zone: declare «datetime64[us]», and say the zone in rows",
    ("date", "datetime64[us, UTC]"): "a day begins elsewhere at another instant: declare «datetime64[us]»",
    ("integer", "datetime64[us]"): "a count of seconds or of milliseconds? Declare «int64» and convert it in rows",
    ("integer", "datetime64[us, UTC]"): "a count of seconds or of milliseconds? Declare «int64» and convert it in rows",
}
NATURAL = {
    "bool": "bool",
    "integer": "int64",
    "float": "float64",
    "decimal": "float64",
    "text": "str",
    "bytes": "str",
    "date": "datetime64[us]",
    "time": "str",
    "uuid": "str",
    "naive timestamp": "datetime64[us]",
    "zoned timestamp": "datetime64[us, UTC]",
}
"""Kind of column → the type to declare for it, where there is no other advice."""


class Lossy(ValueError):
    """A value that the declared type does not hold."""

    def __init__(self, why: str, becomes: object = None) -> None:
        super().__init__(why)
        self.becomes = becomes


# ── one column ────────────────────────────────────────────────────────────────────────────────────


def convert(
    column: Any, type_: str, nulls: Sequence[str] = ("",), dialect: Dialect = PLAIN
) -> tuple[Any, pa.Array | None]:
    """A column of a file as the declared type.

    Args:
        column: a pyarrow Array or ChunkedArray, of any type.
        type_: one of contract.TYPES.
        nulls: texts that mean «missing» where the declared type is not text.
        dialect: how texts say numbers, truth values and dates.

    Returns:
        The values, null where one is missing or refused; and which are refused, None when none is.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column, kind, target = _plain(column), kind_of(column.type), arrow_type(type_)
    if column.null_count == len(column):
        values, refused = pa.nulls(len(column), target), None
    elif kind not in TAKES[type_]:
        values, refused = pa.nulls(len(column), target), pc.is_valid(column)
    else:
        cast = _cast(column, kind, type_, dialect)
        values, refused = (cast, None) if cast is not None else _one_by_one(column, type_, nulls, dialect)
    if type_ in {"int64", "bool"} and values.null_count:  # pandas has no missing value in these
        return values, pc.is_null(values)
    return values, refused


KINDS = {
    "bool": ("boolean",),
    "integer": ("integer",),
    "float": ("floating",),
    "decimal": ("decimal",),
    "text": ("string", "large_string", "string_view"),
    "bytes": ("binary", "large_binary", "binary_view", "fixed_size_binary"),
    "date": ("date",),
    "time": ("time",),
    "nested": ("nested",),
}
"""Kind of column → what Arrow's tests of a type call it."""


def kind_of(type_: Any) -> str:
    """What kind of column it is, in a word."""
    import pyarrow as pa

    if pa.types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        return "uuid" if type_.extension_name == "arrow.uuid" else kind_of(type_.storage_type)
    if pa.types.is_timestamp(type_):
        return "naive timestamp" if type_.tz is None else "zoned timestamp"
    for kind, tests in KINDS.items():
        if any(getattr(pa.types, f"is_{test}")(type_) for test in tests):
            return kind
    return str(type_)


_ARROW = {"int64": "int64", "Int64": "int64", "float64": "double", "str": "string", "bool": "bool", "boolean": "bool"}


def arrow_type(type_: str) -> Any:
    """What Arrow calls a declared type."""
    import pyarrow as pa

    if type_ in _ARROW:
        return pa.type_for_alias(_ARROW[type_])
    return pa.timestamp("us", tz="UTC" if "UTC" in type_ else None)


def _plain(column: Any) -> Any:
    """The column's values without their wrapping: no dictionary, no extension type; in floats, NaN is missing.

    Floats of 16 bits become such of 32: Arrow computes little with them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column.type, pa.BaseExtensionType):
        if kind_of(column.type) == "uuid":
            return pa.array([value and str(value) for value in column.to_pylist()], pa.string())
        column = column.cast(column.type.storage_type)
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


_STRICT = {"Int64": "int64", "boolean": "bool"}
_TRUSTED = {
    ("integer", "int64"), ("float", "int64"), ("decimal", "int64"), ("text", "int64"),
    ("integer", "float64"), ("float", "float64"), ("decimal", "float64"), ("text", "float64"),
    ("text", "str"), ("bytes", "str"), ("integer", "str"), ("float", "str"),
    ("bool", "bool"),
    ("naive timestamp", "datetime64[us]"), ("date", "datetime64[us]"), ("text", "datetime64[us]"),
    ("zoned timestamp", "datetime64[us, UTC]"), ("text", "datetime64[us, UTC]"),
}  # fmt: skip
"""Kind and declared type where Arrow's own cast fails for what would be lost, or where it can be seen afterwards."""


def _cast(column: Any, kind: str, type_: str, dialect: Dialect) -> Any | None:
    """The column by Arrow's own cast; None where that fails, or may have lost something."""
    import pyarrow as pa

    target = arrow_type(type_)
    if _is_beyond_years(column):
        return None
    if column.type == target:
        return column
    if (kind, _STRICT.get(type_, type_)) not in _TRUSTED or (kind == "text" and not dialect.is_plain):
        return None
    try:
        between = pa.int64() if (kind, type_) == ("float", "str") else target  # 49.0 is the code 49
        values = column.cast(between)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    lost = (
        (kind == "float" and between == pa.int64() and largest(column) >= SAFE)
        or ((kind, type_) == ("text", "float64") and largest(values) >= SAFE)
        or ((kind, type_) == ("decimal", "float64") and largest(values) * 10.0**column.type.scale >= 1e15)
    )
    return None if lost else _plain(values.cast(target))


def _is_beyond_years(column: Any) -> bool:
    """Whether a time of it is in no year of the calendar, which a date of Python, and what is computed of it, needs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_timestamp(column.type) and not pa.types.is_date(column.type):
        return False
    zone, unit = getattr(column.type, "tz", None), getattr(column.type, "unit", "days")
    try:
        ends = pc.min_max(column.cast(pa.timestamp("us", zone), safe=unit != "ns"))
    except pa.ArrowInvalid:  # more than a count of microseconds holds
        return True
    low, high = (count.value for count in ends.values())
    return low is not None and not (low >= _FIRST and high <= _LAST)


_FIRST, _LAST = (
    (year - datetime(1970, 1, 1)) // timedelta(microseconds=1) for year in (datetime.min, datetime.max)
)  # in microseconds since 1970


def largest(numbers: Any) -> float:
    """The largest absolute value of floats; NaN counts as none."""
    import pyarrow.compute as pc

    ends = pc.min_max(numbers).as_py().values()
    return max((abs(end) for end in ends if end is not None and not math.isnan(end)), default=0.0)


def _one_by_one(column: Any, type_: str, nulls: Sequence[str], dialect: Dialect) -> tuple[Any, pa.Array | None]:
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = (column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).dictionary_encode()
    values: list[Any] = []
    refused: list[bool] = []
    for scalar in encoded.dictionary:
        try:
            values.append(exact(_as_python(scalar), type_, nulls, dialect))
            refused.append(False)
        except (ValueError, OverflowError):  # Lossy; or beyond what a datetime holds
            values.append(None)
            refused.append(True)
    lost = pc.fill_null(pa.array(refused, pa.bool_()).take(encoded.indices), fill_value=False)
    return pa.array(values, arrow_type(type_)).take(encoded.indices), lost if any(refused) else None


# ── one value ─────────────────────────────────────────────────────────────────────────────────────


def _as_python(scalar: Any) -> Any:
    """A value of Arrow's as Python has it."""
    import pyarrow as pa

    if pa.types.is_time64(scalar.type) and scalar.type.unit == "ns" and scalar.value % 1000:
        raise Lossy("more than six digits of a second", scalar.as_py())
    return scalar.as_py()


def exact(value: Any, type_: str, nulls: Sequence[str] = ("",), dialect: Dialect = PLAIN) -> Any:
    """A single value of a file as the declared type, which loses nothing; None when it means «missing».

    Raises:
        Lossy: the type does not hold it.
    """
    if type_ == "str":
        return _text(value)
    if isinstance(value, str) and (value in nulls or value.strip() in {"", *nulls}):
        return None
    if type_.startswith("datetime64"):
        return _moment(value, dialect, zoned="UTC" in type_)
    return {"int64": _integer, "float64": _number, "bool": _truth}[_STRICT.get(type_, type_)](value, dialect)


def _integer(value: Any, dialect: Dialect) -> int | None:
    if isinstance(value, str):
        if _NAN.fullmatch(value.strip()):
            return None
        if re.fullmatch(r"\s*0[xX][0-9a-fA-F]{1,15}\s*", value):
            return int(value, 16)
        if "E+" in value:
            raise Lossy(
                "Excel shows long whole numbers so, without their last digits: have the cells written as numbers"
            )
        text = _canonical(value, dialect)
        value = Decimal(text) if _DIGITS.fullmatch(text) else float(text)  # what has a point was held as a float
    if isinstance(value, float) and not abs(value) < SAFE:
        raise Lossy(
            "from 2**53 on a float does not tell whole numbers apart", int(value) if math.isfinite(value) else None
        )
    if not -(2**63) <= value < 2**63:
        raise Lossy("beyond 64 bits")
    if value != int(value):
        raise Lossy("it is no whole number", int(value))
    return int(value)


def _number(value: Any, dialect: Dialect) -> float | None:
    if isinstance(value, str):
        if _NAN.fullmatch(value.strip()):
            return None
        if _INFINITE.fullmatch(value.strip()):
            return float(value)
        text = _canonical(value, dialect)
        number = float(text)
        if number in {float("inf"), float("-inf")} or (_DIGITS.fullmatch(text) and int(text) != int(number)):
            raise Lossy("a float64 does not hold it", number)
        return number
    number = float(value)
    if isinstance(value, (int, Decimal)) and Decimal(repr(number)) != value and int(number) != value:
        raise Lossy("a float64 does not hold so many digits", number)
    return number


_NAN = re.compile(r"[+-]?nan", re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_DIGITS = re.compile(r"[+-]?[0-9]+")


def _canonical(text: str, dialect: Dialect) -> str:
    point, digits = re.escape(dialect.decimal), "[0-9]+"
    if dialect.thousands:
        digits = f"([0-9]{{1,3}}({re.escape(dialect.thousands)}[0-9]{{3}})+|[0-9]+)"
    text = text.strip()
    if dialect.thousands == " ":  # Excel in French, and others, write one at which no line ends
        text = re.sub("[\u00a0\u2009\u202f]", " ", text)
    if not re.fullmatch(f"[+-]?({digits}({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?", text):
        if dialect.decimal == "," and re.fullmatch(r"[+-]?[0-9]+\.[0-9]+", text):
            raise Lossy('no number where the suite says `csv: {decimal: ","}`')
        if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", text) and dialect.decimal != ",":
            raise Lossy('no number; if the comma is decimal, say `csv: {decimal: ","}` in the suite')
        if re.fullmatch(r"[+-]?[0-9]{1,3}([.,' ][0-9]{3})+([.,][0-9]+)?", text):
            raise Lossy("no number; if it has thousands separators, say `csv: {thousands: …, decimal: …}` in the suite")
        raise Lossy("no number; if it means missing, say so in `nulls` of the suite")
    if dialect.thousands:
        text = text.replace(dialect.thousands, "")
    return text.replace(dialect.decimal, ".")


def _truth(value: Any, dialect: Dialect) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = value.strip()
        for declared, everywhere, truth in (
            (dialect.true_values, {"true", "t", "1", "1.0"}, True),
            (dialect.false_values, {"false", "f", "0", "0.0"}, False),
        ):
            if value in declared or text in declared:
                return truth
            if text.lower() in everywhere and not {value, text} & {*dialect.true_values, *dialect.false_values}:
                return truth
        raise Lossy("not true or false; say what it means in `csv: {true_values: […], false_values: […]}` of the suite")
    if value not in {0, 1}:
        raise Lossy("neither 0 nor 1", bool(value))
    return bool(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (float, Decimal)):
        if value != value.__trunc__() or (isinstance(value, float) and abs(value) >= SAFE):
            raise Lossy("programs write it as text in more than one way: declare «float64»", str(value))
        return str(int(value))
    return str(value)


def _moment(value: Any, dialect: Dialect, *, zoned: bool) -> datetime:
    if not isinstance(value, str):
        cut = value.floor("us") if hasattr(value, "floor") else value  # of nanoseconds
        if cut != value:
            raise Lossy("datetime64[us] does not hold it", cut)
        moment: datetime = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
        return moment
    text = value.strip()
    for form in dialect.dates:
        try:
            moment = datetime.strptime(text, form)
        except ValueError:
            continue
        return _checked(moment, zoned)
    if dialect.dates:
        raise Lossy(f"not written as {' or '.join(dialect.dates)}")
    if not (iso := _ISO.fullmatch(text)):
        raise Lossy('no date as ISO 8601 has it; if it is written otherwise, say how in `csv: {dates: ["%d.%m.%Y"]}`')
    fraction = iso["fraction"] or ""
    if fraction[6:].strip("0"):
        raise Lossy("more than six digits of a second", f"{text[: iso.start('fraction') + 6]}{iso['zone'] or ''}")
    zone = (iso["zone"] or "").replace("UTC", "Z")
    clock = f" {iso['clock']}" if iso["clock"] else ""
    return _checked(datetime.fromisoformat(f"{iso['day']}{clock}{fraction and '.'}{fraction[:6]}{zone}"), zoned)


_ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"([T ](?P<clock>\d\d(:\d\d(:\d\d)?)?)(\.(?P<fraction>\d+))? ?(?P<zone>Z|UTC|[+-]\d\d(:?\d\d)?)?)?",
    re.ASCII,
)


def _checked(moment: datetime, zoned: bool) -> datetime:
    """The moment, if it has a zone exactly where one is asked for."""
    if moment.tzinfo is None and zoned:
        raise Lossy(ADVICE["naive timestamp", "datetime64[us, UTC]"])
    if moment.tzinfo is not None and not zoned:
        utc = (moment - moment.utcoffset()).replace(tzinfo=None)  # type: ignore[operator]  # it has one
        raise Lossy(ADVICE["zoned timestamp", "datetime64[us]"], utc)
    return moment


# ── messages about a fault ───────────────────────────────────────────────────────────────────────


def fault(column: Any, type_: str, refused: pa.Array, nulls: Sequence[str], dialect: Dialect) -> str:
    """The first value of a column that is refused: which row, what it is, what it would become, and how many more."""
    import pyarrow.compute as pc

    row, number = refused.index(True).as_py(), pc.sum(refused).as_py()
    more = f" (and {number - 1:,} more rows)" if number > 1 else ""
    return f"row {row + 1}{more}: {_why(_plain(column)[row], column.type, type_, nulls, dialect)}"


def _why(scalar: Any, arrow: Any, type_: str, nulls: Sequence[str], dialect: Dialect) -> str:
    kind = kind_of(arrow)
    shown = _shown(scalar)
    if not scalar.is_valid:
        return _missing("missing", type_)
    if kind not in TAKES[type_]:
        other = (
            "have each of its values written as a column" if kind == "nested" else "have it written as a number or text"
        )
        natural = f"declare «{NATURAL[kind]}»" if kind in NATURAL else other
        advice = ADVICE.get((kind, type_), natural)
        return f"{shown} ({arrow}) {_would_become(_unsafe(scalar, type_), type_)}: {advice}"
    try:
        exact(_as_python(scalar), type_, nulls, dialect)
    except Lossy as error:
        return f"{shown} {_would_become(error.becomes, type_)}: {error}"
    except (ValueError, OverflowError) as error:
        why = "its year is not 1 to 9999" if "timestamp" in kind or kind == "date" else str(error)
        return f"{shown} is no {type_}: {why}"
    return _missing(f"{shown} means missing", type_)


def _missing(shown: str, type_: str) -> str:
    instead = {"int64": "Int64 (or float64)", "bool": "boolean"}[type_]
    return f"{shown}, and {type_} has no missing value: declare {instead}"


def _would_become(value: object, type_: str) -> str:
    return f"is no {type_}" if value is None else f"would become {value} as {type_}"


def _shown(scalar: Any) -> str:
    try:
        value = scalar.as_py()
    except (ValueError, OverflowError, KeyError):  # a year beyond 9999; a zone that does not exist
        value = f"{scalar.value} ({getattr(scalar.type, 'unit', 'days')} since 1970)"
        return value[:100]
    return f"«{value[:100]}»" if isinstance(value, str) else str(value)[:100]


def _unsafe(scalar: Any, type_: str) -> object:
    """What an unchecked cast would make of a value; None when there is none."""
    import pyarrow as pa

    try:
        return scalar.cast(arrow_type(type_), safe=False).as_py()
    except (pa.ArrowException, ValueError, OverflowError):
        return None


# ── codes that a program held as floats ───────────────────────────────────────────────────────────


def held_as_floats(texts: Any, dialect: Dialect) -> int | None:
    """The first row of a text column whose every value ends in `.0`; None if it is not such a column."""
    import pyarrow.compute as pc

    ends = f"-?[0-9]+{re.escape(dialect.decimal)}0"
    first = pc.index(pc.is_valid(texts), value=True).as_py()
    if first < 0 or not re.fullmatch(f"({ends})?", texts[first].as_py()):  # decides most columns
        return None
    if not pc.all(pc.match_substring_regex(texts, f"^({ends})?$")).as_py():
        return None
    row: int = pc.index(pc.not_equal(texts, ""), value=True).as_py()
    return row if row >= 0 else None
