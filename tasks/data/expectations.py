"""Expectations of a contract, run on one partition by Great Expectations; what it finds, as our own report."""

from __future__ import annotations

import json
import logging
import math
import re
from calendar import monthrange
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tasks.data import expectation_arguments
from tasks.data.validation_report import ExpectationResult, Report
from tasks.ground import files
from tasks.ground.errors import ContractError, did_you_mean
from tasks.tables import table_files
from tasks.tables.contract import Contract

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

EXAMPLES = 5
TYPE_CHECK = "expect_column_type_to_be"
STATISTICS = ("mean", "median", "stdev", "min", "max", "nulls")

Summary = dict[str, Any]
"""Of a partition, for the next one: `{"rows": n, "columns": {name: {statistic: value or None}}}`."""


def examine(
    frame: pd.DataFrame, wanted: Contract, dataset: str, partition: str, model: str, previous: Summary | None
) -> tuple[Report, dict[str, Any]]:
    """Run a contract on a frame: the pure core. Gives the report, and Great Expectations' result as JSON values.

    Raises:
        ContractError: the contract asks for what no partition could be asked.
    """
    asking = _Asking.of(wanted, frame, parameters(partition, previous))
    given = asking.given
    expectations = {files.digest(each): each for each in (*_derived(wanted, frame), *wanted.expectations)}.values()
    dtypes = {str(name): str(dtype) for name, dtype in frame.dtypes.items()}
    checks: dict[int, ExpectationResult] = {}
    to_run = []
    for position, expectation in enumerate(expectations):
        if (checked := _type_check(expectation, wanted, dtypes)) is not None:
            checks[position] = checked
            continue
        with expectation_arguments.placed(expectation, model, dataset):
            asked = _respelled(expectation, asking.spelled)
            built = expectation_arguments.build(position, asked, wanted)
            type_, kwargs = expectation["type"], dict(expectation.get("kwargs") or {})
            left_out = _why_not_checked(type_, kwargs, asking)
            undefined = "" if left_out else _undefined(type_, dict(asked.get("kwargs") or {}), given)
            checks[position] = _without_result(type_, kwargs, left_out, undefined)  # until it gives one
            to_run += [] if left_out or undefined else [built]
    try:
        raw = _as_written(_run(frame, to_run, given, partition), asking.written)
    except (ValueError, TypeError, KeyError) as error:  # of an argument that it looks at only now
        where, problem = _culprit(frame, to_run, given, partition) or (-1, f"Great Expectations: {error}")
        with expectation_arguments.placed([*expectations, None][where], model, dataset):
            raise ContractError(problem) from error
    checks |= {item["expectation_config"]["meta"]["position"]: _result(item) for item in raw["results"]}
    passed = not any(check.failed for check in checks.values())
    return Report(dataset, partition, model, passed, tuple(checks.values()), rows=len(frame)), raw


def summarise(frame: pd.DataFrame, wanted: Contract) -> Summary:
    """Rows, and the STATISTICS of each numeric column; a statistic that does not exist is None."""
    columns = {}
    for name in _numeric(wanted):
        if name in frame.columns and frame[name].dtype.kind in "if":
            column = frame[name].astype("float64") if wanted.every_column[name] == "Int64" else frame[name]
            values = (column.mean(), column.median(), column.std(), column.min(), column.max(), column.isna().sum())
            finite = (float(value) if math.isfinite(value) else None for value in values)
            columns[name] = dict(zip(STATISTICS, finite, strict=True))
    return {"rows": len(frame), "columns": columns}


def _numeric(wanted: Contract) -> list[str]:
    return [name for name, type_ in wanted.every_column.items() if type_ in ("int64", "Int64", "float64")]


