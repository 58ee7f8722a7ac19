"""Append-only ledger: one JSON value a line, flushed to the disk; a torn line is reported and left out."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

from tasks.ground import files

_log = logging.getLogger("evergreen")
_reported: set[Path] = set()


def append(path: Path, value: Any) -> None:
    """Add a line, and have it on the disk; a kill or a full disk leaves all of the line or nothing.

    One process at a time. Where a power cut has left half a line, it is set aside with a copy of the file first.

    Raises:
        OSError: no space is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
    is_new = not path.exists()
    if not is_new:
        _repair(path)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        before = os.fstat(file).st_size
        if os.write(file, line) < len(line):  # one write; half a line must not meet the next one
            os.ftruncate(file, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file)
    finally:
        os.close(file)
    if is_new:
        files.flush(path.parent)


def lines(path: Path) -> list[Any]:
    """Every line, oldest first; nothing where there is no file yet."""
    try:
        return _values(path.read_bytes(), path)
    except FileNotFoundError:
        return []


def tail(path: Path, size: int) -> list[Any]:
    """The lines within the last `size` bytes, oldest first. One that is just being written is left out."""
    try:
        with path.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, end - size))
            content = stream.read()
    except FileNotFoundError:
        return []
    begin = content.find(b"\n") + 1 if end > size else 0
    return _values(content[begin : content.rfind(b"\n") + 1], path)


def _repair(path: Path) -> None:
    """Leave only whole lines in a file whose last one was broken off."""
    with path.open("rb") as stream:
        if not stream.seek(0, os.SEEK_END):
            return
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) == b"\n":
            return
    whole = [line for line in path.read_bytes().split(b"\n") if _value(line) is not None]
    files.set_aside(path, "its last line was broken off", copy=True)
    with files.replacing(path) as beside:
        beside.write_bytes(b"".join(line.strip(b"\0") + b"\n" for line in whole))


def _values(content: bytes, path: Path) -> list[Any]:
    values = [_value(line) for line in content.split(b"\n") if line]
    if (torn := values.count(None)) and path not in _reported:
        _reported.add(path)
        _log.warning("%s: %d lines are torn and left out; the next line that is written repairs the file", path, torn)
    return [value for value in values if value is not None]


def _value(line: bytes) -> Any:
    """None for a line that is torn. A power cut may leave zeros where a line was to be."""
    try:
        return json.loads(line.strip(b"\0").decode())
    except ValueError:
        return None
