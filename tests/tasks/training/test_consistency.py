"""The rows of all partitions together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.ground import files
from tasks.ground.errors import DataMissing, ModelCodeError
from tasks.training import consistency


def lay_down(folder: Path, **partitions: dict[str, Any]) -> dict[str, Path]:
    """Partitions of four rows with these columns, and the file of each."""
    for name, columns in partitions.items():
        usual = {"id": [f"{name}{i}" for i in range(4)], "label": 1, "time": pd.date_range("2024-01-01", periods=4)}
        frame = pd.DataFrame({**usual, **columns})
        files.write_parquet(folder / f"{name}.parquet", frame)
    return {name: folder / f"{name}.parquet" for name in partitions}


def days(first: str) -> dict[str, Any]:
    """The times of four rows, a week apart."""
    return {"time": pd.date_range(first, periods=4, freq="7D").astype("datetime64[us]")}


def test_an_id_in_two_partitions_is_told_with_both_rows(tmp_path: Path) -> None:
    """It is learned from twice, or learned and held out: what every check of the gate would end at."""
    made = lay_down(tmp_path, jan={}, feb={"id": ["x", "jan1", "y", "z"]}, mar={})
    with pytest.raises(ModelCodeError) as caught:
        consistency.refuse_ids_twice(made, "shop")
    assert str(caught.value) == (
        "models/shop/rows: id 'jan1' stands twice: in partition jan, row 2 and partition feb, row 2. It must name one "
        "row. A corrected partition is delivered under its own name; rows that differ need ids that differ"
    )


def test_how_many_ids_stand_twice_is_told(tmp_path: Path) -> None:
    """As where a month was delivered again under another name."""
    made = lay_down(tmp_path, jan={}, corrected={"id": [f"jan{i}" for i in range(4)]}, mar={})
    with pytest.raises(ModelCodeError, match=r"row 1 and partition corrected, row 1, and so do 3 more ids of "):
        consistency.refuse_ids_twice(made, "shop")


def test_ids_that_name_one_row_each_are_no_fault(tmp_path: Path) -> None:
    """Nor are labels of one kind."""
    made = lay_down(tmp_path, jan={"label": 1.5}, feb={})
    consistency.refuse_ids_twice(made, "shop")
    consistency.refuse_labels_of_two_kinds(made, "shop")


def test_weights_of_some_partitions_only_are_told(tmp_path: Path) -> None:
    """What the rows of the others count is not guessed."""
    consistency.refuse_some_weights(lay_down(tmp_path, jan={"weight": 1.0}, feb={"weight": 2.0}), "shop")
    with pytest.raises(ModelCodeError, match=r"weight is in partition jan and not in feb\. Let all have it"):
        consistency.refuse_some_weights(lay_down(tmp_path, jan={"weight": 1.0}, feb={}), "shop")


@pytest.mark.parametrize(
    ("label", "said"), [("yes", "text in partition feb"), (True, "a truth value in partition feb")]
)
def test_a_label_of_two_kinds_is_told(tmp_path: Path, label: Any, said: str) -> None:
    """1 and True and «1» are three classes."""
    made = lay_down(tmp_path, jan={}, feb={"label": label})
    with pytest.raises(ModelCodeError, match=f"label is a number in partition jan, {said}. Let it be"):
        consistency.refuse_labels_of_two_kinds(made, "shop")


@pytest.mark.parametrize(
    "names",
    [
        ["month-1", "month-2", "month-10"],
        ["jan", "feb", "mar"],
        ["Q3-2023", "Q4-2023", "Q1-2024"],
        ["2013-W05", "2013-W06", "2013-W10"],
        ["12-2023", "01-2024", "02-2024"],
        ["9", "10", "11"],
        ["b", "a", "c"],
    ],
)
def test_the_times_of_the_rows_say_which_partition_is_newest(tmp_path: Path, names: list[str]) -> None:
    """Whatever the names are."""
    made = lay_down(tmp_path, **{name: days(f"2024-0{i + 1}-01") for i, name in enumerate(names)})
    assert consistency.by_time(dict(sorted(made.items()))) == names


def test_a_mistyped_date_moves_no_partition(tmp_path: Path) -> None:
    """Neither one of 1970 nor one of 2199."""
    january, march = days("2024-01-01")["time"].tolist(), days("2024-03-01")["time"].tolist()
    january[0], march[3] = pd.Timestamp("2199-01-01"), pd.Timestamp("1970-01-01")
    made = lay_down(tmp_path, b=days("2024-02-01"), a={"time": january}, c={"time": march})
    assert consistency.by_time(made) == ["a", "b", "c"]
    consistency.refuse_overlap(made, ["a", "b"], ["c"], "shop")


def test_a_holdout_that_is_not_newer_is_refused(tmp_path: Path) -> None:
    """Partitions that are shops and not months: a split by time means nothing there."""
    made = {name: tmp_path / f"{name}.parquet" for name in ("north", "south")}
    for path, first in zip(made.values(), ("2024-01-01", "2024-01-02"), strict=True):
        times = pd.date_range(first, periods=20).astype("datetime64[us]")
        files.write_parquet(path, pd.DataFrame({"time": times}))
    with pytest.raises(DataMissing) as caught:
        consistency.refuse_overlap(made, ["north"], ["south"], "shop")
    assert str(caught.value) == (
        "shop: partition south (2024-01-02 to 2024-01-21) would be held out, but 40% of its rows are older than the "
        "middle of north (2024-01-01 to 2024-01-20), which would be trained on. A split by time needs partitions that "
        "follow each other in time: deliver them so, or say split.by: random"
    )


# ── no time ───────────────────────────────────────────────────────────────────────────────────────

NONE = {"time": pd.Series([pd.NaT] * 4, dtype="datetime64[us]")}


def test_partitions_without_a_time_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Numbers as numbers, quarters as quarters."""
    for names in (["batch-2", "batch-9", "batch-10"], ["Q4-2023", "Q1-2024"], ["a", "b"]):
        made = lay_down(tmp_path, **dict.fromkeys(names, NONE))
        assert consistency.by_time(dict(sorted(made.items()))) == names
        consistency.refuse_lacking_times(made, "shop", "random")


def test_times_in_some_partitions_only_are_refused(tmp_path: Path) -> None:
    """What has no time cannot be put in order with what has one."""
    made = lay_down(tmp_path, jan={}, feb=NONE)
    with pytest.raises(ModelCodeError, match="the rows of partition feb have no time, those of jan have one"):
        consistency.refuse_lacking_times(made, "shop", "random")
    with pytest.raises(ModelCodeError, match="splits by it"):
        consistency.refuse_lacking_times(made, "shop", "time")
