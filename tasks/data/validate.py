"""Validation of partitions: read with the types of a model's contract, checked by Great Expectations.

Results are memos by content, so a month is checked once; Great Expectations, which takes seconds to import, is imported
only when there is something to check.
"""

from __future__ import annotations

import json
import logging
import math
import re
from calendar import monthrange
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data import file_hashes
from tasks.ground import files, params, settings
from tasks.ground.errors import ContractError, DataMissing, StageFailed, did_you_mean
from tasks.tables import contract, conversions, table_files
from tasks.tables import partitions as partition_names
from tasks.tables.contract import Contract

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

SUFFIXES = (".csv", ".parquet")
EXAMPLES = 5
STATISTICS = ("mean", "median", "stdev", "min", "max", "nulls")

Summary = dict[str, Any]
"""Of a partition, for the next one: `{"rows": n, "columns": {name: {statistic: value or None}}}`."""


@dataclass(frozen=True)
class ExpectationResult:
    """One expectation, checked on one partition."""

    name: str
    column: str | None
    expected: str
    passed: bool
    not_checked: bool = False
    observed: str | None = None
    unexpected_count: int | None = None
    unexpected_percent: float | None = None
    examples: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it is a reason to refuse the partition."""
        return not self.passed and not self.not_checked


@dataclass(frozen=True)
class Report:
    """What one model's contract says of one partition."""

    dataset: str
    partition: str
    model: str
    passed: bool
    checks: tuple[ExpectationResult, ...]
    rows: int | None = None

    @property
    def failures(self) -> list[ExpectationResult]:
        """The checks that failed."""
        return [check for check in self.checks if check.failed]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self) | {"checks": [asdict(check) | {"examples": list(check.examples)} for check in self.checks]}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Report:
        """The report that `to_dict` gave."""
        checks = tuple(ExpectationResult(**{**check, "examples": tuple(check["examples"])}) for check in raw["checks"])
        return cls(**{**raw, "checks": checks})


# ── the stage, and what ingest calls ───────────────────────────────────────────────────────────────


def validate(model_name: str) -> None:
    """Check every partition of a model's datasets by the model's contracts; write build/<model>/partitions.json.

    Raises:
        DataMissing: a dataset has no partition.
        StageFailed: a partition does not pass; says which, why, and what to do.
    """
    model = params.load().model(model_name)
    by_dataset = {dataset: partitions(dataset) for dataset in model.datasets}
    for dataset, paths in by_dataset.items():
        if not paths:
            raise DataMissing(
                f"data/{dataset}/ has no partition, but {model_name} reads {dataset}. `evergreen data` brings the "
                f"version that data.dvc names; or let one arrive in the landing zone and run ingest"
            )
    md5 = file_hashes.md5s([path for paths in by_dataset.values() for path in paths])
    reports = [report for dataset, paths in by_dataset.items() for report in _in_order(paths, dataset, model_name)]
    if refused := [report for report in reports if not report.passed]:
        raise StageFailed(_failure(model_name, refused))
    files.write_json(
        settings.BUILD / model_name / "partitions.json",
        {dataset: {path.name: md5[path] for path in paths} for dataset, paths in by_dataset.items()},
    )


def validate_partition(path: Path, dataset: str, readers: list[str], accepted_before: Path | None) -> list[Report]:
    """Check one partition by the contract of every model that reads its dataset.

    Args:
        path: the file, wherever it lies now; its stem is the partition's name.
        dataset: which dataset it is a partition of.
        readers: the models that read the dataset.
        accepted_before: the newest accepted partition before this one, for the `previous_…` parameters.
    """
    return [check(path, dataset, path.stem, model, summary(accepted_before, dataset, model)) for model in readers]


def partitions(dataset: str) -> list[Path]:
    """The accepted partitions of a dataset in data/, sorted by name.

    Raises:
        StageFailed: a file there is not a partition, or two files are the same partition.
    """
    folder = settings.ROOT / "data" / dataset
    paths = sorted((path for path in folder.glob("*") if not path.name.startswith(".")), key=lambda path: path.stem)
    for path in paths:
        if path.suffix not in SUFFIXES or not path.is_file():
            raise StageFailed(f"data/{dataset}/{path.name} is not a .csv or .parquet file. Take it out of data/")
    for path, after in pairwise(paths):
        if path.stem == after.stem:
            twice = f"{path.stem} twice: {path.name} and {after.name}"
            raise StageFailed(f"data/{dataset}/ has {twice}. Take out the one that does not count, then `dvc add data`")
    return paths


