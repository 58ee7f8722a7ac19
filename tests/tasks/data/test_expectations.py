"""Every expectation of the installed Great Expectations, and dates in a suite."""

# ruff: noqa: C408
# (arguments read better as such, and one expectation stands in one line)

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from great_expectations.expectations.registry import list_registered_expectation_implementations

from tasks.data import expectation_arguments, expectations
from tasks.data.validation_report import ExpectationResult
from tasks.ground import files, settings
from tasks.ground.errors import ContractError
from tasks.tables.contract import Contract

FRAME = pd.DataFrame(
    {
        "n": [1, 2, 3, 4],
        "falling": [4, 3, 2, 1],
        "x": [0.5, 1.0, 2.0, 3.5],
        "s": list("abcd"),
        "same": list("abcd"),
        "t": ["2013-01-01"] * 4,
        "j": ["{}"] * 4,
        "empty": pd.Series([None] * 4, dtype="float64"),
        "at": pd.to_datetime(["2013-01-01", "2013-01-02", "2013-01-03", "2013-01-04"]).astype("datetime64[us]"),
        "utc": pd.to_datetime(["2013-01-01", "2013-01-02", "2013-01-03", "2013-01-04"], utc=True).astype(
            "datetime64[us, UTC]"
        ),
    }
)
COLUMNS = {name: str(type_) for name, type_ in FRAME.dtypes.items()}

PASSING: dict[str, dict[str, Any]] = {
    "expect_column_distinct_values_to_be_in_set": dict(column="s", value_set=list("abcd")),
    "expect_column_distinct_values_to_contain_set": dict(column="s", value_set=["a"]),
    "expect_column_distinct_values_to_equal_set": dict(column="s", value_set=list("abcd")),
    "expect_column_kl_divergence_to_be_less_than": dict(
        column="s", partition_object={"values": list("abcd"), "weights": [0.25] * 4}, threshold=1.0
    ),
    "expect_column_max_to_be_between": dict(column="x", min_value=0, max_value=99),
    "expect_column_mean_to_be_between": dict(column="x", min_value=0, max_value=99),
    "expect_column_median_to_be_between": dict(column="x", min_value=0),
    "expect_column_min_to_be_between": dict(column="x", min_value=0, max_value=99),
    "expect_column_most_common_value_to_be_in_set": dict(column="t", value_set=["2013-01-01"]),
    "expect_column_pair_values_a_to_be_greater_than_b": dict(column_A="n", column_B="x"),
    "expect_column_pair_values_to_be_equal": dict(column_A="n", column_B="n"),
    "expect_column_pair_values_to_be_in_set": dict(
        column_A="n", column_B="s", value_pairs_set=[[1, "a"], [2, "b"], [3, "c"], [4, "d"]]
    ),
    "expect_column_proportion_of_non_null_values_to_be_between": dict(column="x", min_value=0.5),
    "expect_column_proportion_of_unique_values_to_be_between": dict(column="x", min_value=0.5),
    "expect_column_quantile_values_to_be_between": dict(
        column="x", quantile_ranges={"quantiles": [0.1, 0.9], "value_ranges": [[0, 1], [2, 4]]}
    ),
    "expect_column_stdev_to_be_between": dict(column="x", min_value=0, max_value=99),
    "expect_column_sum_to_be_between": dict(column="x", min_value=0, max_value=99),
    "expect_column_to_exist": dict(column="x"),
    "expect_column_type_to_be": dict(column="x", type_="float64"),
    "expect_column_unique_value_count_to_be_between": dict(column="x", min_value=1),
    "expect_column_value_lengths_to_be_between": dict(column="s", min_value=1),
    "expect_column_value_lengths_to_equal": dict(column="s", value=1),
    "expect_column_value_z_scores_to_be_less_than": dict(column="x", threshold=3, double_sided=True),
    "expect_column_values_to_be_between": dict(column="x", min_value=0, max_value=99),
    "expect_column_values_to_be_dateutil_parseable": dict(column="t"),
    "expect_column_values_to_be_decreasing": dict(column="falling"),
    "expect_column_values_to_be_in_set": dict(column="s", value_set=["a", "b", "c", "d"]),
    "expect_column_values_to_be_in_type_list": dict(column="n", type_list=["int64"]),
    "expect_column_values_to_be_increasing": dict(column="n"),
    "expect_column_values_to_be_json_parseable": dict(column="j"),
    "expect_column_values_to_be_null": dict(column="empty"),
    "expect_column_values_to_be_of_type": dict(column="n", type_="int64"),
    "expect_column_values_to_be_unique": dict(column="x"),
    "expect_column_values_to_match_json_schema": dict(column="j", json_schema={"type": "object"}),
    "expect_column_values_to_match_regex": dict(column="s", regex="."),
    "expect_column_values_to_match_regex_list": dict(column="s", regex_list=["."]),
    "expect_column_values_to_match_strftime_format": dict(column="t", strftime_format="%Y-%m-%d"),
    "expect_column_values_to_not_be_in_set": dict(column="s", value_set=["z"]),
    "expect_column_values_to_not_be_null": dict(column="x"),
    "expect_column_values_to_not_be_outliers": dict(column="x", method="iqr", multiplier=3.0),
    "expect_column_values_to_not_match_regex": dict(column="s", regex="z"),
    "expect_column_values_to_not_match_regex_list": dict(column="s", regex_list=["z"]),
    "expect_compound_columns_to_be_unique": dict(column_list=["n", "s"]),
    "expect_multicolumn_sum_to_equal": dict(column_list=["n", "falling"], sum_total=5),
    "expect_multicolumn_values_to_be_equal": dict(column_list=["s", "same"]),
    "expect_select_column_values_to_be_unique_within_record": dict(column_list=["s", "t"]),
    "expect_table_column_count_to_be_between": dict(min_value=1),
    "expect_table_column_count_to_equal": dict(value=len(list(FRAME))),
    "expect_table_columns_to_match_ordered_list": dict(column_list=list(FRAME)),
    "expect_table_columns_to_match_set": dict(column_set=list(FRAME)),
    "expect_table_row_count_to_be_between": dict(min_value=1),
    "expect_table_row_count_to_equal": dict(value=4),
}
"""One that passes of each type."""


