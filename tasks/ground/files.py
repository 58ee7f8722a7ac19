"""Files: hashed, read, and replaced atomically, also under a power cut; memos and locks.

Content is flushed to the disk before it replaces what was there. A state file that is torn all the same (an older file
system, a bad disk) is reported, set aside in var/torn/, and counts as missing: its next writer makes it again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.ground import settings
from tasks.ground.errors import FileTorn

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

_log = logging.getLogger("evergreen")


def md5(path: Path) -> str:
    """The MD5 of a file's bytes, as DVC computes it. An identity, not a protection."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


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
    """A path to write a file or a folder to, which replaces `path` when the block ends well, and is removed otherwise.

    What stood at `path` is never written into: a DVC cache that links instead of copying would be changed through it.
    All of it is on the disk before it is renamed, except below build/, which stages make again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp"
    remove(beside)
    try:
        yield beside
        lasting = not path.is_relative_to(settings.BUILD)
        if lasting:
            _flush_all(beside)
        if path.is_dir():
            _replace_folder(path, beside)
        else:
            beside.replace(path)
        if lasting:
            flush(path.parent)
    finally:
        remove(beside)


def flush(path: Path) -> None:
    """Have the disk hold the content of a file, or the names in a folder."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # a file system that does not know how for folders
            raise
    finally:
        os.close(file)


def _flush_all(path: Path) -> None:
    if path.is_dir():
        for below in path.iterdir():
            if not below.is_symlink():
                _flush_all(below)
    flush(path)


def _replace_folder(path: Path, beside: Path) -> None:
    """Rename cannot replace a folder that is not empty: the old one is moved away whole."""
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
    """Remove what killed processes left half-written (`.<name>.<pid>-….tmp`), in these folders and below."""
    for folder in folders:
        for left in folder.rglob(".*.tmp") if below else folder.glob(".*.tmp"):
            writer = re.search(r"\.(\d+)-[^/]*\.tmp$", left.name)
            if writer and not _is_alive(int(writer[1])):
                remove(left)


def _is_alive(pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(pid))


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        FileNotFoundError: there is no such file.
        FileTorn: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileTorn(
            f"{path} is not whole: {type(error).__name__}: {error}. A power cut or a full disk may have torn it. Move "
            f"it away, or restore it from a backup, then run again"
        ) from None


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as Parquet, whole or not at all; equal frames give equal bytes with the locked pyarrow."""
    with replacing(path) as beside:
        frame.to_parquet(beside, index=False, compression="zstd")


# ── state files ───────────────────────────────────────────────────────────────────────────────────


def read_state(path: Path, otherwise: T, parse: Callable[[Any], T] | None = None) -> T:
    """The value of a state file; `otherwise` where there is none, or where it is torn, which is logged and set aside.

    Args:
        path: a JSON file.
        otherwise: the value without a file; without `parse` its type is that of the file's value.
        parse: makes a value of the file's JSON, and fails where that is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if parse is not None:
            return parse(value)
        if isinstance(value, type(otherwise)):
            return value
        why = f"it holds a {type(value).__name__}, not a {type(otherwise).__name__}"
    except FileNotFoundError:
        return otherwise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
    set_aside(path, why)
    return otherwise


def is_whole(path: Path) -> bool:
    """Whether a JSON, Parquet or NumPy file is what its suffix says; every other file is, and every hidden one.

    A hidden file is being written, or was never finished: nothing reads it.
    """
    check = {".json": read_json, ".parquet": _refuse_no_parquet, ".npy": _map_array}.get(path.suffix)
    if check is None or path.name.startswith("."):
        return True
    try:
        check(path)
    except (ValueError, EOFError):
        return False
    return True


def _refuse_no_parquet(path: Path) -> None:
    """By its first and last bytes: quick, however large it is."""
    with path.open("rb") as stream:
        begin = stream.read(4)
        if stream.seek(0, os.SEEK_END) >= 12:
            stream.seek(-4, os.SEEK_END)
        if (begin, stream.read(4)) != (b"PAR1", b"PAR1"):
            raise ValueError(path)


def _map_array(path: Path) -> None:
    import numpy as np

    np.load(path, mmap_mode="r", allow_pickle=False)


def set_aside(path: Path, why: str, *, copy: bool = False) -> None:
    """Move (or copy) a torn file or folder to var/torn/, and log it, unless another process just did."""
    name = path.relative_to(settings.VAR) if path.is_relative_to(settings.VAR) else Path(path.name)
    aside = settings.VAR / "torn" / f"{'_'.join(name.parts)}.{time.time_ns()}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        shutil.copy2(path, aside) if copy else path.rename(aside)
        _log.warning("%s is torn (%s): set aside as %s, and made again from what is known", path, why, aside)


