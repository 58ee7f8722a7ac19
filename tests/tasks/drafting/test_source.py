"""Files of a table that nobody has described: which dialect they have, and what is told of those that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.drafting import source, survey
from tasks.ground.errors import Mistake

RNG = np.random.default_rng(0)
NUMBERS = [f"{number:.3f}" for number in RNG.normal(size=200)]


def seen(folder: Path, *contents: str | bytes) -> survey.Survey:
    """The survey of files of such content."""
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"{number}.csv")
        paths[-1].write_bytes(content.encode() if isinstance(content, str) else content)
    return survey.survey(source.look(paths), lambda _share, _rows: None)


def table(*rows: str, names: str = "x,y") -> str:
    """A CSV of them."""
    return "\n".join([names, *rows]) + "\n"


def types(of: survey.Survey) -> list[str]:
    """Of its columns."""
    return [column.type for column in of.columns.values()]


def test_old_line_ends_are_read(tmp_path: Path) -> None:
    """Lines that end in a carriage return alone."""
    assert seen(tmp_path, table(*(f"{x},1" for x in NUMBERS)).replace("\n", "\r")).rows == 200


def test_a_very_long_text_is_read(tmp_path: Path) -> None:
    """Longer than Python's reader of CSV takes by itself."""
    assert seen(tmp_path, table(*(f"{x},{'a b ' * 40_000}" for x in NUMBERS[:5]))).columns["y"].longest > 150_000


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_quotation_mark_that_is_never_closed_is_told(place: str, tmp_path: Path) -> None:
    """All that follows it would be one text: rows that nobody misses."""
    rows = [f'"{x},1' if place == "first" and i == 150 else f"{x},a" for i, x in enumerate(NUMBERS)]
    rows[150] = '1,"st' if place == "last" else rows[150]
    with pytest.raises(Mistake, match="cannot be read to its end"):
        seen(tmp_path, table(*rows))


@pytest.mark.parametrize("names", ["x;y;z", NUMBERS[0].replace(".", ",") + ";0,5;0,25"])
def test_decimal_commas_are_no_delimiters(names: str, tmp_path: Path) -> None:
    """Where every column has them, with a line of names and without."""
    rows = [f"{x};0,5;{x}0".replace(".", ",") for x in NUMBERS]
    assert types(seen(tmp_path, table(*rows, names=names))) == ["float64"] * 3


@pytest.mark.parametrize(
    ("first", "second"), [("1990", "2024-01-01"), ("5", "true"), ("true", "1.5"), ("2024-01-01", "2024-01-01T00:00Z")]
)
def test_a_type_holds_for_all_files(first: str, second: str, tmp_path: Path) -> None:
    """What is of one type in one file and of another in the next is a text, not what the last one is."""
    files = [table(*(f"{x},{value}" for x in NUMBERS)) for value in (first, second)]
    assert types(seen(tmp_path, *files)) == ["float64", "str"]


def test_a_file_that_is_named_twice_is_told(tmp_path: Path) -> None:
    """By itself and by its folder."""
    (tmp_path / "x.csv").write_text(table("1,2", "2,1"), encoding="utf-8")
    with pytest.raises(Mistake, match="is named twice"):
        source.look([tmp_path, tmp_path / "x.csv"])


def test_whole_numbers_and_fractions_are_numbers(tmp_path: Path) -> None:
    """In whichever file they stand."""
    assert types(seen(tmp_path, table("1,a", "2,a"), table("1.5,a", "2,a"))) == ["float64", "str"]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (table("1,2"), table("1;2", names="x;y"), "has the delimiter ';'"),
        (table("1,ä").encode("cp1252"), table("1,ö"), "has the encoding utf-8"),
        ("1,2\n3,4\n", table("1,2"), "lacks column_1"),
    ],
)
def test_files_that_are_not_written_alike_are_told(first: str | bytes, second: str, words: str, tmp_path: Path) -> None:
    """They would be read as the first one is."""
    with pytest.raises(Mistake, match=words):
        seen(tmp_path, first, second)