def _in_order(paths: list[Path], dataset: str, model: str) -> Iterable[Report]:
    by_name = {path.stem: path for path in paths}
    for name, path in by_name.items():
        before = partition_names.before(name, by_name)
        yield check(path, dataset, name, model, summary(by_name[before] if before else None, dataset, model))


def _failure(model: str, refused: list[Report]) -> str:
    lines = [f"validate {model}: {len(refused)} partition(s) in data/ do not pass models/{model}/expectations"]
    for report in refused:
        lines += [f"  {report.dataset} {report.partition}: {sentence(check)}" for check in report.failures]
    lines.append(
        "If the partition is wrong: have it delivered again, corrected, under the same name; or take it out "
        "(`evergreen withdraw <dataset> <partition>`). "
        "If the expectation is: change it in the suite, then run again"
    )
    return "\n".join(lines)


# ── one partition, one model ──────────────────────────────────────────────────────────────────────


def check(frame_path: Path, dataset: str, partition: str, model: str, previous: Summary | None) -> Report:
    """Check one partition by one model's contract: once per content of everything that can change the answer.

    Raises:
        ContractError: the suite asks for something that does not exist.
    """
    kept = result(frame_path, dataset, partition, model, previous)
    return kept if isinstance(kept, Report) else Report.from_dict(kept["report"])


def result(
    frame_path: Path, dataset: str, partition: str, model: str, previous: Summary | None
) -> Report | dict[str, Any]:
    """What the memo of a check holds: `{"report": Report, "gx": Great Expectations' own result}`.

    A file that cannot be read gives the bare Report and is not kept: reading may fail for reasons outside the file.
    """
    where = contract.path_of(model, dataset).relative_to(settings.ROOT)
    try:
        base = _content(frame_path, model, dataset, partition)
    except contract.NotPlaced as error:
        return _unread(str(error), dataset, partition, model)
    key = {**base, "partition": partition, "previous": previous, "gx": version("great_expectations")}

    def make(beside: Path) -> None:
        wanted = contract.load(model, dataset, partition)
        frame = table_files.read(frame_path, wanted)
        _keep_summary(base, frame, wanted)
        report, gx = examine(frame, wanted, dataset, partition, model, previous)
        files.write_json(beside, {"report": report.to_dict(), "gx": gx})

    try:
        kept: dict[str, Any] = files.read_json(files.memo("validation", key, ".json", make))
    except table_files.Unreadable as error:
        return _unread(f"{error} (the contract is {where})", dataset, partition, model)
    return kept


def _unread(reason: str, dataset: str, partition: str, model: str) -> Report:
    failure = ExpectationResult("readable", None, "a table with the contract's types", passed=False, reason=reason)
    return Report(dataset, partition, model, passed=False, checks=(failure,))


def summary(path: Path | None, dataset: str, model: str) -> Summary | None:
    """The summary of an accepted partition, for the parameters of the one after it; None when there is none."""
    if path is None:
        return None

    def make(beside: Path) -> None:
        wanted = contract.load(model, dataset, path.stem)
        files.write_json(beside, summarise(table_files.read(path, wanted), wanted))

    kept: Summary = files.read_json(files.memo("summary", _content(path, model, dataset, path.stem), ".json", make))
    return kept


def summarise(frame: pd.DataFrame, wanted: Contract) -> Summary:
    """Rows, and the STATISTICS of each numeric column; a statistic that does not exist is None."""
    columns = {}
    for name in _numeric(wanted):
        if name in frame.columns and frame[name].dtype.kind in "if":
            column = frame[name].astype("float64") if wanted.every_column[name] == "Int64" else frame[name]
            values = (column.mean(), column.median(), column.std(), column.min(), column.max(), column.isna().sum())
            columns[name] = _plain(dict(zip(STATISTICS, map(float, values), strict=True)))
    return {"rows": len(frame), "columns": columns}