# ── memos: work that is done once per content ─────────────────────────────────────────────────────


def memos() -> Path:
    """The folder of memos, which is swept as a whole."""
    return settings.VAR / "memo"


def memo(kind: str, key: Any, suffix: str, make: Callable[[Path], None]) -> Path:
    """The file that `make` wrote for this key, now or earlier: it runs once per content of `key`.

    So the cost of a stage follows what is new, while the stage stays a plain function of its inputs. `key` must name
    everything the result depends on. Losing `var/memo` costs time; a memo that differs from its seal is made again.
    """
    path = _memo(kind, key, suffix)
    if not is_sealed(path):
        with replacing(path) as beside:
            make(beside)
        seal(path)
    return path


def kept(kind: str, key: Any, suffix: str) -> Path | None:
    """The file of a memo, if it was made."""
    path = _memo(kind, key, suffix)
    return path if is_sealed(path) else None


def _memo(kind: str, key: Any, suffix: str) -> Path:
    return memos() / kind / f"{digest(key)[:32]}{suffix}"


def seal(path: Path) -> None:
    """Write the hash of a file or a folder beside it (`<name>.sha256`), by which a change is noticed."""
    write_text(_seal_file(path), _hash_of(path))


def is_sealed(path: Path) -> bool:
    """Whether a file or a folder is there, and as it was when it was sealed; notes that it was used."""
    try:
        if seal_of(path) != _hash_of(path):
            return False
    except FileNotFoundError:
        return False
    os.utime(_seal_file(path))  # for forget_unused
    return True


def seal_of(path: Path) -> str:
    """The hash that a file or a folder was sealed with: of a memo's file, its SHA-256.

    Raises:
        FileNotFoundError: it was not sealed.
    """
    return _seal_file(path).read_text(encoding="ascii", errors="replace")


def forget_unused(folder: Path, days: float) -> list[Path]:
    """Remove what is sealed below a folder and was not used for so many days; gives the removed paths.

    The seal goes last: the next call finds what a kill leaves.
    """
    before, gone = time.time() - days * 86_400, []
    for beside in folder.rglob("*.sha256"):
        sealed = beside.with_name(beside.name.removesuffix(".sha256"))
        with suppress(FileNotFoundError):  # another process was first
            if beside.stat().st_mtime < before:
                remove(sealed)
                beside.unlink()
                gone.append(sealed)
    return gone


def _seal_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _hash_of(path: Path) -> str:
    return digest(tree(path)) if path.is_dir() else _sha256_of(path, state_of(path))


def state_of(path: Path) -> tuple[int, int, int, int]:
    """What changes of a file when it is written: its times, its size and its inode."""
    stat = path.stat()
    return stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size, stat.st_ino


@lru_cache(maxsize=65_536)
def _sha256_of(path: Path, state: tuple[int, int, int, int]) -> str:  # noqa: ARG001 - what a change changes
    """A file's hash; a process that asks again for a file that nothing has touched need not read it again."""
    return sha256(path)


# ── locks ─────────────────────────────────────────────────────────────────────────────────────────

WAIT_SECONDS = 60.0
"""Between two messages of a process that waits for a lock."""


@contextmanager
def lock(name: str, tell: Callable[[str], object] | None = None, who: str | None = None) -> Iterator[None]:
    """Hold the lock `name` of this machine; wait for its holder. A process that dies releases its locks.

    Args:
        name: of the lock.
        tell: gets a message that names the holder this waits for, and since when; None: prints it to stderr.
        who: how the messages of others name this process; None: by its command.
    """
    from filelock import FileLock, Timeout

    folder = settings.VAR / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    mutex, note = FileLock(folder / f"{name}.lock"), folder / f"{name}.json"
    tell, begin, waited = tell or partial(print, file=sys.stderr, flush=True), time.monotonic(), False
    while True:
        try:
            mutex.acquire(timeout=WAIT_SECONDS if waited else 0)
            break
        except Timeout:
            tell(f"{'still waits' if waited else 'waits'} for {_holder(note)}, which holds {name}")
            waited = True
    try:
        if waited:
            tell(f"goes on after {time.monotonic() - begin:.0f} s")
        _write_holder(note, who or " ".join(" ".join(sys.orig_argv).split())[:120])
        yield
    finally:
        mutex.release()


def _write_holder(note: Path, who: str) -> None:
    """For messages only: on a full disk, the lock is held all the same."""
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    with suppress(OSError):
        note.write_text(json.dumps({"pid": os.getpid(), "who": who, "since": since}), encoding="utf-8")


def _holder(note: Path) -> str:
    try:
        process = read_json(note)
    except (FileNotFoundError, ValueError):
        return "another process"
    if not _is_alive(process["pid"]):
        return "another process"
    return f"process {process['pid']} ({process['who']}, since {process['since']})"
