"""What a partition must be, and what is said of one that is not."""

from __future__ import annotations

import cProfile
import io
import pstats
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from models import upstream
from tasks.data import expectations, validate
from tasks.data.validation_report import ExpectationResult, Report
from tasks.engine import engine, local
from tasks.ground import files, settings
from tasks.ground.errors import ContractError, DataMissing, StageFailed
from tasks.tables import contract, table_files
from tests.conftest import REPOSITORY, Project, write_readings
from tests.tasks.data.conftest import Put, month, write

pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # Great Expectations imports it
MODELS = ["flight_delay", "hourly_departures"]
Change = Callable[[bytes], bytes]


def edited(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Change:
    """A change of the table, with every text as it stands."""

    def change(content: bytes) -> bytes:
        frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        return edit(frame).to_csv(index=False).encode()

    return change


def scaled(columns: list[str], scale: Callable[[pd.Series[Any]], pd.Series[Any]]) -> Change:
    """A change of unit: numbers scaled, missing ones still missing."""

    def edit(frame: pd.DataFrame) -> pd.DataFrame:
        numbers = {c: scale(pd.to_numeric(frame[c], errors="coerce")).round(2) for c in columns}
        return frame.assign(**{c: n.astype(str).where(n.notna(), "NA") for c, n in numbers.items()})

    return edited(edit)


def half(content: bytes) -> bytes:
    """The first half of the lines."""
    lines = content.splitlines(keepends=True)
    return b"".join(lines[: len(lines) // 2])


def kilometres(content: bytes) -> bytes:
    """Distances in km, whole as they were."""
    return edited(lambda f: f.assign(distance=(f["distance"].astype(int) * 1.609344).round().astype(int)))(content)


def celsius(values: pd.Series[Any]) -> pd.Series[Any]:
    """°F → °C."""
    return (values - 32) / 1.8


BOTH: dict[str, tuple[Change, str]] = {
    "empty": (lambda _: b"", "readable"),
    "only a header": (lambda content: content.splitlines(keepends=True)[0], "expect_table_row_count_to_be_between"),
    "cut in the middle of a line": (lambda content: content[: len(content) // 2 + 7], "readable"),
    "cut to half at the end of a line": (half, "expect_column_unique_value_count_to_be_between"),
    "binary": (lambda _: bytes(range(256)) * 40, "readable"),
    "JSON": (lambda _: b'{"rows": [{"year": 2013, "month": 2}]}\n' * 50, "readable"),
    "HTML": (lambda _: b"<html>\n<body>503 Service Unavailable</body>\n</html>\n", "readable"),
    "a column missing": (edited(lambda f: f.drop(columns="hour")), "expect_table_columns"),
    "a column too many": (edited(lambda f: f.assign(note="x")), "expect_table_columns"),
    "columns in another order": (edited(lambda f: f[f.columns[::-1]]), "expect_table_columns"),
    "a column of another type": (edited(lambda f: f.assign(hour="noon")), "readable"),
    "whole numbers that became fractions": (edited(lambda f: f.assign(hour=f["hour"] + ".5")), "readable"),
    "missing values in a column without": (edited(lambda f: f.assign(day="NA")), "readable"),
    "the header twice": (lambda content: content.splitlines(keepends=True)[0] + content, "readable"),
    "a column name twice": (lambda content: content.replace(b"year", b"month", 1), "readable"),
    "duplicate keys": (edited(lambda f: pd.concat([f, f.tail(7)])), "expect_compound_columns_to_be_unique"),
}
BAD = [(dataset, what, *rest) for what, rest in BOTH.items() for dataset in upstream.DATASETS] + [
    ("flights", "miles → km", kilometres, "expect_column_mean_to_be_between"),
    ("flights", "an airport too many", lambda c: c.replace(b",JFK,", b",LHR,", 3), "expect_column_values_to_be_in_set"),
    ("weather", "°F → °C", scaled(["temp", "dewp"], celsius), "expect_column_mean_to_be_between"),
    ("weather", "miles → km", scaled(["visib", "wind_speed"], lambda v: v * 1.609344), "expect_column_m"),
]


@pytest.fixture
def before(put: Put) -> dict[str, Path]:
    """January of each dataset, accepted before."""
    return {dataset: put(dataset, "2013-01") for dataset in upstream.DATASETS}


def refused(path: Path, dataset: str, before: Path | None) -> Iterator[ExpectationResult]:
    """What the readers' contracts refuse of a file, one after the other."""
    for model in MODELS:
        yield from validate.check(path, dataset, model, before).failures


@pytest.mark.slow
@pytest.mark.parametrize("dataset", upstream.DATASETS)
def test_every_real_month_passes_in_order(dataset: str, root: Path) -> None:
    """The twelve months of the example pass both models' contracts, each with the month before it."""
    before = None
    for partition in upstream.partitions():
        path = write(root / f"{partition}.csv", month(dataset, partition))
        assert not list(refused(path, dataset, before))
        before = path


@pytest.mark.parametrize(("dataset", "what", "change", "expectation"), BAD, ids=[f"{d}: {w}" for d, w, *_ in BAD])
def test_a_bad_partition_is_refused_by_the_expectation_that_is_meant_for_it(
    dataset: str, what: str, change: Change, expectation: str, before: dict[str, Path], root: Path
) -> None:
    """Each row of the table of bad partitions: refused, and the reason names what is wrong."""
    path = write(root / "2013-02.csv", change(month(dataset, "2013-02")))
    assert any(check.name.startswith(expectation) for check in refused(path, dataset, before[dataset])), what


@pytest.mark.parametrize("dataset", upstream.DATASETS)
def test_the_content_of_another_month_is_refused(dataset: str, before: dict[str, Path], root: Path) -> None:
    """A partition that holds another month than its name says is refused for its month, with rows and examples."""
    path = write(root / "2013-02.csv", month(dataset, "2013-03"))
    (check,) = [c for c in refused(path, dataset, before[dataset]) if c.column == "month"]
    assert check.unexpected_percent == 100
    assert check.examples[0] == "row 1: 3"


def test_a_parquet_partition_is_held_to_the_same_types(before: dict[str, Path], root: Path) -> None:
    """A Parquet file passes where the CSV does, and is refused when a number became text."""
    frame = table_files.read(before["weather"], contract.load("flight_delay", "weather"))
    path = root / "2013-01.parquet"
    frame.to_parquet(path)
    assert not list(refused(path, "weather", None))
    frame.assign(temp="warm").to_parquet(path)
    assert [check.name for check in refused(path, "weather", None)] == ["readable", "readable"]


@pytest.mark.parametrize(
    ("name", "reason", "number"),
    [
        ("2013-01", "not checked: nothing before (previous_temp_mean)", 4),
        ("first", "not checked: the partition's name is not such a date (partition_month)", 8),
    ],
)
def test_what_has_no_value_for_a_partition_is_listed_as_not_checked(
    name: str, reason: str, number: int, root: Path
) -> None:
    """The first partition passes without what the one before would say; a name that is no date has no month."""
    path = write(root / f"{name}.csv", month("weather", "2013-01"))
    report = validate.check(path, "weather", "flight_delay", None)
    assert report.passed
    assert len(report.left_out) == number
    assert reason in {check.reason for check in report.left_out}


def test_a_missing_column_refuses_once(before: dict[str, Path], root: Path) -> None:
    """It is told by the check of the table's columns, and not by each expectation of its values again."""
    path = write(root / "2013-02.csv", edited(lambda f: f.drop(columns="visib"))(month("weather", "2013-02")))
    failed = refused(path, "weather", before["weather"])
    assert any("visib" in str(check.reason) for check in failed)
    assert not [check for check in failed if check.column == "visib"]


def test_every_expectation_of_a_suite_is_run(before: dict[str, Path]) -> None:
    """Two expectations of one type on one column both count, and a type is asked of every column.

    Great Expectations' `add_expectation_configuration` would keep only the last of each.
    """
    wanted = contract.load("flight_delay", "flights")
    report = validate.check(before["flights"], "flights", "flight_delay", None)
    assert len(report.checks) == len(wanted.columns) + 2 + len(wanted.expectations)
    assert [c.column for c in report.checks if c.name == "expect_column_type_to_be"] == list(wanted.columns)


@pytest.mark.parametrize(
    ("expectation", "message"),
    [
        (
            {"type": "expect_column_values_to_be_betwen", "kwargs": {}},
            "did you mean 'expect_column_values_to_be",
        ),
        (
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"colum": "temp"}},
            "'colum' is none of its arguments",
        ),
        ({"type": "expect_column_values_to_not_be_null", "args": {"column": "temp"}}, "unknown key 'args'"),
        (
            {
                "type": "expect_column_max_to_be_between",
                "kwargs": {"column": "temp", "max_value": {"$PARAMETER": "previous_tmp_max"}},
            },
            "there is no parameter 'previous_tmp_max'; did you mean 'previous_temp_max'",
        ),
    ],
)
def test_a_suite_that_asks_for_what_does_not_exist_is_a_mistake(expectation: Any, message: str, root: Path) -> None:
    """Nothing is refused for a mistake in the contract: the contract is named, and what may have been meant."""
    path = write(root / "2013-01.csv", month("weather", "2013-01"))
    where = contract.path_of("flight_delay", "weather")
    raw = yaml.safe_load(where.read_text())
    where.write_text(yaml.safe_dump({**raw, "expectations": [expectation]}, sort_keys=False))
    with pytest.raises(ContractError) as raised:
        validate.check(path, "weather", "flight_delay", None)
    assert str(raised.value).startswith("models/flight_delay/expectations/weather.yaml, line ")
    assert message in str(raised.value)


def test_a_report_survives_json_and_reads_well(before: dict[str, Path], root: Path) -> None:
    """A report says the file, the expectation, how many rows and which; and comes back from JSON as it was."""
    path = write(root / "2013-02.csv", edited(lambda f: pd.concat([f, f.tail(7)]))(month("weather", "2013-02")))
    report = validate.check(path, "weather", "flight_delay", None)
    assert Report.from_dict(asdict(report)) == report
    text = "\n".join(report.markdown())
    assert "## weather 2013-02, by the contract of flight_delay: refused" in text
    assert "| `expect_compound_columns_to_be_unique` |" in text
    assert "| 14 (0." in text
    assert "origin=LGA" in text


def test_summary_holds_what_the_next_partition_is_compared_with(before: dict[str, Path]) -> None:
    """Rows and six statistics of each numeric column, as pandas gives them."""
    summary = validate.summary(before["weather"], "weather", "flight_delay")
    frame = pd.read_csv(before["weather"])
    assert summary is not None
    assert summary["rows"] == len(frame)
    temp, gust = summary["columns"]["temp"], summary["columns"]["wind_gust"]
    assert temp["mean"] == pytest.approx(frame["temp"].mean())
    assert temp["median"] == frame["temp"].median()
    assert temp["stdev"] == pytest.approx(frame["temp"].std())
    assert gust["nulls"] == frame["wind_gust"].isna().sum()
    assert "origin" not in summary["columns"]


def test_the_stage_writes_what_it_validated(put: Put, root: Path) -> None:
    """partitions.json names every partition of the model's datasets with its MD5, and nothing that changes."""
    paths = [put(dataset, "2013-01") for dataset in upstream.DATASETS]
    validate.validate("flight_delay")
    written = files.read_json(settings.BUILD / "flight_delay" / "partitions.json")
    assert written == {path.parent.name: {"2013-01.csv": files.md5(path)} for path in paths}


def test_the_stage_says_which_partition_fails_and_what_to_do(put: Put, root: Path) -> None:
    """A partition in data/ that does not pass stops the stage; nothing is written."""
    put("flights", "2013-01")
    put("weather", "2013-01").rename(root / "data" / "weather" / "2013-05.csv")
    with pytest.raises(
        StageFailed, match=r"(?s)weather 2013-05: expect_column_values_to_be_between of month.*row 1: 1.*take it out"
    ):
        validate.validate("flight_delay")
    assert not settings.BUILD.exists()


def test_a_dataset_without_partitions_is_said_to_be_missing(put: Put, root: Path) -> None:
    """No partition at all: not a failed check, but data that is missing, with how to get it."""
    put("flights", "2013-01")
    with pytest.raises(DataMissing, match=r"data/weather/ has no partition.*evergreen data"):
        validate.validate("flight_delay")


@pytest.mark.parametrize("stray", ["notes.txt", "2013-01.parquet"])
def test_a_file_that_is_no_partition_stops_the_stage(stray: str, put: Put, root: Path) -> None:
    """What is in data/ and is no partition, or is one twice, is named and not passed over."""
    for dataset in upstream.DATASETS:
        put(dataset, "2013-01")
    (root / "data" / "flights" / stray).write_text("x")
    with pytest.raises(StageFailed, match=stray):
        validate.validate("flight_delay")


def test_nothing_heavy_is_imported_when_everything_is_memoised(put: Put, root: Path) -> None:
    """A second run in a fresh process imports neither Great Expectations nor pandas."""
    for dataset in upstream.DATASETS:
        put(dataset, "2013-01")
    validate.validate("flight_delay")
    code = (
        "import sys; from tasks.data import validate; validate.validate('flight_delay');"
        "print([m for m in ('great_expectations', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"EVERGREEN_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_a_changed_contract_is_checked_again(put: Put, root: Path) -> None:
    """A memo is of the contract as it was: a stricter one refuses what passed before."""
    path = put("weather", "2013-01")
    assert validate.check(path, "weather", "flight_delay", None).passed
    where = contract.path_of("flight_delay", "weather")
    where.write_text(where.read_text().replace("partition_days * 69", "partition_days * 71.9"))
    assert not validate.check(path, "weather", "flight_delay", None).passed


def test_nothing_new_costs_the_same_for_each_partition_however_many_there_are(
    small: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 80 days it makes twice the calls that it makes of 40, and few for each."""
    shutil.rmtree(small.root / "data" / "readings")
    passed = Report("readings", "a day", "tiny", passed=True, checks=())
    monkeypatch.setattr(expectations, "examine", lambda *_: (passed, {}))  # what is new is not what is counted
    calls = {}
    for days in (40, 80):
        for day in pd.date_range("2013-01-01", periods=days):
            line = f"north,{day:%Y-%m-%d},{day.year},{day.month},0,1,2.5,0.1,0\n"
            header = "station,at,year,month,hour,starts,pressure,vibration,failures\n"
            write(small.root / "data" / "readings" / f"{day:%Y-%m-%d}.csv", header + line)
        validate.validate("tiny")
        calls[days] = _calls(lambda: validate.validate("tiny"))
    assert calls[80] < 2.1 * calls[40]
    assert calls[80] < 80 * 2000


def _calls(work: Callable[[], object]) -> int:
    """How many functions a piece of work calls: unlike its time, the same on every machine."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]  # typeshed lacks it


@pytest.mark.slow
def test_several_workers_check_as_this_process_does(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same reports in the same order, of the refused too; what is known is not given to anybody."""
    every = [write_readings(small.root, month) for month in range(1, 7)]
    every[2].write_text(every[2].read_text().replace("north", "nowhere", 3))
    alone = validate.check_all({"readings": every}, "tiny")
    assert [report.passed for report in alone].count(False) == 1
    shutil.rmtree(files.memos())
    monkeypatch.setenv(engine.SETTING, "local:2")
    assert validate.check_all({"readings": every}, "tiny") == alone
    monkeypatch.setattr(local.LocalWorkers, "_start", lambda _: pytest.fail("everything is known"))
    assert validate.check_all({"readings": every}, "tiny") == alone