def checked(asked: str, /, **kwargs: Any) -> ExpectationResult:
    """What is said of FRAME by one expectation, as it is kept in the memo."""
    suite = Contract(columns=COLUMNS, expectations=[{"type": asked, "kwargs": kwargs}])
    report, raw = expectations.examine(FRAME, suite, "d", "2013-01", "m", None)
    files.digest(raw)  # it is JSON
    of_type = [check for check in report.checks if check.name == asked]
    return of_type[-1]


@pytest.mark.parametrize("type_", sorted(list_registered_expectation_implementations()))
def test_every_expectation_that_is_installed_can_be_asked(type_: str) -> None:
    """Or is told to be none for files; a new version of Great Expectations shows here what it brings."""
    if type_ in expectation_arguments.ON_SQL_ONLY:
        with pytest.raises(ContractError, match=f"{type_}: Great Expectations runs it in a database"):
            checked(type_)
    else:
        check = checked(type_, **PASSING[type_])
        assert check.passed, check.sentence()


BETWEEN, IN_SET = "expect_column_values_to_be_between", "expect_column_values_to_be_in_set"


@pytest.mark.parametrize("column", ["at", "utc"])
@pytest.mark.parametrize("midnight", ["{}", "{} 00:00:00", "{}T00:00"])
def test_a_date_in_a_suite_is_its_midnight(column: str, midnight: str) -> None:
    """As a limit and in a set, however it is written; as it came from YAML without quotes, too."""
    first, last, later = (midnight.format(f"2013-01-0{day}") for day in (1, 4, 5))
    assert checked(BETWEEN, column=column, min_value=first, max_value=last).passed
    assert checked("expect_column_max_to_be_between", column=column, min_value=last, max_value=last).passed
    assert checked(BETWEEN, column=column, min_value=later).unexpected_count == 4
    days = [midnight.format(f"2013-01-0{day}") for day in (1, 2, 3)]
    assert checked(IN_SET, column=column, value_set=days).unexpected_count == 1
    assert checked(IN_SET, column=column, value_set=[*days, last]).passed


