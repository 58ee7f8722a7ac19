"""Which files a partition's rows are made of: never one of a later partition."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tasks.ground.params import Reading
from tasks.tables import partitions, selection

MONTHS = [Path(f"sales/2024-{month:02d}.csv") for month in (3, 1, 11, 2)]


def read_as(written: object) -> Reading:
    """A reading as params.yaml writes it."""
    return Reading.model_validate(written)


@pytest.mark.parametrize(
    ("written", "partition", "read"),
    [
        ("partition", "2024-03", ["2024-03"]),
        ("partition", "2024-04", []),
        ({"history": 1}, "2024-03", ["2024-03"]),
        ({"history": 2}, "2024-03", ["2024-02", "2024-03"]),
        ({"history": 3}, "2024-11", ["2024-02", "2024-03", "2024-11"]),
        ({"history": 3}, "2024-01", ["2024-01"]),
        ("all", "2024-03", ["2024-01", "2024-02", "2024-03"]),
        ("all", "2024-05", ["2024-01", "2024-02", "2024-03"]),
        ("static", "2024-02", ["2024-01", "2024-02", "2024-03", "2024-11"]),
    ],
)
def test_a_later_partition_is_read_by_static_tables_alone(written: object, partition: str, read: list[str]) -> None:
    """In the order of their time, whatever the alphabet says."""
    assert [path.stem for path in selection.of("sales", read_as(written), partition, MONTHS)] == read


def test_numbers_order_partitions_as_dates_do() -> None:
    """batch-9 is before batch-10."""
    batches = [Path(f"sales/batch-{number}.csv") for number in (10, 9, 11)]
    read = selection.of("sales", read_as({"history": 2}), "batch-10", batches)
    assert [path.stem for path in read] == ["batch-9", "batch-10"]


def test_the_days_of_a_month_are_no_later_than_the_month() -> None:
    """A table by day beside rows by month."""
    days = [Path(f"rates/2024-03-{day:02d}.csv") for day in (1, 31)] + [Path("rates/2024-04-01.csv")]
    assert [path.stem for path in selection.of("rates", read_as("all"), "2024-03", days)] == [
        "2024-03-01",
        "2024-03-31",
    ]
    assert partitions.is_later("2024-03-late", "2024-03")


def test_a_month_goes_on_after_each_of_its_days() -> None:
    """A table by month beside rows by day: of March only its last day may know all of it."""
    months = [Path(f"rates/2024-{month:02d}.csv") for month in (2, 3)]
    read = {
        day: [path.stem for path in selection.of("rates", read_as("all"), f"2024-03-{day}", months)]
        for day in ("15", "31")
    }
    assert read == {"15": ["2024-02"], "31": ["2024-02", "2024-03"]}
    assert partitions.is_later("2024", "2024-Q1")
    assert not partitions.is_later("2024-W05", "2024-02")


@pytest.mark.parametrize("written", ["all", {"history": 2}])
def test_names_that_say_no_time_are_refused_where_order_matters(written: object) -> None:
    """Nothing is the newest because of the alphabet; what does not follow time is read as static."""
    with pytest.raises(selection.NotOrdered, match=r"airports is read as .* cannot be said of their names.*`static`"):
        selection.of("airports", read_as(written), "2024-03", [Path("airports/usa.csv")])
    assert selection.of("airports", read_as("static"), "2024-03", [Path("airports/usa.csv")])


def test_the_index_of_several_partitions_says_of_which_a_row_is() -> None:
    """`sales.loc[partition.name]` are the rows of the partition that is wanted."""
    frames = {"2024-01": pd.DataFrame({"sold": [1, 2]}), "2024-02": pd.DataFrame({"sold": [3]})}
    sales = selection.joined(read_as({"history": 2}), frames)
    assert sales.loc["2024-02"]["sold"].tolist() == [3]
    assert selection.joined(read_as("static"), frames).index.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [
        ("2024-02", "2024-02-01", "2024-03-01"),
        ("sales_20240305", "2024-03-05", "2024-03-06"),
        ("2024-W01", "2024-01-01", "2024-01-08"),
        ("2024-03-01-23", "2024-03-01 23:00", "2024-03-02"),
        ("2024-03-01-24", None, None),
        ("2024-02-late", None, None),
        ("batch-7", None, None),
        ("feb", None, None),
    ],
)
def test_what_a_partition_is_wanted_of_is_told_where_the_name_says_it(
    name: str, begin: str | None, end: str | None
) -> None:
    """Its first moment, and the first one after it."""
    edges = (begin and pd.Timestamp(begin), end and pd.Timestamp(end))
    assert partitions.wanted(name) == partitions.WantedPartition(name, *edges)