def _content(path: Path, model: str, dataset: str, partition: str) -> dict[str, str]:
    """Everything of the files, the code and the libraries that a memo of one partition depends on."""
    return {
        "md5": file_hashes.md5(path),
        "suffix": path.suffix,
        "model": model,
        "dataset": dataset,
        "contract": contract.digest(model, dataset, partition),
        "code": files.digest([files.sha256(Path(module)) for module in _CODE]),
        "pandas": version("pandas"),
        "pyarrow": version("pyarrow"),
    }


_CODE = (__file__, contract.__file__, conversions.__file__, table_files.__file__)
"""Modules that read a partition and check it."""


def _keep_summary(base: dict[str, str], frame: pd.DataFrame, wanted: Contract) -> None:
    files.memo("summary", base, ".json", lambda beside: files.write_json(beside, summarise(frame, wanted)))


# ── Great Expectations ────────────────────────────────────────────────────────────────────────────


def examine(
    frame: pd.DataFrame, wanted: Contract, dataset: str, partition: str, model: str, previous: Summary | None
) -> tuple[Report, dict[str, Any]]:
    """Run a contract on a frame: the pure core. Gives the report, and Great Expectations' result as JSON values."""
    where = str(contract.path_of(model, dataset).relative_to(settings.ROOT))
    expectations = {files.digest(each): each for each in (*_derived(wanted, frame), *wanted.expectations)}.values()
    given = parameters(partition, previous)
    checks: dict[int, ExpectationResult] = {}
    built = []
    for position, expectation in enumerate(expectations):
        to_run = _built(position, expectation, wanted, where)
        if reason := _why_not_checked(expectation, wanted, frame, given, where):
            checks[position] = replace(_blank(expectation), not_checked=True, reason=f"not checked: {reason}")
        else:
            reason = _undefined(expectation, given, where)
            checks[position] = replace(
                _blank(expectation), reason=f"could not run: {reason or 'it gave no result'}"
            )  # until it gives one
            built += [] if reason else [to_run]
    raw = _run(frame, built, given, partition)
    checks |= {item["expectation_config"]["meta"]["position"]: _result(item) for item in raw["results"]}
    passed = not any(check.failed for check in checks.values())
    return Report(dataset, partition, model, passed, tuple(checks.values()), rows=len(frame)), raw


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
        *({"type": "expect_column_type_to_be", "kwargs": {"column": c, "type_": t}} for c, t in wanted.columns.items()),
        *([unique] if wanted.key else []),
    ]


def _numeric(wanted: Contract) -> list[str]:
    return [name for name, type_ in wanted.every_column.items() if type_ in ("int64", "Int64", "float64")]


def _without_value(expectation: dict[str, Any], wanted: Contract, given: dict[str, float], where: str) -> list[str]:
    """The parameters an expectation names that have no value here; one that can never have a value is a mistake."""
    possible = {"partition_year", "partition_month", "partition_day", "partition_days", "previous_rows"}
    possible |= {f"previous_{column}_{name}" for column in _numeric(wanted) for name in STATISTICS}
    named = sorted(_named(expectation.get("kwargs")))
    for name in named:
        if name not in possible:
            hint = did_you_mean(name, sorted(possible))
            raise ContractError(f"{where}: {expectation.get('type')}: there is no parameter {name!r}{hint}")
    return [name for name in named if name not in given]


def _why_not_checked(
    expectation: dict[str, Any], wanted: Contract, frame: pd.DataFrame, given: dict[str, float], where: str
) -> str:
    """Why an expectation cannot be checked on this partition; empty where it can."""
    if missing := _without_value(expectation, wanted, given, where):
        before = any(name.startswith("previous_") for name in missing)
        why = "nothing before" if before else "the partition's name is not such a date"
        return f"{why} ({', '.join(missing)})"
    may_lack = {*wanted.optional, *wanted.absent} - set(frame.columns)
    if lacking := sorted(may_lack & _columns_of(expectation.get("kwargs") or {})):
        return f"the partition has no {', '.join(lacking)}"
    return ""


