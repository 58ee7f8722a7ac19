"""Partitions of a table: a file each, or by time, or by so many rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.drafting import cutting, source, survey
from tasks.ground.errors import Mistake


def seen(*paths: Path) -> survey.Survey:
    """Of files with two rows each."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x,y\n1,a\n2,b\n", encoding="utf-8")
    return survey.survey(source.look(paths), lambda _share, _rows: None)


def test_a_file_is_a_partition(tmp_path: Path) -> None:
    """By its name, without what a partition may not be called."""
    done = cutting.cut(
        seen(tmp_path / "my table.csv", tmp_path / "b.csv"), "file", None, (), "y", tmp_path / "cut", lambda *_: None
    )
    assert done.rows == {"my-table": 2, "b": 2}


@pytest.mark.parametrize("names", [("a/x.csv", "b/x.csv"), ("x y.csv", "x-y.csv")])
def test_two_files_are_not_one_partition(names: tuple[str, str], tmp_path: Path) -> None:
    """In two folders, or of names that become alike."""
    table = seen(*(tmp_path / name for name in names))
    with pytest.raises(Mistake, match="would both be the partition x"):
        cutting.cut(table, "file", None, (), "y", tmp_path / "cut", lambda *_: None)
