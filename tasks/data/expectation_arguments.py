"""Expectations of a suite as Great Expectations' own, or why one of them can be asked of no partition.

A wrong argument is a mistake of the suite: it is told before anything is checked, with the arguments that the
expectation takes. Great Expectations would tell it in the words of pydantic, or only while it runs, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tasks.ground import settings
from tasks.ground.errors import ContractError, did_you_mean
from tasks.ground.words import one_line
from tasks.tables import contract, conversions
from tasks.tables.contract import Contract

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

ON_SQL_ONLY = {
    "expect_column_values_to_match_like_pattern",
    "expect_column_values_to_match_like_pattern_list",
    "expect_column_values_to_not_match_like_pattern",
    "expect_column_values_to_not_match_like_pattern_list",
    "expect_query_results_to_match_comparison",
    "expect_table_row_count_to_equal_other_table",
    "unexpected_rows_expectation",
}
"""Expectations that run in a database only: every partition would be refused."""

LIMITS = ("min_value", "max_value", "value_set")
"""The arguments that hold values of the column."""

OF_COUNTS = re.compile("proportion|count|length|stdev")
"""Expectations whose limits are of a share, a count, a length or a spread, whatever the column's type."""

NUMBERS = ("int64", "Int64", "float64")

OF_NUMBERS = re.compile("mean|median|stdev|sum|quantile|z_score|outlier")
"""Expectations that compute with the column's values."""

INTERNAL = {"id", "meta", "notes", "result_format", "description", "catch_exceptions", "rendered_content", "severity"}
INTERNAL |= {"windows", "batch_id", "row_condition", "condition_parser"}
"""What Great Expectations takes beside an expectation's own arguments."""


def build(position: int, expectation: dict[str, Any], wanted: Contract) -> Expectation:
    """One expectation of a suite; its position in the suite goes along as `meta`.

    Raises:
        ContractError: it cannot be asked of a partition's file; says what of it is wrong, and what it takes.
    """
    type_, kwargs = known(expectation, wanted)
    where = f"{type_} of {kwargs['column']}" if isinstance(kwargs.get("column"), str) else type_
    if problem := next(_of_values(type_, kwargs, wanted), None):
        raise ContractError(f"{where}: {problem}")
    return _built(position, type_, {**kwargs, **_times(type_, kwargs, wanted, where)}, where)


@contextmanager
def placed(expectation: dict[str, Any] | None, model: str, dataset: str) -> Iterator[None]:
    """Say of a mistake in which line of which suite it is."""
    try:
        yield
    except ContractError as error:
        where = contract.path_of(model, dataset)
        line = contract.line_of(where, expectation) if expectation else None
        place = f"{where.relative_to(settings.ROOT)}{f', line {line}' if line else ''}"
        raise ContractError(f"{place}:\n  {error}") from error.__cause__