def _undefined(expectation: dict[str, Any], given: dict[str, float], where: str) -> str:
    """Why the arithmetic of its parameters gives no number here, as a division by a previous 0; empty where it does.

    Raises:
        ContractError: it never can.
    """
    from great_expectations.core.suite_parameters import build_suite_parameters
    from great_expectations.exceptions import SuiteParameterError

    try:
        build_suite_parameters(dict(expectation.get("kwargs") or {}), given)
    except SuiteParameterError as error:
        problem = " ".join(str(error).partition("Statement:")[0].split())
        if problem.startswith("Error while evaluating"):
            return problem.rpartition("expression: ")[2]
        raise ContractError(f"{where}: {expectation['type']}: $PARAMETER: {problem}") from None
    return ""


def _columns_of(kwargs: dict[str, Any]) -> set[str]:
    """The columns that an expectation names: column, column_A, column_list, …; not those that a table must have."""
    named = [value for key, value in kwargs.items() if key.startswith("column") and key != "column_index"]
    return {str(each) for value in named for each in (value if isinstance(value, list) else [value])}


def _named(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(_named, value))
    if not isinstance(value, dict):
        return set()
    if "$PARAMETER" in value:
        text = value["$PARAMETER"]
        names = re.findall(r"(?<![\w.])[A-Za-z_]\w*", str(text))  # 1e3 holds none
        return set(names) if isinstance(text, str) else {str(text)}
    return set().union(*map(_named, value.values()))


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


def _built(position: int, expectation: dict[str, Any], wanted: Contract, where: str) -> Expectation:
    """An expectation of Great Expectations; what that does not take is a mistake in the contract."""
    from great_expectations.exceptions import InvalidExpectationConfigurationError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    type_, unknown = expectation.get("type"), sorted(set(expectation) - {"type", "kwargs"})
    registered = list_registered_expectation_implementations()
    if unknown:
        hint = did_you_mean(unknown[0], ["type", "kwargs"])
        raise ContractError(f"{where}: {type_ or 'expectations'}: unknown key {unknown[0]!r}{hint}")
    if type_ not in registered:
        raise ContractError(f"{where}: there is no expectation {type_!r}{did_you_mean(str(type_), registered)}")
    if type_ in ON_SQL_ONLY:
        raise ContractError(
            f"{where}: {type_}: Great Expectations runs it in a database, and not on a partition's file"
        )
    kwargs = dict(expectation.get("kwargs") or {})
    if taken := sorted({"id", "meta"} & set(kwargs)):
        raise ContractError(f"{where}: {type_}: {taken[0]!r} is none of its arguments")
    named = set() if str(type_).startswith("expect_table") else _columns_of(kwargs)
    if strange := sorted(named - set(wanted.every_column)):
        hint = did_you_mean(strange[0], list(wanted.every_column))
        raise ContractError(f"{where}: {type_}: {strange[0]!r} is not among the suite's columns{hint}")
    declared = wanted.every_column.get(str(kwargs.get("column")), "")
    if declared.startswith("datetime") and not OF_COUNTS.search(str(type_)):
        try:
            kwargs |= {name: _as_times(kwargs[name], declared) for name in LIMITS if name in kwargs}
        except ValueError as error:
            raise ContractError(f"{where}: {type_} of {kwargs['column']}: {error}") from None
    try:
        return ExpectationConfiguration(type_, kwargs, meta={"position": position}).to_domain_obj()
    except (ValueError, TypeError, InvalidExpectationConfigurationError) as error:  # pydantic's is a ValueError
        raise ContractError(f"{where}: {type_}: {_faults(error)}") from None


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


def _run(frame: pd.DataFrame, asked: list[Expectation], given: dict[str, float], name: str) -> dict[str, Any]:
    import great_expectations as gx

    batch = _partitions_as_batches().get_batch({"dataframe": frame})
    outcome = batch.validate(
        # not add_expectation_configuration: it replaces one of the same type, even when that is of another column
        gx.ExpectationSuite(name, expectations=asked),
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES},
        expectation_parameters=dict(given),
    )
    raw: dict[str, Any] = _plain(json.loads(json.dumps(outcome.to_json_dict(), default=_of_numpy)))
    return raw


