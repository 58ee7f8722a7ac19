"""The MD5 of each file below data/, without reading again what has not changed.

As git's index does: a file whose size, modification time and inode are the ones seen before has the hash seen before.
A file that changed a moment ago is not trusted yet: it could change again within the same tick of the clock.
"""

from __future__ import annotations

import threading
import time
from functools import lru_cache
from pathlib import Path

from tasks.ground import files

RACY = 2_000_000_000  # ns; the coarsest modification time in use (FAT, some network shares) is two seconds

_writing = threading.Lock()


def md5s(every: list[Path]) -> dict[Path, str]:
    """The MD5 of each file, from its bytes or from `var/memo/stat.json` (losing that costs time, nothing else)."""
    cached = _load()
    fresh: dict[str, list[int | str]] = {}
    result: dict[Path, str] = {}
    for path in every:
        stat = path.stat()
        now = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        entry = cached.get(str(path))
        if entry is not None and entry[:3] == now:
            result[path] = str(entry[3])
            continue
        result[path] = files.md5(path)
        if stat.st_mtime_ns < time.time_ns() - RACY:
            fresh[str(path)] = [*now, result[path]]
    if fresh:
        _add(fresh)
    return result


def md5(path: Path) -> str:
    """The MD5 of one file."""
    return md5s([path])[path]


def _cache() -> Path:
    return files.memos() / "stat.json"


def _load() -> dict[str, list[int | str]]:
    try:
        return _read(_cache(), files.state_of(_cache()))
    except FileNotFoundError:
        return {}


@lru_cache(maxsize=1)
def _read(path: Path, state: tuple[int, ...]) -> dict[str, list[int | str]]:  # noqa: ARG001 - what a change changes
    """Once per content: it names every file, and is asked of every file."""
    return files.read_state(path, dict[str, list[int | str]]())


def _add(fresh: dict[str, list[int | str]]) -> None:
    with _writing:
        kept = {path: entry for path, entry in _load().items() if Path(path).exists()}
        files.write_json(_cache(), {**kept, **fresh})
