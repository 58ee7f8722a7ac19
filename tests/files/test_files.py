"""Files as the world writes them: each kind of value is read as it was meant, or for a stated reason not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.files import page
from tests.files.meant import GIVEN, meant
from tests.files.writers import CSV, PARQUET, WRITERS, Writer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what pandas and pyarrow write lies."""
    return tmp_path_factory.mktemp("files")


def _id(writer: Writer) -> str:
    return f"{writer.file}, {writer.name}"


@pytest.mark.parametrize("column", GIVEN)
@pytest.mark.parametrize("writer", WRITERS, ids=_id)
def test_a_file_is_read_as_it_was_meant_or_refused(writer: Writer, column: str, folder: Path) -> None:
    """Refused with column, row and what to do; otherwise than meant only where the writer lost it."""
    if column not in writer.columns(folder):
        return
    got = writer.read(column, folder)
    if column in writer.refused:
        assert isinstance(got, str)
        assert f"column {column}, row " in got
        assert writer.refused[column] in got
        assert column not in writer.otherwise
    elif column in writer.otherwise:
        assert isinstance(got, list)
        assert got != meant(column)
    else:
        assert got == meant(column)


def test_every_writer_has_nearly_every_kind_of_value(folder: Path) -> None:
    """A file that lost its columns would pass the test above."""
    assert all(set(GIVEN) - set(writer.columns(folder)) <= {"zoned", "nested"} for writer in WRITERS)
    assert [len(PARQUET), len(CSV)] == [8, 19]


def test_the_page_says_what_these_files_become(folder: Path) -> None:
    """docs/reference/files.md: `python -m tests.files.page` writes it."""
    assert page.PAGE.read_text(encoding="utf-8") == page.text(folder)
