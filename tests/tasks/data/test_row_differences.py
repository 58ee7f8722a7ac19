"""Rows that differ between two versions of a partition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from tasks.data import row_differences
from tasks.ground.errors import Mistake
from tasks.ground.params import Params
from tests.tasks.data.test_revisions import World, corrected, month, world

__all__ = ["world"]

BEFORE = pd.DataFrame({"who": ["a", "b", "c", "d"], "amount": [1.5, 2.0, None, 4.0], "city": ["x", "y", "z", "x"]})
AFTER = pd.DataFrame({"who": ["e", "d", "c", "b"], "amount": [9.0, 4.0, None, 2.5], "city": ["x", "x", "z", None]})


def test_rows_are_told_apart_by_the_key() -> None:
    """In any order; a missing value is equal to a missing one."""
    found = row_differences.compare(BEFORE, AFTER, ["who"])
    assert (found.counts.added, found.counts.removed, found.counts.altered) == (1, 1, 1)
    assert found.examples() == {
        "added": [{"who": "e", "amount": 9.0, "city": "x"}],
        "removed": [{"who": "a", "amount": 1.5, "city": "x"}],
        "altered": [{"key": {"who": "b"}, "columns": {"amount": [2.0, 2.5], "city": ["y", None]}}],
    }
    assert list(row_differences.in_words(found)) == [
        "1 added, 1 removed, 1 altered of 4 rows (amount 1, city 1)",
        "added:", "  who e, amount 9, city x",
        "removed:", "  who a, amount 1.5, city x",
        "altered:", "  who b: amount 2 → 2.5, city y → missing",
    ]  # fmt: skip
    assert found.table()["change"].tolist() == ["removed", "was", "is", "added"]


def test_a_column_that_is_called_change_keeps_its_values() -> None:
    """Such as that of a price."""
    found = row_differences.compare(BEFORE.assign(change=0.5), AFTER.assign(change=0.5), ["who"]).table()
    assert found["change"].tolist() == [0.5] * 4
    assert found["change of the row"].tolist() == ["removed", "was", "is", "added"]


@pytest.mark.parametrize("key", [[], ["city"]])
def test_without_a_key_rows_are_compared_as_multisets(key: Sequence[str]) -> None:
    """Also where the key stands twice: a row that stands once less was removed once."""
    before = pd.DataFrame({"city": ["x", "x", "x", "y"], "n": [1, 1, 1, 2]})
    after = pd.DataFrame({"n": [2, 1, 3, 3], "city": ["y", "x", "x", "x"]})
    found = row_differences.compare(before, after, key)
    assert found.examples() == {
        "added": [{"n": 3, "city": "x"}] * 2,
        "removed": [{"city": "x", "n": 1}] * 2,
        "altered": [],
    }
    assert next(row_differences.in_words(found)).startswith("2 added, 2 removed of 4 rows, whole rows compared")


def test_a_column_that_only_one_version_has_differs_in_every_row() -> None:
    """As after a schema grew."""
    found = row_differences.compare(BEFORE, BEFORE.assign(late=1), ["who"])
    assert found.counts.columns == {"late": 4}
    assert found.examples(1)["altered"] == [{"key": {"who": "a"}, "columns": {"late": [None, 1]}}]


def test_nothing_differs_between_equal_versions(tmp_path: Path) -> None:
    """And the file with all of the rows has none."""
    found = row_differences.compare(BEFORE, BEFORE[::-1], ["who"])
    assert list(row_differences.in_words(found)) == ["none changed of 4 rows"]
    row_differences.write(found, tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_text() == "change,who,amount,city\n"
    with pytest.raises(Mistake, match=r"all.txt: name a file that ends in .csv or .parquet"):
        row_differences.write(found, tmp_path / "all.txt")


def test_revisions_and_files_are_compared(world: World, given: Params, tmp_path: Path) -> None:
    """By number; without one, the last revision with the one before; a file that was not delivered yet, too."""
    with pytest.raises(Mistake, match=r"was never revised.*evergreen diff weather 2013-01 --to FILE"):
        row_differences.between(given, "weather", "2013-01")
    world.deliver("2013-01.csv", corrected("2013-01", "39.5", rows=7))
    before, after, found = row_differences.between(given, "weather", "2013-01")
    assert (before, after, found.counts.altered, dict(found.counts.columns)) == (
        "revision 1", "what counts now", 7, {"temp": 7}
    )  # fmt: skip
    assert len(found.examples()["altered"]) == 5
    row_differences.write(found, tmp_path / "all.parquet")
    assert pd.read_parquet(tmp_path / "all.parquet")["change"].value_counts().to_dict() == {"was": 7, "is": 7}
    file = tmp_path / "draft.csv"
    file.write_bytes(month("2013-01"))
    assert row_differences.between(given, "weather", "2013-01", now=str(file))[2].counts.altered == 7
    assert row_differences.between(given, "weather", "2013-01", "1", str(file))[2].counts.altered == 0
    assert row_differences.between(given, "weather", "2013-01", "2", "1")[2].counts.altered == 7


@pytest.mark.parametrize(
    ("dataset", "former", "said"),
    [
        ("wether", None, "no model reads a dataset 'wether'; did you mean 'weather'?"),
        ("weather", "3", "has the revisions 1 to 2, and no 3"),
        ("weather", "0", "has the revisions 1 to 2, and no 0"),
        ("weather", "nowhere.csv", "'nowhere.csv' is neither the number of a revision nor a file"),
        ("weather", "broken.csv", "broken.csv or what counts now of weather/2013-01 cannot be read"),
    ],
)
def test_a_version_that_is_none_is_told(
    dataset: str, former: str | None, said: str, world: World, given: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what there is."""
    monkeypatch.chdir(world.root)
    (world.root / "broken.csv").write_text("a;b\n1;2\n")
    world.deliver("2013-01.csv", corrected("2013-01"))
    with pytest.raises(Mistake, match=said.replace("?", r"\?")):
        row_differences.between(given, dataset, "2013-01", former)
