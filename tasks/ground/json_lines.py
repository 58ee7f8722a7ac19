"""JSON lines: a file that only grows, a value a line, flushed to the disk; a torn line is reported and left out."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.ground import files

_log = logging.getLogger("evergreen")
_reported: set[Path] = set()


def append(path: Path, value: Any) -> None:
    """Add a value, as `append_line` adds its bytes."""
    append_line(path, json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode())


def append_line(path: Path, line: bytes) -> None:
    """Add a line, and have it on the disk; a kill or a full disk leaves all of the line or nothing.

    One process at a time. Where a power cut has left half a line, it is set aside with a copy of the file first.

    Raises:
        OSError: no space is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    repair(path)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        before = os.fstat(file).st_size
        if os.write(file, line + b"\n") <= len(line):  # one write; half a line must not meet the next one
            os.ftruncate(file, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file)
    finally:
        os.close(file)
    if is_new:
        files.flush(path.parent)


def lines(path: Path) -> list[Any]:
    """Every value, oldest first; nothing where there is no file yet."""
    try:
        return values(path.read_bytes().split(b"\n"), path)
    except FileNotFoundError:
        return []


def values(written: Iterable[bytes], path: Path) -> list[Any]:
    """What lines of a file hold; those that are torn are left out, which is logged once."""
    read = [value(line) for line in written if line]
    if (torn := read.count(None)) and path not in _reported:
        _reported.add(path)
        _log.warning("%s: %d lines are torn and left out; the next line that is written repairs the file", path, torn)
    return [each for each in read if each is not None]


def value(line: bytes) -> Any:
    """None for a line that is torn. A power cut may leave zeros where a line was to be."""
    try:
        return json.loads(line.strip(b"\0").decode())
    except ValueError:
        return None


def repair(path: Path) -> None:
    """Take off the end of a file what no newline ends: half a line, or zeros. A whole line gets its newline."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        if not stream.seek(0, os.SEEK_END):
            return
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) == b"\n":
            return
    content = path.read_bytes()
    whole, _, rest = content.rpartition(b"\n")
    last = rest.strip(b"\0")
    files.set_aside(path, "its last line was broken off", copy=True)
    with files.replacing(path) as beside:
        ended = last + b"\n" if value(last) is not None else b""
        beside.write_bytes((whole + b"\n" if whole else b"") + ended)
