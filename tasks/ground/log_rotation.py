"""Logs within limits, while those who write them run on: turned over by size; what is said over and over is counted.

A log is written by appending (O_APPEND), so it can be copied aside and begun anew under its writer's hands. What is
written in the instant between the two is lost.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from tasks.ground import files

LARGEST = 20_000_000
"""A log that is larger is begun anew; its end is kept as `<name>.log.1`, so that each takes twice as much at most."""

REPLICAS, LARGEST_OF_REPLICA = 40, 2_000_000
"""So many logs of replicas are kept, besides those of the releases that are kept running; and how large each may be."""

SELDOM_S = 60.0
"""A message that is repeated is written once in so many seconds, with how many there were."""


def turn_over(path: Path, largest: int = LARGEST) -> bool:
    """Begin a log anew if it has grown too large; gives whether it had."""
    size = path.stat().st_size
    if size <= largest:
        return False
    with path.open("rb") as log, files.replacing(path.with_name(f"{path.name}.1")) as kept:
        log.seek(size - largest)
        kept.write_bytes(log.read())
    os.truncate(path, 0)
    return True


def turn_over_all(folder: Path, largest: int = LARGEST) -> None:
    """Each log of a folder. Where the disk is full, none: there is nowhere to copy it to."""
    for path in sorted(folder.glob("*.log")):
        try:
            turn_over(path, largest)
        except FileNotFoundError:  # it went meanwhile
            continue


def sweep(folder: Path, in_use: Collection[str]) -> None:
    """Forget the oldest logs of replicas whose release is no longer kept running.

    Args:
        folder: where they are, as <model>-<candidate>.log, or .<n>.log.
        in_use: <model>-<candidate> of each release that is.
    """
    turn_over_all(folder, LARGEST_OF_REPLICA)
    rest = [path for path in folder.glob("*.log*") if path.name.partition(".")[0] not in in_use]
    for path in sorted(rest, key=lambda path: -path.stat().st_mtime_ns)[REPLICAS:]:
        path.unlink(missing_ok=True)


class Seldom(logging.Filter):
    """Lets a message pass once in a while: whoever can make a server say something could fill its disk with it."""

    def __init__(self, seconds: float = SELDOM_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds, self._clock = seconds, clock
        self._passed: dict[str, tuple[float, int]] = {}
        """Message → when it passed last, and how often it has not since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written; says in it how many were not."""
        said, now = str(record.msg), self._clock()
        passed, more = self._passed.get(said, (float("-inf"), 0))
        if now - passed < self._seconds:
            self._passed[said] = passed, more + 1
            return False
        self._passed = {one: known for one, known in self._passed.items() if now - known[0] < self._seconds}
        self._passed[said] = now, 0
        if more:
            record.msg = f"{said} ({more} more of these since the last line)"
        return True