def parameters(partition: str, previous: Summary | None) -> dict[str, float]:
    """What `{$PARAMETER: …}` may name.

    partition_year|month|day, partition_days (of that month), previous_rows, previous_<column>_<statistic>.
    """
    given: dict[str, float] = {}
    if date := re.fullmatch(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", partition):
        parts = zip(("year", "month", "day"), date.groups(), strict=True)
        given |= {f"partition_{part}": int(value) for part, value in parts if value is not None}
        if "partition_month" in given and 1 <= given["partition_month"] <= 12:
            given["partition_days"] = monthrange(int(given["partition_year"]), int(given["partition_month"]))[1]
    if previous is not None:
        given["previous_rows"] = previous["rows"]
        for column, statistics in previous["columns"].items():
            given |= {f"previous_{column}_{name}": value for name, value in statistics.items() if value is not None}
    return given


def _derived(wanted: Contract, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The expectations that `columns` and `key` of a contract mean; and at least one row."""
    columns = {name: type_ for name, type_ in wanted.columns.items() if name in frame or name not in wanted.optional}
    unique = {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": wanted.key}}
    if len(wanted.key) == 1:
        unique = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": wanted.key[0]}}
    return [
        {"type": "expect_table_columns_to_match_ordered_list", "kwargs": {"column_list": list(columns)}},
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}},
        *({"type": TYPE_CHECK, "kwargs": {"column": c, "type_": t}} for c, t in wanted.columns.items()),
        *([unique] if wanted.key else []),
    ]


def _type_check(expectation: dict[str, Any], wanted: Contract, dtypes: Mapping[str, str]) -> ExpectationResult | None:
    """That a column has the type of the contract, with which the file was read; None of any other expectation.

    Great Expectations takes 6 ms for each, and looks each name up in the list of all columns.
    """
    kwargs = expectation.get("kwargs") or {}
    type_, column = str(kwargs.get("type_")), str(kwargs.get("column"))
    declared = expectation == {"type": TYPE_CHECK, "kwargs": {"column": column, "type_": type_}}
    if not declared or column not in dtypes or wanted.columns.get(column) != type_:
        return None
    return ExpectationResult(TYPE_CHECK, column, type_, passed=dtypes[column] == type_, observed=dtypes[column])


# ── names in parameters ───────────────────────────────────────────────────────────────────────────


def _spellings(wanted: Contract) -> dict[str, str]:
    """`previous_<column>_<statistic>` → a name for it that the grammar of Great Expectations takes, where it must.

    A name is ASCII letters, digits, _ and $ to it: neither `Torque [Nm]` nor `größe` is one.
    """
    columns = {name: f"${at}" for at, name in enumerate(_numeric(wanted)) if not re.fullmatch("[A-Za-z0-9_$]*", name)}
    longest_first = sorted(columns, key=len, reverse=True)
    return {f"previous_{c}_{each}": f"previous_{columns[c]}_{each}" for c in longest_first for each in STATISTICS}


def _respelled(value: Any, spelled: Mapping[str, str]) -> Any:
    """An argument of an expectation, its `$PARAMETER` in names that the grammar takes."""
    if isinstance(value, list):
        return [_respelled(each, spelled) for each in value]
    if not isinstance(value, dict):
        return value
    text = value.get("$PARAMETER")
    if not isinstance(text, str):
        return {key: _respelled(each, spelled) for key, each in value.items()}
    for name, plain in spelled.items():
        text = text.replace(name, plain)
    return {**value, "$PARAMETER": text}


def _as_written(value: Any, written: Mapping[str, str]) -> Any:
    """A JSON value with the columns' own names again."""
    if isinstance(value, list):
        return [_as_written(each, written) for each in value]
    if isinstance(value, dict):
        return {key: _as_written(each, written) for key, each in value.items()}
    if not isinstance(value, str) or "previous_$" not in value:
        return value
    return re.sub(r"previous_\$\d+_[a-z]+", lambda match: written.get(match[0], match[0]), value)


# ── what is asked of this partition ───────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Asking:
    """What decides whether an expectation can be checked on a partition: made once, for a table may be wide."""

    spelled: Mapping[str, str]
    written: Mapping[str, str]
    """The other way round."""
    given: Mapping[str, float]
    """The parameters that there are here, as the grammar spells them."""
    possible: frozenset[str]
    """The names of parameters that there may be."""
    lacking: frozenset[str]
    """Columns that the suite names, and this partition lacks."""
    may_lack: frozenset[str]
    """Those of them that it may lack."""

    @classmethod
    def of(cls, wanted: Contract, frame: pd.DataFrame, given: Mapping[str, float]) -> _Asking:
        spelled = _spellings(wanted)
        dates = ("partition_year", "partition_month", "partition_day", "partition_days", "previous_rows")
        statistics = (f"previous_{column}_{name}" for column in _numeric(wanted) for name in STATISTICS)
        lacking = frozenset(wanted.every_column.keys() - set(frame.columns))
        here = {spelled.get(name, name): value for name, value in given.items()}
        may_lack = lacking & {*wanted.optional, *wanted.absent}
        written = {plain: name for name, plain in spelled.items()}
        return cls(spelled, written, here, frozenset((*dates, *statistics)), lacking, may_lack)


def _why_not_checked(type_: str, kwargs: dict[str, Any], asking: _Asking) -> str:
    """Why an expectation cannot be checked on this partition; empty where it can."""
    spelled = asking.spelled
    named = sorted(_as_written(name, asking.written) for name in _named(_respelled(kwargs, spelled)))
    if strange := [name for name in named if name not in asking.possible]:
        hint = did_you_mean(strange[0], sorted(asking.possible))
        raise ContractError(f"{type_}: there is no parameter {strange[0]!r}{hint}")
    if missing := [name for name in named if spelled.get(name, name) not in asking.given]:
        before = any(name.startswith("previous_") for name in missing)
        why = "nothing before" if before else "the partition's name is not such a date"
        return f"{why} ({', '.join(missing)})"
    of_values = type_.startswith("expect_column_") and type_ != "expect_column_to_exist"
    may_lack = asking.lacking if of_values else asking.may_lack  # that one is missing is told once, of the table
    if lacking := sorted(may_lack & expectation_arguments.columns_of(kwargs)):
        return f"the partition has no {', '.join(lacking)}"
    return ""


def _undefined(type_: str, kwargs: dict[str, Any], given: Mapping[str, float]) -> str:
    """Why the arithmetic of its parameters gives no number here, as a division by a previous 0; empty where it does."""
    from great_expectations.core.suite_parameters import build_suite_parameters
    from great_expectations.exceptions import SuiteParameterError

    try:
        build_suite_parameters(dict(kwargs), dict(given))
    except SuiteParameterError as error:
        problem = " ".join(str(error).partition("Statement:")[0].split())
        if problem.startswith("Error while evaluating"):
            return problem.rpartition("expression: ")[2]
        raise ContractError(f"{type_}: $PARAMETER: {problem}") from None
    return ""


def _named(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(_named, value))
    if not isinstance(value, dict):
        return set()
    if "$PARAMETER" in value:
        text = value["$PARAMETER"]
        names = re.findall(r"(?<![\w.])[A-Za-z_][\w$]*", str(text))  # 1e3 holds none
        return set(names) if isinstance(text, str) else {str(text)}
    return set().union(*map(_named, value.values()))


# ── the run, and its results ──────────────────────────────────────────────────────────────────────


def _run(frame: pd.DataFrame, asked: list[Expectation], given: Mapping[str, float], name: str) -> dict[str, Any]:
    import great_expectations as gx

    batch = _partitions_as_batches().get_batch({"dataframe": frame})
    outcome = batch.validate(
        # not add_expectation_configuration: it replaces one of the same type, even when that is of another column
        gx.ExpectationSuite(name, expectations=asked),
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES},
        expectation_parameters=dict(given),
    )
    # it leaves numpy's scalars and arrays in its JSON, and NaN and infinity, which JSON has not
    text = json.dumps(outcome.to_json_dict(), default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
    raw: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return raw


def _culprit(
    frame: pd.DataFrame, asked: list[Expectation], given: Mapping[str, float], name: str
) -> tuple[int, str] | None:
    """The position of the expectation by which a run ends, and why it does."""
    for each in asked:
        try:
            _run(frame, [each], given, name)
        except (ValueError, TypeError, KeyError) as error:
            problem = " ".join(f"{each.expectation_type}: {type(error).__name__}: {error}".split())
            return (each.meta or {})["position"], problem[:300]
    return None


@cache
def _partitions_as_batches() -> Any:
    """What makes a batch of a frame, in a context of Great Expectations that lives as long as the process."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    for name in ("great_expectations", "great_expectations.data_context.types.base"):  # which has a level of its own
        logging.getLogger(name).setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("data").add_dataframe_asset("partition")
    return asset.add_batch_definition_whole_dataframe("whole")


def _result(item: dict[str, Any]) -> ExpectationResult:
    config, outcome = item["expectation_config"], item["result"]
    name, kwargs = config["type"], {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
    expected, column = _expected(name, kwargs), kwargs.pop("column", None)
    if raised := _raised(item["exception_info"]):
        return ExpectationResult(name, column, expected, passed=False, reason=f"could not run: {raised}")
    count, observed = outcome.get("unexpected_count"), outcome.get("observed_value")
    return ExpectationResult(
        name,
        column,
        expected,
        passed=item["success"],
        observed=None if observed is None else _text(observed),
        unexpected_count=count,
        unexpected_percent=None if count is None else round(outcome.get("unexpected_percent") or 0.0, 3),
        examples=() if item["success"] else tuple(_examples(outcome)),
        reason=None if item["success"] else _reason(name, kwargs, outcome),
    )


def _without_result(type_: str, kwargs: dict[str, Any], left_out: str, undefined: str) -> ExpectationResult:
    """What is said of an expectation that was not run: why, or that nothing came of it."""
    expected, column = _expected(type_, kwargs), kwargs.get("column")
    if left_out:
        reason = f"not checked: {left_out}"
        return ExpectationResult(type_, column, expected, passed=False, not_checked=True, reason=reason)
    reason = f"could not run: {undefined or 'it gave no result'}"
    return ExpectationResult(type_, column, expected, passed=False, reason=reason)


def _raised(info: dict[str, Any]) -> str | None:
    """The message of what an expectation raised; it is at the top or below the metric that failed."""
    nested = [info] if "raised_exception" in info else list(info.values())
    messages = [str(each.get("exception_message")) for each in nested if each.get("raised_exception")]
    return " ".join(messages[0].split())[:300] if messages else None


def _examples(outcome: dict[str, Any]) -> Iterator[str]:
    rows = outcome.get("partial_unexpected_index_list") or []
    for position, value in enumerate((outcome.get("partial_unexpected_list") or [])[:EXAMPLES]):
        row = rows[position] if position < len(rows) else None
        yield f"row {row + 1}: {_text(value)}" if isinstance(row, int) else _text(value)


def _reason(name: str, kwargs: dict[str, Any], outcome: dict[str, Any]) -> str | None:
    if name != "expect_table_columns_to_match_ordered_list":
        return None
    wanted, seen = kwargs["column_list"], outcome.get("observed_value") or []
    missing, extra = _not_in(wanted, seen), _not_in(seen, wanted)
    named = (("missing", missing), ("not asked for", extra))
    differences = [f"{what}: {', '.join(map(table_files.visible, which[:10]))}" for what, which in named if which]
    return "; ".join(differences) or "the same columns in another order"


def _not_in(names: list[str], others: list[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


def _expected(name: str, kwargs: dict[str, Any]) -> str:
    low, high, mostly = kwargs.get("min_value"), kwargs.get("max_value"), kwargs.get("mostly")
    share = f" in {mostly:.1%} of the rows" if isinstance(mostly, float) and mostly < 1 else ""
    if low is not None and low == high:
        return f"exactly {_text(low)}{share}"
    if low is not None or high is not None:
        bounds = [
            f"{word} {_text(limit)}" for word, limit in (("at least", low), ("at most", high)) if limit is not None
        ]
        return " and ".join(bounds) + share
    values = [_text(value) for key, value in kwargs.items() if key not in ("column", "mostly")]
    return ("; ".join(values) or name.removeprefix("expect_").replace("_", " ")) + share


def _text(value: Any) -> str:
    if isinstance(value, dict):
        if "$PARAMETER" in value:
            return str(value["$PARAMETER"])
        return ", ".join(f"{key}={_text(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "null" if value is None else str(value)
