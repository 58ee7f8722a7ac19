"""Which process keeps this checkout's platform up: a lock, and a note with the processes of its services, in var/run.

Both may be lost with var/run, so the processes themselves are asked too.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, paths, process_tags
from tasks.ground.errors import WorldError

if TYPE_CHECKING:
    from filelock import FileLock

NOTE_SECONDS = 5.0  # how long a platform that starts may take to write its note


def read_note() -> dict[str, Any]:
    """`pid`, whether it is `ready`, the process of each of its `services`, and which were `chosen`."""
    return files.read_state(_note(), dict[str, Any]())


def write_note(ready: bool = False, services: dict[str, int] | None = None) -> None:
    """Note that this process keeps the platform up."""
    chosen = os.environ.get("EVERGREEN_SERVICES", "")
    note = {"pid": os.getpid(), "ready": ready, "services": services or {}, "chosen": chosen}
    if read_note() != note:
        files.write_json(_note(), note)


def take_lock(seconds: float = 0) -> FileLock | None:
    """The lock of the process that keeps the platform up; None while another process holds it."""
    from filelock import FileLock, Timeout

    paths.run_folder().mkdir(parents=True, exist_ok=True)
    lock = FileLock(_lock())
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return None
    return lock


def find_supervisor() -> int | None:
    """The process that keeps the platform up, by its lock or, without one, by the processes it has started."""
    deadline = time.monotonic() + NOTE_SECONDS
    while _lock().exists():
        lock = take_lock()
        if lock is not None:
            lock.release()
            break
        pid = read_note().get("pid")
        if pid and process_tags.is_supervisor(pid):
            return int(pid)
        if time.monotonic() > deadline:
            raise WorldError(f"a process holds {_lock()}, and has not noted which it is")
        time.sleep(0.1)
    return process_tags.find_supervisor()


def _lock() -> Path:
    return paths.run_folder() / "stack.lock"


def _note() -> Path:
    return paths.run_folder() / "stack.json"