def known(expectation: dict[str, Any], wanted: Contract) -> tuple[str, dict[str, Any]]:
    """The type and the arguments of an expectation that a partition's file can be asked; another one is a mistake."""
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    if unknown := sorted(set(expectation) - {"type", "kwargs"}):
        hint = did_you_mean(unknown[0], ["type", "kwargs"])
        raise ContractError(f"{expectation.get('type', 'an expectation')}: unknown key {unknown[0]!r}{hint}")
    if "type" not in expectation:
        raise ContractError("it has no type: write {type: expect_column_values_to_not_be_null, kwargs: {column: …}}")
    type_, kwargs = str(expectation["type"]), dict(expectation.get("kwargs") or {})
    registered = list_registered_expectation_implementations()
    if type_ not in registered:
        near = get_close_matches(type_, registered, n=1)
        raise ContractError(f"there is no expectation {type_!r}{f'; did you mean {near[0]!r}?' if near else ''}")
    if type_ in ON_SQL_ONLY:
        raise ContractError(f"{type_}: Great Expectations runs it in a database, and not on a partition's file")
    if wrong := [name for name in kwargs if name not in {*taken(type_), *INTERNAL} or name in ("id", "meta")]:
        close = get_close_matches(wrong[0], taken(type_), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ContractError(f"{type_}: {wrong[0]!r} is none of its arguments{hint} It takes {_list(taken(type_))}")
    named = set() if type_.startswith("expect_table") else columns_of(kwargs)
    if strange := sorted(named - wanted.every_column.keys()):
        hint = did_you_mean(strange[0], list(wanted.every_column))
        raise ContractError(f"{type_}: {strange[0]!r} is not among the suite's columns{hint}")
    return type_, kwargs


def taken(type_: str) -> list[str]:
    """The arguments that an expectation takes, as it lists them."""
    from great_expectations.expectations.registry import get_expectation_impl

    return [name for name in get_expectation_impl(type_).__fields__ if name not in INTERNAL]


def columns_of(kwargs: dict[str, Any]) -> set[str]:
    """The columns that an expectation names: column, column_A, column_list, …; not those that a table must have."""
    named = [value for key, value in kwargs.items() if key.startswith("column") and key != "column_index"]
    return {str(each) for value in named for each in (value if isinstance(value, list) else [value])}


def _list(names: Iterable[str]) -> str:
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


# ── values that Great Expectations takes, and that cannot be meant ────────────────────────────────


def _of_values(type_: str, kwargs: dict[str, Any], wanted: Contract) -> Iterator[str]:
    """What is wrong with the values of arguments; Great Expectations would fail on one partition after the other."""
    for name in columns_of(kwargs) if OF_NUMBERS.search(type_) else ():
        if wanted.every_column[name] == "str":
            yield f"it computes with numbers, and column {name} is str"
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and high is not None and _is_number(low) and _is_number(high) and low > high:
        yield f"min_value is {low}, which is more than max_value, {high}"
    if not OF_COUNTS.search(type_):
        yield from _of_another_kind(kwargs, wanted)
    yield from _of_structure(kwargs)


def _of_another_kind(kwargs: dict[str, Any], wanted: Contract) -> Iterator[str]:
    """Values that are equal to none of the column: a text among numbers, a number among texts."""
    name = kwargs.get("column")
    declared = wanted.every_column.get(name, "") if isinstance(name, str) else ""
    for argument in LIMITS:
        for value in kwargs[argument] if isinstance(kwargs.get(argument), list) else [kwargs.get(argument)]:
            if isinstance(value, dict) and "$PARAMETER" not in value:
                yield f"{argument} has the mapping {value}: only {{$PARAMETER: …}} may stand there"
            elif declared in NUMBERS and isinstance(value, str):
                yield f"{argument} has the text {value!r}, and column {name} is {declared}: write a number"
            elif declared == "str" and argument != "value_set" and value is not None:
                yield f"{argument} is a limit of numbers and times, and column {name} is str"
            elif declared == "str" and isinstance(value, int | float):
                yield f'{argument} has {value!r}, and column {name} is str: write a text, "{value}"'


def _of_structure(kwargs: dict[str, Any]) -> Iterator[str]:
    for name, pattern in [("regex", kwargs.get("regex")), *(("regex_list", each) for each in _texts(kwargs))]:
        try:
            re.compile(pattern or "")
        except (re.error, TypeError) as error:
            yield f"{name}: {pattern!r} is no regular expression: {error}"
    ranges = kwargs.get("quantile_ranges")
    if isinstance(ranges, dict) and not _as_many(ranges.get("quantiles"), ranges.get("value_ranges")):
        yield "quantile_ranges needs `quantiles` and as many `value_ranges`: {quantiles: [0.5], value_ranges: [[0, 9]]}"
    shares = kwargs.get("partition_object")
    if isinstance(shares, dict) and "$PARAMETER" not in shares and not _is_distribution(shares):
        yield (
            "partition_object needs `values` and as many `weights`, or `bins` and a weight between each two of them; "
            "weights add up to 1: {values: [a, b], weights: [0.4, 0.6]}"
        )


def _texts(kwargs: dict[str, Any]) -> list[Any]:
    several = kwargs.get("regex_list")
    return several if isinstance(several, list) else []


def _as_many(one: Any, other: Any) -> bool:
    return isinstance(one, list) and isinstance(other, list) and len(one) == len(other)


def _is_distribution(shares: dict[str, Any]) -> bool:
    weights, bins = shares.get("weights"), shares.get("bins")
    if not isinstance(weights, list) or not all(map(_is_number, weights)):
        return False
    total = sum(weights) + sum(shares.get("tail_weights") or [])
    if abs(total - 1) > 1e-6:
        return False
    return _as_many(shares.get("values"), weights) or (isinstance(bins, list) and len(bins) == len(weights) + 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ── as Great Expectations' own ────────────────────────────────────────────────────────────────────


def _times(type_: str, kwargs: dict[str, Any], wanted: Contract, where: str) -> dict[str, Any]:
    """The limits of a column of times, as times."""
    declared = wanted.every_column.get(str(kwargs.get("column")), "")
    if not declared.startswith("datetime") or OF_COUNTS.search(type_):
        return {}
    try:
        return {name: _as_times(kwargs[name], declared) for name in LIMITS if name in kwargs}
    except ValueError as error:
        raise ContractError(f"{where}: {error}") from None


def _built(position: int, type_: str, kwargs: dict[str, Any], where: str) -> Expectation:
    from great_expectations.exceptions import InvalidExpectationConfigurationError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    try:
        return ExpectationConfiguration(type_, kwargs, meta={"position": position}).to_domain_obj()
    except (ValueError, TypeError, InvalidExpectationConfigurationError) as error:  # pydantic's is a ValueError
        raise ContractError(f"{where}: {_faults(error, type_, kwargs)}") from None


def _as_times(value: Any, declared: str) -> Any:
    """The dates of a suite as the column has them: a date is its midnight, in UTC where the column is.

    Great Expectations would compare a date with a time, which fails, and a text with a time, which is never equal.
    """
    if isinstance(value, list):
        return [_as_times(each, declared) for each in value]
    if value is None or isinstance(value, dict):
        return value  # a dict: {$PARAMETER: …}
    moment = _moment(str(value))
    if "UTC" in declared:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment.tzinfo is not None:
        raise ValueError(f"{value} has a time zone, the column has none")
    return moment


def _moment(text: str) -> datetime:
    """A time by ISO 8601, as a column's texts are read."""
    for type_ in ("datetime64[us]", "datetime64[us, UTC]"):
        with suppress(ValueError):
            if moment := conversions.exact(text, type_):
                return moment  # type: ignore[no-any-return]  # of these types it is one
    raise ValueError(f"{text!r} is no time: write it as 2013-01-31, or 2013-01-31 08:00")


KINDS = {
    "type_error.float": "a number",
    "type_error.integer": "a whole number",
    "type_error.str": "a text",
    "type_error.bool": "true or false",
    "type_error.list": "a list",
    "type_error.sequence": "a list",
    "type_error.dict": "a mapping",
    "value_error.date": "a date",
    "value_error.datetime": "a time",
    "type_error": "a date",
}
"""What pydantic calls it that a value is none → what it should have been."""


def _faults(error: Exception, type_: str, kwargs: dict[str, Any]) -> str:
    """What is wrong with the arguments; pydantic lists each type of a union that a value is none of."""
    if not hasattr(error, "errors"):
        return one_line(error)
    by_name: dict[str, list[dict[str, Any]]] = {}
    for fault in error.errors():
        by_name.setdefault(str(fault["loc"][0]), []).append(fault)
    if len(by_name) > 1:  # of all arguments together: a consequence of the others
        by_name.pop("__root__", None)
    return "; ".join(_fault(name, faults, type_, kwargs) for name, faults in by_name.items())


def _fault(name: str, faults: list[dict[str, Any]], type_: str, kwargs: dict[str, Any]) -> str:
    if faults[0]["type"] == "value_error.missing":
        return f"{name} is missing. It takes {_list(taken(type_))}"
    told = next((fault for fault in faults if fault["type"] not in KINDS), None)
    if told is not None:
        message = str(told["msg"])
        return message if name == "__root__" else f"{name} is {kwargs.get(name)!r}: {message}"
    kinds = dict.fromkeys(KINDS[fault["type"]] for fault in faults)
    if len(kinds) > 1:
        kinds = {kind: None for kind in kinds if kind != "a mapping"}  # {$PARAMETER: …}, which any argument may be
    return f"{name} is {kwargs.get(name)!r}, and should be {' or '.join(kinds)}"
