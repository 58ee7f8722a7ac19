"""Log rotation while the writers run on: by size; and a filter that counts what is repeated.

A log is written by appending (O_APPEND), so it can be copied aside and truncated under its writer's hands. What is
written in the instant between the two is lost.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from tasks.ground import files

LARGEST = 20_000_000
"""A larger log is begun anew; its end is kept as `<name>.log.1`, so that each takes twice as much at most."""

REPLICAS, LARGEST_OF_REPLICA = 40, 2_000_000
"""So many logs of replicas are kept, besides those of the releases that run; and how large each may be."""

REPEAT_S = 60.0
"""A message that is repeated is written once in so many seconds, with how many there were."""


def rotate_all(folder: Path, largest: int = LARGEST) -> None:
    """Begin each log of a folder anew that has grown too large. Where the disk is full, none is: the end is copied."""
    for path in sorted(folder.glob("*.log")):
        with suppress(FileNotFoundError):  # it went meanwhile
            if (size := path.stat().st_size) > largest:
                with path.open("rb") as log, files.replacing(path.with_name(f"{path.name}.1")) as kept:
                    log.seek(size - largest)
                    kept.write_bytes(log.read())
                os.truncate(path, 0)


def sweep(folder: Path, in_use: Collection[str]) -> None:
    """Rotate the logs of replicas, and remove the oldest of those whose release does not run any more.

    Args:
        folder: where they are, as <model>-<candidate>.log, or .<n>.log.
        in_use: <model>-<candidate> of each release that runs.
    """
    rotate_all(folder, LARGEST_OF_REPLICA)
    unused = [path for path in folder.glob("*.log*") if path.name.partition(".")[0] not in in_use]
    for path in sorted(unused, key=lambda path: -path.stat().st_mtime_ns)[REPLICAS:]:
        path.unlink(missing_ok=True)


class RepeatFilter(logging.Filter):
    """Lets a message pass once in a while: clients that cause one over and over must not fill the disk with it."""

    def __init__(self, seconds: float = REPEAT_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds, self._clock = seconds, clock
        self._passed: dict[str, tuple[float, int]] = {}
        """Message → when it passed last, and how often it has not since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written; adds to it how many were not."""
        message, now = str(record.msg), self._clock()
        passed, skipped = self._passed.get(message, (float("-inf"), 0))
        if now - passed < self._seconds:
            self._passed[message] = passed, skipped + 1
            return False
        self._passed = {name: entry for name, entry in self._passed.items() if now - entry[0] < self._seconds}
        self._passed[message] = now, 0
        if skipped:
            record.msg = f"{message} ({skipped} more of these since the last line)"
        return True