def _of_numpy(value: Any) -> Any:
    """Great Expectations leaves numpy's scalars and arrays in its JSON; anything else becomes text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


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


def _faults(error: Exception) -> str:
    if not hasattr(error, "errors"):
        return " ".join(str(error).split())
    faults = [(".".join(map(str, fault["loc"])).removeprefix("__root__"), fault["msg"]) for fault in error.errors()]
    return "; ".join(f"{where} {message}".strip() for where, message in faults)


def _result(item: dict[str, Any]) -> ExpectationResult:
    """One result of Great Expectations."""
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


def _blank(expectation: dict[str, Any]) -> ExpectationResult:
    """The result of an expectation that was not run."""
    kwargs = dict(expectation.get("kwargs") or {})
    return ExpectationResult(
        str(expectation.get("type")),
        kwargs.get("column"),
        _expected(str(expectation.get("type")), kwargs),
        passed=False,
    )


def _raised(info: dict[str, Any]) -> str | None:
    """The message of what an expectation raised; it is at the top or below the metric that failed."""
    nested = [info] if "raised_exception" in info else list(info.values())
    messages = [str(each.get("exception_message")) for each in nested if each.get("raised_exception")]
    return " ".join(messages[0].split())[:300] if messages else None


def _examples(outcome: dict[str, Any]) -> Iterable[str]:
    rows = outcome.get("partial_unexpected_index_list") or []
    for position, value in enumerate((outcome.get("partial_unexpected_list") or [])[:EXAMPLES]):
        row = rows[position] if position < len(rows) else None
        yield f"row {row + 1}: {_text(value)}" if isinstance(row, int) else _text(value)


def _reason(name: str, kwargs: dict[str, Any], outcome: dict[str, Any]) -> str | None:
    if name != "expect_table_columns_to_match_ordered_list":
        return None
    wanted, seen = kwargs["column_list"], outcome.get("observed_value") or []
    missing, extra = [c for c in wanted if c not in seen], [c for c in seen if c not in wanted]
    named = (("missing", missing), ("not asked for", extra))
    differences = [f"{what}: {', '.join(map(table_files.visible, which[:10]))}" for what, which in named if which]
    return "; ".join(differences) or "the same columns in another order"


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


def _plain(value: Any) -> Any:
    """JSON values without NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ── what a person reads ───────────────────────────────────────────────────────────────────────────


def to_markdown(reports: list[Report]) -> str:
    """The reports of one or more partitions: failed expectations, how many rows, examples of them."""
    return "\n".join(line for report in reports for line in _markdown(report))


def _markdown(report: Report) -> Iterable[str]:
    left_out = sum(check.not_checked for check in report.checks)
    failures = report.failures
    size = f"{report.rows:,} rows" if report.rows is not None else "not read"
    verdict = "passed" if report.passed else "refused"
    yield f"## {report.dataset} {report.partition}, by the contract of {report.model}: {verdict}"
    yield ""
    yield f"{size}. Checks: {len(report.checks)}, failed: {len(failures)}, not checked: {left_out}."
    yield f"Contract: `models/{report.model}/expectations/{report.dataset}.yaml`"
    yield ""
    if failures:
        yield "| expectation | column | expected | observed | rows | examples |"
        yield "| --- | --- | --- | --- | --- | --- |"
        yield from (_line(check) for check in failures)
        yield ""
    if skipped := [check for check in report.checks if check.not_checked]:
        reasons = [(check.reason or "").removeprefix("not checked: ") for check in skipped]
        yield "Not checked: " + "; ".join(
            f"`{check.name}`{' of ' + check.column if check.column else ''} ({reason})"
            for check, reason in zip(skipped, reasons, strict=True)
        )
        yield ""


def _line(check: ExpectationResult) -> str:
    rows = "" if not check.unexpected_count else f"{check.unexpected_count:,} ({check.unexpected_percent:g} %)"
    observed = check.reason or check.observed or ""
    cells = [f"`{check.name}`", check.column or "", check.expected, observed, rows, "; ".join(check.examples)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def sentence(check: ExpectationResult) -> str:
    """One result in a sentence: what was expected, how many rows are not so, examples."""
    parts = [check.name + (f" of {check.column}" if check.column else ""), f"expected {check.expected}"]
    if check.unexpected_count:
        parts.append(f"{check.unexpected_count:,} rows ({check.unexpected_percent:g} %) are not")
    if check.reason or check.observed:
        parts.append(check.reason or f"found {check.observed}")
    if check.examples:
        parts.append("such as " + "; ".join(check.examples[:3]))
    return ": ".join(parts[:2]) + "".join(f"; {part}" for part in parts[2:])
