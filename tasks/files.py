"""Files: hashed, read, and written so that nobody ever reads half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import settings

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 1 << 20


def md5(path: Path) -> str:
    """The MD5 of a file's bytes, as DVC computes it. An identity, not a protection."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes: what a model file is checked against before it is loaded."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value, independent of the order of its keys. 0 is not the key "0", as it is to JSON."""
    text = json.dumps(_keys_as_text(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _keys_as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr([key]): _keys_as_text(each) for key, each in value.items()}
    return [_keys_as_text(each) for each in value] if isinstance(value, list | tuple) else value


def tree(folder: Path) -> dict[str, str]:
    """Relative path → SHA-256 of every file below a folder, byte code apart."""
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


# ── writing ───────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends well, and is gone when it does not.

    The block may make a file or a folder of it. What stood at `path` is never written into: a DVC cache
    that links instead of copying would otherwise be changed through it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp"
    remove(beside)
    try:
        yield beside
        if path.is_dir():
            _replace_folder(path, beside)
        else:
            beside.replace(path)
    finally:
        remove(beside)


def _replace_folder(path: Path, beside: Path) -> None:
    """Rename cannot replace a folder that is not empty: the old one is moved away whole, never read in half."""
    aside = beside.with_suffix(".old.tmp")
    remove(aside)
    path.replace(aside)
    try:
        beside.replace(path)
    except OSError:
        aside.replace(path)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(*folders: Path, below: bool = True) -> None:
    """Remove what killed processes left beside what they wrote (`.<name>.<pid>-….tmp`), in these folders and below."""
    for folder in folders:
        for left in folder.rglob(".*.tmp") if below else folder.glob(".*.tmp"):
            writer = re.search(r"\.(\d+)-[^/]*\.tmp$", left.name)
            if writer and not _lives(int(writer[1])):
                remove(left)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def append_line(path: Path, value: Any) -> None:
    """Add a line of JSON to a file; a kill, or a disk that is full, leaves all of the line or nothing.

    One process at a time.

    Raises:
        OSError: no space is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(file).st_size
        if os.write(file, line) < len(line):  # one write; half a line must not meet the next one
            os.ftruncate(file, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(file)


def lines(path: Path) -> list[Any]:
    """What was added to a file, line by line, oldest first; nothing where there is no file yet."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines()]


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as Parquet, whole or not at all; equal frames give equal bytes with the locked pyarrow."""
    with replacing(path) as beside:
        frame.to_parquet(beside, index=False, compression="zstd")


# ── memos: work that is done once per content ─────────────────────────────────────────────────────


def memo(kind: str, key: Any, suffix: str, make: Callable[[Path], None]) -> Path:
    """The file `make` wrote for this key, now or earlier: `make` runs once per content of `key`.

    A memo holds what one partition gave, so that the cost of a stage follows what is new while the stage
    stays a plain function of its inputs. `key` must name everything the result depends on. Losing
    `var/memo` costs time and nothing else.
    """
    path = settings.VAR / "memo" / kind / f"{digest(key)[:32]}{suffix}"
    if not path.exists():
        with replacing(path) as beside:
            make(beside)
    return path


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold `name` alone on this machine; wait for whoever holds it. A killed holder lets go by dying."""
    from filelock import FileLock

    folder = settings.VAR / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        yield
