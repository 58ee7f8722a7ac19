"""DVC's files (`data.dvc`, `dvc.lock`, `.dvc/tmp/rwlock`) under kill -9: written whole, and repaired.

DVC empties such a file and then writes it: a kill in between leaves an unreadable one, and every later run fails on it.
In our own processes DVC therefore writes beside and renames. What a `dvc repro` of a person left half-written is
repaired here, without importing DVC.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from tasks.ground import files, settings, yaml_reader
from tasks.ground.errors import InUse, Mistake

T = TypeVar("T")

WAIT_SECONDS = 600
"""How long another process may be at work on the same files before this one gives up."""


def write_whole(serializers: ModuleType) -> None:
    """Have DVC in this process write its YAML files whole or not at all.

    Args:
        serializers: `dvc.utils.serialize._yaml`.
    """
    dump: Any = vars(serializers)["_dump_data"]
    if getattr(dump, "whole", False):
        return

    def dump_whole(path: Any, data: Any, *arguments: Any, **more: Any) -> None:
        with files.replacing(Path(path).absolute()) as beside:
            dump(str(beside), data, *arguments, **more)

    dump_whole.whole = True  # type: ignore[attr-defined]
    vars(serializers)["_dump_data"] = dump_whole


def wait_for_others(act: Callable[[], T], log: Callable[[str], object] = print) -> T:
    """Do something with DVC; while another process is at work on the same files, wait for it, and log which.

    DVC itself waits for its repository lock, but fails at once on files that `.dvc/tmp/rwlock` lists.

    Raises:
        InUse: it is still at work after `WAIT_SECONDS`.
    """
    from dvc.exceptions import ReproductionError
    from dvc.lock import LockError

    begin, blocker = time.monotonic(), ""
    while True:
        try:
            return act()
        except (LockError, ReproductionError) as error:
            busy = error if isinstance(error, LockError) else error.__cause__
            if not isinstance(busy, LockError):
                raise
            waits, blocker = blocker, _blocker(busy)
            if time.monotonic() - begin > WAIT_SECONDS:
                raise InUse(f"{blocker}, for {WAIT_SECONDS} s now. When it is done, run again") from error
        if blocker != waits:
            log(f"waiting: {blocker}")
        time.sleep(0.5)


def _blocker(busy: Exception) -> str:
    """DVC's message without its advice to remove the list of processes."""
    return " ".join(str(busy).partition("\n\n")[0].split()).replace("is busy, it is being blocked by:", "is in use by")


def repair() -> None:
    """Remove what a killed DVC left half-written; to be called before DVC is.

    A `dvc.lock` that was broken off goes: DVC's run cache gives back what it named, and no step runs again.

    Raises:
        Mistake: data.dvc or dvc.lock holds both sides of a merge.
    """
    for path in (settings.ROOT / "data.dvc", settings.ROOT / "dvc.lock"):
        if path.exists() and "<<<<<<<" in path.read_text(encoding="utf-8", errors="replace"):
            raise Mistake(f"{path.name} holds both sides of a merge: `evergreen merge` joins them")
    files.sweep(settings.ROOT, below=False)
    temporary = settings.ROOT / ".dvc" / "tmp"
    _remove_if(_is_broken_off, settings.ROOT / "dvc.lock", temporary / "lock")
    _remove_if(_is_abandoned, temporary / "rwlock", temporary / "rwlock.lock")


def _remove_if(is_left: Callable[[Path], bool], path: Path, mutex: Path) -> None:
    """Remove what a kill left; `mutex` (zc.lockfile: flock) is what DVC holds while it writes the file."""
    if not is_left(path):
        return
    mutex.parent.mkdir(parents=True, exist_ok=True)
    with mutex.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if is_left(path):
            files.remove(path)


def _is_broken_off(lock: Path) -> bool:
    """Whether dvc.lock is not what DVC writes."""
    try:
        return not _is_whole(lock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except UnicodeDecodeError:
        return True


@lru_cache(maxsize=2)  # it is asked each time that DVC is
def _is_whole(text: str) -> bool:
    try:
        content = yaml_reader.load(text)
        stages = content["stages"].values()
        entries = [entry for stage in stages for kind in ("deps", "outs") for entry in stage.get(kind, [])]
        needed = [content["schema"], *(stage["cmd"] for stage in stages), *(entry["path"] for entry in entries)]
    except (yaml_reader.YAMLError, AttributeError, KeyError, TypeError):
        return False
    return all(needed)


def _is_abandoned(rwlock: Path) -> bool:
    """Whether the list of processes at work is broken off, or names only processes that are gone.

    DVC takes a process with the same number for the one that was killed: after a restart of a container, that is soon
    the case, and it would wait for ever. A process that began after the list was written cannot be on it.
    """
    import psutil

    try:
        written = rwlock.stat().st_mtime
        content = json.loads(rwlock.read_text(encoding="utf-8"))
        readers = [reader for readers in content.get("read", {}).values() for reader in readers]
        pids = {int(process["pid"]) for process in [*content.get("write", {}).values(), *readers]}
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError, KeyError, TypeError):
        return True

    def began_before(pid: int) -> bool:
        try:
            return bool(psutil.Process(pid).create_time() <= written + 1)
        except psutil.NoSuchProcess:
            return False

    return bool(pids) and not any(began_before(pid) for pid in pids)
