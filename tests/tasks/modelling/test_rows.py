"""The rows that prepare laid down, as train and evaluate read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.ground import files
from tasks.modelling import rows


def lay_down(build: Path, split: dict[str, Any], **partitions: list[str]) -> None:
    """Partitions of rows with these ids, and the split."""
    files.write_json(build / "split.json", split)
    for name, ids in partitions.items():
        times = pd.Timestamp("2025-01-01")
        frame = pd.DataFrame({"x": np.arange(len(ids), dtype=float), "label": 1, "id": ids, "time": times})
        files.write_parquet(build / "rows" / f"{name}.parquet", frame)


def test_a_split_by_time_is_by_partition(tmp_path: Path) -> None:
    """The oldest first, and the two sides have nothing in common."""
    lay_down(tmp_path, {"by": "time", "train": ["p1", "p2"], "holdout": ["p3"]}, p2=["c"], p1=["a", "b"], p3=["d"])
    assert rows.read(tmp_path, "train")["id"].tolist() == ["a", "b", "c"]
    assert rows.read(tmp_path, "holdout")["id"].tolist() == ["d"]
    assert rows.read(tmp_path, "train").index.tolist() == [0, 1, 2]


def test_a_random_split_is_by_the_rows_id(tmp_path: Path) -> None:
    """Each row is on one side, about the share is held out, and a new partition moves no earlier row."""
    ids = [f"row{n}" for n in range(2000)]
    split = {"by": "random", "share": 0.25, "partitions": ["p1"]}
    lay_down(tmp_path, split, p1=ids)
    train, holdout = (set(rows.read(tmp_path, part)["id"]) for part in ("train", "holdout"))
    assert train | holdout == set(ids)
    assert not train & holdout
    assert 0.22 < len(holdout) / len(ids) < 0.28
    lay_down(tmp_path, {**split, "partitions": ["p1", "p2"]}, p1=ids[::-1], p2=["other"])
    assert set(rows.read(tmp_path, "holdout")["id"]) - {"other"} == holdout


@pytest.mark.parametrize(
    "split",
    [
        {"by": "time", "train": ["p1"], "holdout": ["p2"]},
        {"by": "time", "train": ["p1"], "holdout": ["p2"], "until": "2999-01-01"},
        {"by": "random", "share": 0.5, "partitions": ["p1", "p2"]},
    ],
)
def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path, split: dict[str, Any]) -> None:
    """In the order in which they are asked for; the id that decides the side need not be one of them."""
    lay_down(tmp_path, split, p1=list("abcdefgh"), p2=list("ijklmnop"))
    whole = rows.read(tmp_path, "train")
    assert list(rows.read(tmp_path, "train", ["label", "x"]).columns) == ["label", "x"]
    pd.testing.assert_frame_equal(rows.read(tmp_path, "train", ["id", "x"]), whole[["id", "x"]])
    assert list(rows.read(tmp_path, "train", []).columns) == []  # as of a model without categories


def test_the_hash_of_an_id_is_the_same_everywhere() -> None:
    """Fixed values: what a model was trained on is recorded by them."""
    hashes = rows.row_hashes(pd.Series(["a", "b", "a"]))
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [13950350942979735504, 12688059582079114975, 13950350942979735504]


def test_what_arrived_is_told_by_partition(tmp_path: Path) -> None:
    """When its rows were, how many there are, and which content: a corrected partition is another one."""
    for name, values in {"a": [1.0, 2.0], "b": [3.0]}.items():
        times = pd.date_range("2013-01-01" if name == "a" else "2013-02-01", periods=len(values), freq="h")
        files.write_parquet(tmp_path / "rows" / f"{name}.parquet", pd.DataFrame({"x": values, "time": times}))
    found = rows.arrived(tmp_path)
    assert {name: (one["rows"], one["from"], one["until"]) for name, one in found.items()} == {
        "a": (2, "2013-01-01T00:00:00", "2013-01-01T01:00:00"),
        "b": (1, "2013-02-01T00:00:00", "2013-02-01T00:00:00"),
    }
    assert found["a"]["sha256"] == files.sha256(tmp_path / "rows" / "a.parquet")


def test_a_feature_that_began_late_is_told_with_its_partitions(tmp_path: Path) -> None:
    """One that is missing in some rows only is not among them."""
    for name, values in {"p1": [None, None], "p2": [None, 1.0], "p3": [1.0, 2.0]}.items():
        frame = pd.DataFrame({"late": pd.Series(values, dtype="float64"), "always": 1.0, "text": "a", "id": ["a", "b"]})
        files.write_parquet(tmp_path / "rows" / f"{name}.parquet", frame)
    assert rows.without(tmp_path, ["late", "always", "text"]) == {"late": ["p1"]}