def test_a_limit_that_is_no_time_is_told() -> None:
    """With its column; and one of a zone for a column without one."""
    for text in ("soon", "now", "01.02.2013", "NaT", "", 2013, True):  # now is another time at the next look
        with pytest.raises(ContractError, match=f"{BETWEEN} of at: '{text}' is no time: write it as 2013-01-31"):
            checked(BETWEEN, column="at", min_value=text)
    with pytest.raises(ContractError, match=r"2013-01-01T00:00Z has a time zone, the column has none"):
        checked(BETWEEN, column="at", min_value="2013-01-01T00:00Z")
    assert checked(BETWEEN, column="utc", min_value="2013-01-01T01:00+01:00").passed
    for of in ("proportion_of_unique_values", "proportion_of_non_null_values", "unique_value_count"):
        assert checked(f"expect_column_{of}_to_be_between", column="at", min_value=0.5).passed


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"type": BETWEEN, "kwargs": {"column": "nn"}},
            f"{BETWEEN}: 'nn' is not among the suite's columns; did you mean",
        ),
        (
            {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["n", "z"]}},
            "'z' is not among the",
        ),
        (
            {"type": BETWEEN, "kwargs": {"column": "n", "meta": {"a": 1}}},
            f"{BETWEEN}: 'meta' is none of its arguments. It",
        ),
        ({"type": BETWEEN, "kwargs": {"column": "n", "id": "a"}}, f"{BETWEEN}: 'id' is none of its arguments"),
        ({"expectation_type": BETWEEN, "kwargs": {"column": "n"}}, "an expectation: unknown key 'expectation_type'"),
        (
            {"type": BETWEEN, "kwargs": {"column": "n", "min_value": {"$PARAMETER": "previous_rows *"}}},
            f"{BETWEEN}: $PARAMETER: Parse Failure: Expected end of text, found '*'",
        ),
        (
            {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "n", "min_value": {"$PARAMETER": 5}}},
            "there is no parameter '5'",
        ),
    ],
)
def test_what_no_partition_could_be_asked_is_a_mistake_of_the_suite(asked: dict[str, Any], said: str) -> None:
    """It is told with its place, and stops ingest, instead of refusing one delivery after the other."""
    suite = Contract(columns=COLUMNS, expectations=[asked])
    with pytest.raises(ContractError) as caught:
        expectations.examine(FRAME, suite, "d", "2013-01", "m", {"rows": 4, "columns": {}})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("type_", "kwargs", "said"),
    [
        (BETWEEN, {"column": "n", "min_valu": 0}, "'min_valu' is none of its arguments; did you mean 'min_value'? It"),
        (BETWEEN, {"column": "n", "max": 0}, "It takes column, mostly, min_value, max_value, strict_min and"),
        (BETWEEN, {"min_value": 0}, "column is missing. It takes column, mostly, min_value"),
        (BETWEEN, {"column": "n", "min_value": "x"}, "min_value has the text 'x', and column n is int64: write a"),
        (BETWEEN, {"column": "n", "min_value": 5, "max_value": 2}, "min_value is 5, which is more than max_value, 2"),
        (BETWEEN, {"column": "n", "min_value": [1]}, "min_value is [1], and should be a number or a date"),
        (BETWEEN, {"column": "n", "min_value": {"a": 1}}, "only {$PARAMETER: …} may stand there"),
        (BETWEEN, {"column": "s", "min_value": 1}, "min_value is a limit of numbers and times, and column s is str"),
        (BETWEEN, {"column": "n", "min_value": 1, "mostly": "most"}, "mostly is 'most', and should be a number"),
        (BETWEEN, {"column": "n", "min_value": 1, "mostly": 1.5}, "less than or equal to 1.0"),
        (IN_SET, {"column": "n", "value_set": ["1"]}, "value_set has the text '1', and column n is int64: write a"),
        (IN_SET, {"column": "s", "value_set": [1]}, 'value_set has 1, and column s is str: write a text, "1"'),
        (IN_SET, {"column": "s", "value_set": "a"}, "value_set is 'a', and should be a list"),
        ("expect_column_mean_to_be_between", {"column": "s", "min_value": 1}, "it computes with numbers, and column s"),
        ("expect_column_values_to_match_regex", {"column": "s", "regex": "["}, "'[' is no regular expression"),
        (
            "expect_column_quantile_values_to_be_between",
            {"column": "x", "quantile_ranges": {"quantiles": [0.1]}},
            "quantile_ranges needs `quantiles` and as many `value_ranges`",
        ),
        (
            "expect_column_kl_divergence_to_be_less_than",
            {"column": "s", "partition_object": {"values": ["a"] * 999}, "threshold": 1},
            "partition_object needs `values` and as many `weights`",
        ),
        (f"{BETWEEN}n", {"column": "n"}, f"did you mean '{BETWEEN}'?"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_told_in_two_lines(
    type_: str, kwargs: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suite with the line, then the expectation, the argument, and what it takes; never all parameters."""
    suite = tmp_path / "models" / "m" / "expectations" / "d.yaml"
    suite.parent.mkdir(parents=True)
    asked = {"type": type_, "kwargs": kwargs}
    suite.write_text(f"columns: {{}}\nexpectations:\n  - {{type: other}}\n  - {json.dumps(asked)}\n")
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    with pytest.raises(ContractError) as caught:
        expectations.examine(FRAME, Contract(columns=COLUMNS, expectations=[asked]), "d", "2013-01", "m", None)
    first, second = str(caught.value).splitlines()
    assert first == "models/m/expectations/d.yaml, line 4:"
    assert said in second
    assert len(second) < 400


def test_what_great_expectations_raises_names_the_expectation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the arguments look right: one line of it, without its traceback."""
    monkeypatch.setattr(expectation_arguments, "_is_distribution", lambda _: True)
    asked = {"column": "s", "partition_object": {"values": ["a"] * 999}, "threshold": 1}
    with pytest.raises(
        ContractError, match="kl_divergence_to_be_less_than: ValueError: Invalid partition_object"
    ) as it:
        checked("expect_column_kl_divergence_to_be_less_than", **asked)
    assert len(str(it.value)) < 400


def test_arithmetic_that_has_no_result_for_a_partition_fails_that_one() -> None:
    """The one before had a mean of 0. The other checks are made, and exponents are no parameters."""
    kwargs = {"column": "n", "min_value": {"$PARAMETER": "1e-3 * previous_rows / previous_x_mean"}}
    suite = Contract(columns=COLUMNS, expectations=[{"type": BETWEEN, "kwargs": kwargs}])
    for mean, reasons in ((0.0, ["could not run: float division by zero"]), (0.5, [])):
        before = {"rows": 4, "columns": {"x": {"mean": mean}}}
        report, _ = expectations.examine(FRAME, suite, "d", "2013-01", "m", before)
        assert [check.reason for check in report.failures] == reasons
        assert len(report.checks) == len(COLUMNS) + 3


@pytest.mark.parametrize("name", ["Torque [Nm]", "温度", "größe", "a - b", "a.b", 'a"b', "x_mean"])
def test_a_parameter_may_be_of_a_column_of_any_name(name: str) -> None:
    """Great Expectations' own grammar knows ASCII only; the report has the name as it was written."""
    frame = pd.DataFrame({name: [1.0, 2.0, 3.0], "n": [1.0, 1.0, 1.0]})
    asked = {"min_value": {"$PARAMETER": f"previous_{name}_mean - 0.5"}, "max_value": {"$PARAMETER": "previous_n_max"}}
    expectation = {"type": "expect_column_mean_to_be_between", "kwargs": {"column": name, **asked}}
    suite = Contract(columns={name: "float64", "n": "float64"}, expectations=[expectation])
    report, _ = expectations.examine(frame, suite, "d", "2013-01", "m", expectations.summarise(frame, suite))
    assert [check.expected for check in report.failures] == ["at least 1.5 and at most 1"]
    report, _ = expectations.examine(frame, suite, "d", "2013-01", "m", None)
    unchecked = [check for check in report.checks if check.not_checked]
    assert [check.expected for check in unchecked] == [
        f"at least previous_{name}_mean - 0.5 and at most previous_n_max"
    ]
    assert f"previous_{name}_mean" in str(unchecked[0].reason)


def test_a_column_that_nobody_sees_is_told_in_quotation_marks() -> None:
    """The index that pandas writes into a CSV has no name, and a blank is easily overlooked."""
    suite = Contract(columns={"n": "int64"}, expectations=[])
    report, _ = expectations.examine(FRAME[["n"]].assign(**{"": 1, " x": 2}), suite, "d", "2013-01", "m", None)
    assert [check.reason for check in report.failures] == ["not asked for: '', ' x'"]


LATE = Contract(
    columns={"n": "int64", "gift": "str"},
    expectations=[
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "gift"}},
        {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["n", "fax"]}},
    ],
    optional=["gift"],
    absent={"fax": "str"},
)


