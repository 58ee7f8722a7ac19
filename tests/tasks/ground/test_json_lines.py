"""Files of JSON lines lose no whole line, whatever happens to the last one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.ground import json_lines, settings


@pytest.fixture(autouse=True)
def _own_var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "VAR", tmp_path / "var")


def test_a_line_that_a_full_disk_cuts_off_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one does not meet half a line."""
    path, write = tmp_path / "book.jsonl", os.write
    json_lines.append(path, {"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:3]))
        with pytest.raises(OSError, match=r"No space left on device.*book\.jsonl"):
            json_lines.append(path, {"n": 2})
    json_lines.append(path, {"n": 3})
    assert json_lines.lines(path) == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize("torn", [b'{"n": 2', b"\0\0\0\0\0", b"\xff\xfe", b'{"n": 2}\n{"n"'])
def test_a_torn_line_is_reported_and_left_out_and_the_next_one_repairs_the_file(
    caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    """What was whole is kept; a copy of what was there is set aside."""
    path = settings.VAR / "book.jsonl"
    json_lines.append(path, {"n": 1})
    with path.open("ab") as stream:
        stream.write(torn)
    kept = [{"n": 1}, {"n": 2}] if b"\n" in torn else [{"n": 1}]
    assert json_lines.lines(path) == kept
    assert f"{path}: 1 lines are torn" in caplog.text
    before = path.read_bytes()
    json_lines.append(path, {"n": 3})
    assert json_lines.lines(path) == [*kept, {"n": 3}]
    assert path.read_bytes().count(b"\n") == len(kept) + 1
    (aside,) = (settings.VAR / "torn").iterdir()
    assert aside.read_bytes() == before
