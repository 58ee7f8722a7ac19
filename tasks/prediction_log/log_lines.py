"""Files of lines of the prediction log, as replicas append to them: what stands in them, and at which place.

A line's place is the byte behind it. A file is named by its day, its own name, and a digest of its first line, as a
later process may get the same number, and so the same file name.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tasks.ground import paths
from tasks.prediction_log import erasures, log_tables
from tasks.prediction_log.erasures import Erasure
from tasks.prediction_log.log_tables import BEGIN, Logged

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Ints = npt.NDArray[np.int64]

BLOCK = 1 << 20
"""Bytes of lines that are read at once: more is not faster."""

A_MINUTE = 60
"""Seconds after which the process that made an empty file has its lock, or is dead."""


@dataclass(frozen=True)
class LineKeys:
    """What identifies each of some requests. In NumPy: `pyarrow.array` would import pandas."""

    requests: npt.NDArray[np.bytes_]
    moments: Ints
    """When they were answered, in ms since 1970."""
    places: Ints

    def only(self, kept: npt.NDArray[np.bool_]) -> LineKeys:
        """Those of a mask."""
        return LineKeys(self.requests[kept], self.moments[kept], self.places[kept])

    def within(self, since: int, until: int) -> LineKeys:
        """Those from one moment to another, both included."""
        return self.only((self.moments >= since) & (self.moments <= until))

    def end(self, until: int) -> int:
        """The place of the last one answered at this moment or earlier; 0 without one."""
        return int(self.places[self.moments <= until].max(initial=0))


class LogLines:
    """An open file of lines, without the rows that erasure orders concern. It stays readable when it is removed."""

    def __init__(self, path: Path, stream: BinaryIO, first: bytes, orders: Sequence[Erasure] = ()) -> None:
        self.path, self.stream, self.orders = path, stream, orders
        self.day = path.parent.name
        self.name = f"{self.day}/{path.stem}.{hashlib.sha256(first).hexdigest()[:12]}"
        self.size = os.fstat(stream.fileno()).st_size

    @cached_property
    def whole(self) -> int:
        """The place of the last whole line: what is behind it was torn, or is being written."""
        with mmap.mmap(self.stream.fileno(), self.size, access=mmap.ACCESS_READ) as content:
            return content.rfind(b"\n") + 1

    def keys(self, start: int) -> LineKeys:
        """The keys of the lines behind a place: a tenth of their size."""
        import numpy as np

        blocks = [_keys(block, place) for block, place in self._blocks(start, self.whole)]
        columns = ("requests", "moments", "places")
        empty = LineKeys(np.empty(0, np.bytes_), np.empty(0, np.int64), np.empty(0, np.int64))
        return LineKeys(*(np.concatenate([getattr(keys, name) for keys in (empty, *blocks)]) for name in columns))

    def tables(self, start: int, end: int) -> Iterator[tuple[pa.Table, int, int]]:
        """The rows between two places, in blocks; the place that each reaches; how many lines could not be read."""
        for block, place in self._blocks(start, end):
            requests, damaged = log_tables.parse_block(block, place)
            yield erasures.without(log_tables.to_table(requests), self.orders), place + len(block), damaged

    def newest(self, n: int) -> list[Logged]:
        """The last n requests, as they were posted, oldest first; read from the end backwards.

        Only where rows are erased a table is made, which takes longer than all the rest.
        """
        length = BLOCK
        while True:
            begin = self.stream.seek(max(0, self.size - length))
            begin += len(self.stream.readline()) if begin else 0  # the rest of a line
            requests = self._without_erased(
                [logged for block in self._blocks(begin, self.size) for logged in log_tables.parse_block(*block)[0]]
            )
            if len(requests) >= n or length >= self.size:
                return requests[-n:]
            length *= 4

    def latest(self) -> int:
        """The last moment, without reading all rows; less than any without a row."""
        return max((request.moment for request in self.newest(1)), default=-(2**62))

    def find(self, prediction_id: str) -> Logged | None:
        """The request of a prediction, with its row and answer only."""
        with mmap.mmap(self.stream.fileno(), self.size, access=mmap.ACCESS_READ) as content:
            at = content.find(f'"{prediction_id}"'.encode())
            if at < 0:
                return None
            begin, end = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at) + 1
            requests = [logged.only(prediction_id) for logged in log_tables.parse_block(content[begin:end], begin)[0]]
        return next(iter(self._without_erased([logged for logged in requests if logged.ids])), None)

    def is_closed(self, now: datetime) -> bool:
        """Whether no process will write to it again, nor has since it was opened."""
        return is_closed(self.stream, now) and os.fstat(self.stream.fileno()).st_size == self.size

    def written(self) -> float:
        """When it was last written to, in seconds since 1970."""
        return os.fstat(self.stream.fileno()).st_mtime

    def _without_erased(self, requests: list[Logged]) -> list[Logged]:
        if not self.orders or not requests:
            return requests
        return log_tables.to_requests(erasures.without(log_tables.to_table(requests), self.orders))

    def _blocks(self, start: int, end: int) -> Iterator[tuple[bytes, int]]:
        """Whole lines from `start` to `end`, and the place where they begin; not what no line break follows."""
        self.stream.seek(start)
        place, rest = start, b""
        while place + len(rest) < end:
            more = self.stream.read(min(BLOCK, end - place - len(rest)))
            if not more:
                return
            cut = more.rfind(b"\n") + 1
            if cut:
                yield rest + more[:cut], place
                place, rest = place + len(rest) + cut, more[cut:]
            else:
                rest += more


def is_closed(stream: BinaryIO, now: datetime) -> bool:
    """Whether no process will write to a file of lines again."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(stream, fcntl.LOCK_UN)
    status = os.fstat(stream.fileno())
    return status.st_size > 0 or now.timestamp() - status.st_mtime > A_MINUTE