def test_what_a_partition_may_lack_is_not_checked() -> None:
    """An optional column, or one of another time: the report says so; one that is asked for is a failure."""
    report, _ = expectations.examine(FRAME[["n"]], LATE, "d", "2013-01", "m", None)
    assert report.passed
    assert {check.reason for check in report.checks if check.not_checked} == {
        "not checked: the partition has no gift", "not checked: the partition has no fax"
    }  # fmt: skip
    report, _ = expectations.examine(FRAME[["n"]].assign(fax="1"), LATE, "d", "2013-01", "m", None)
    assert [check.reason for check in report.failures][:1] == ["not asked for: fax"]
    report, _ = expectations.examine(FRAME[["s"]].rename(columns={"s": "gift"}), LATE, "d", "2013-01", "m", None)
    assert not report.passed


def test_a_column_that_is_missing_is_told_once() -> None:
    """And not again by each expectation that names it."""
    wanted = Contract(
        columns={"n": "int64", "gone": "float64"},
        expectations=[
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "gone"}},
            {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "gone", "min_value": 0}},
        ],
    )
    report, _ = expectations.examine(FRAME[["n"]], wanted, "d", "2013-01", "m", None)
    assert [check.reason for check in report.failures] == ["missing: gone"]
    wanted.expectations.append({"type": "expect_column_to_exist", "kwargs": {"column": "gone"}})
    report, _ = expectations.examine(FRAME[["n"]], wanted, "d", "2013-01", "m", None)
    assert not report.passed
    assert len(report.failures) == 2