@contextmanager
def opened(
    model: str, orders: Sequence[Erasure] = (), days: Iterable[str] | None = None, release: str | None = None
) -> Iterator[list[LogLines]]:
    """The files of lines that have a whole line; of some days, or of one release only."""
    with ExitStack() as stack:
        lines = []
        for path in line_files(model):
            is_wanted = days is None or path.parent.name in days
            if not is_wanted or (release and not path.name.startswith(f"{release}.")):
                continue
            with suppress(FileNotFoundError):  # it was compacted just now
                stream = stack.enter_context(path.open("rb"))
                if (first := stream.readline()).endswith(b"\n"):
                    lines.append(LogLines(path, stream, first, orders))
        yield lines


def line_files(model: str) -> list[Path]:
    """Every file of lines, oldest day first."""
    return sorted(paths.incoming_predictions(model).glob("????-??-??/*.jsonl"))


_LINE = re.compile(rb'^\{"request":"([^"\\\n]+)","time":"[^\n]*?"ids":\["([0-9a-f]{12})[^\n]*\}\n', re.MULTILINE)


def _keys(block: bytes, place: int) -> LineKeys:
    """The keys of each line, without parsing the rest where every line looks whole."""
    import numpy as np

    matches = list(_LINE.finditer(block))
    if len(matches) == block.count(b"\n") == block.count(BEGIN):
        keys = [(match[1], int(match[2], 16), match.end() + place) for match in matches]
    else:
        requests, _ = log_tables.parse_block(block, place)
        keys = [(logged.request.encode(), logged.moment, logged.place) for logged in requests]
    names, moments, places = zip(*keys, strict=True) if keys else ((), (), ())
    return LineKeys(np.array(names, np.bytes_), np.array(moments, np.int64), np.array(places, np.int64))


def superseded(keys: Mapping[str, LineKeys], near: int) -> dict[str, set[int]]:
    """Of each file the places of the lines whose request a later line of another file answers, at most `near` ms later.

    A line was not answered only if its process was killed right then. So it is one of the last of its file (of the
    last two, if the process had just begun another), and the later line is in a file that was written to then or soon
    after.
    """
    spans = {name: (int(own.moments.min()), int(own.moments.max())) for name, own in keys.items() if len(own.places)}
    places = {}
    for name, (_, end) in spans.items():
        others = [
            other for other, (low, high) in spans.items() if other != name and low <= end + near and high >= end - near
        ]
        last = list(_triples(keys[name].within(end - near, end))) if others else []
        latest = dict.fromkeys((request for request, _, _ in last), (0, ""))
        for other in others:
            for request, moment, _ in _triples(keys[other].within(end - near, end + near)):
                if request in latest:
                    latest[request] = max(latest[request], (moment, other))
        places[name] = {place for request, moment, place in last if (moment, name) < latest[request]}
    return places


def _triples(keys: LineKeys) -> Iterator[tuple[bytes, int, int]]:
    return zip(keys.requests.tolist(), keys.moments.tolist(), keys.places.tolist(), strict=True)