def test_a_column_that_comes_before_its_time_is_refused_and_ends_nothing() -> None:
    """As when an old month is corrected after the schema grew: it is read, summed up and told, as any other."""
    late = Contract(columns={"n": "int64"}, expectations=[], absent={"x": "float64"})
    report, _ = expectations.examine(FRAME[["n", "x"]], late, "d", "2013-01", "m", None)
    assert [check.reason for check in report.failures] == ["not asked for: x"]
    assert expectations.summarise(FRAME[["n", "x"]], late)["columns"]["x"]["mean"] == 1.75


def cpu_seconds(columns: int) -> float:
    """Of the checks of a table, none of whose columns the grammar of parameters can name."""
    names = [f"Torque [Nm] {at}" for at in range(columns)]
    suite = Contract(columns=dict.fromkeys(names, "float64"), expectations=[])
    frame = pd.DataFrame(1.5, index=range(3), columns=names)
    begin = time.process_time()
    report, _ = expectations.examine(frame, suite, "d", "2013-01", "m", expectations.summarise(frame, suite))
    assert report.passed
    assert len(report.checks) == columns + 2
    return time.process_time() - begin


def test_eight_times_as_many_columns_take_about_eight_times_as_long() -> None:
    """A table of 10,000 reaches a verdict: nothing is looked up in the list of all columns for each of them."""
    cpu_seconds(10)  # imports
    assert cpu_seconds(4000) < 20 * cpu_seconds(500) + 0.2


def test_a_column_of_another_type_than_the_contract_says_is_refused() -> None:
    """Great Expectations is not asked: the types of all columns are at hand."""
    report, _ = expectations.examine(
        FRAME[["n"]].astype("float64"), Contract(columns={"n": "int64"}, expectations=[]), "d", "2013-01", "m", None
    )
    (failed,) = report.failures
    assert (failed.name, failed.column, failed.observed) == ("expect_column_type_to_be", "n", "float64")
