"""A file of the prediction log: append-only lines of JSON, or the Parquet file that they were compacted to.

Both give the same rows under the same name, and each row keeps its place, the byte behind its line. So "what stands
behind this place" means the same before and after compaction.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tasks.ground import files
from tasks.prediction_log import erasures, log_tables
from tasks.prediction_log.erasures import Erasure
from tasks.prediction_log.log_tables import BEGIN, PLACE, Logged, moment, moments

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Ints = npt.NDArray[np.int64]

BLOCK = 1 << 20
"""Bytes of lines that are read at once: more is not faster."""

ROW_GROUP = 50_000
"""Rows of a Parquet file that are read at once."""

Span = tuple[int, int]
"""The least and the greatest value."""

NEVER, ALWAYS = (2**62, -(2**62)), (-(2**62), 2**62)
"""The span of a file without rows, and one that holds every row."""


@dataclass(frozen=True)
class LineKeys:
    """What identifies each of some lines, or of their rows. In NumPy: `pyarrow.array` would import pandas."""

    requests: npt.NDArray[np.bytes_]
    moments: Ints
    """When they were answered, in ms since 1970."""
    times: Ints
    """When they were asked, in µs since 1970."""
    places: Ints

    def within(self, since: int, until: int) -> LineKeys:
        """Those from one moment to another, both included."""
        kept = (self.moments >= since) & (self.moments <= until)
        return LineKeys(self.requests[kept], self.moments[kept], self.times[kept], self.places[kept])

    def spans(self) -> dict[str, Span]:
        """As LogFile._spans has them."""
        columns = {"id": self.moments, "time": self.times, PLACE: self.places}
        return {name: (int(values.min()), int(values.max())) for name, values in columns.items()}


class LogFile(ABC):
    """The rows of a file, in the order of their places, without those that erasure orders concern."""

    is_compacted: bool
    name: str
    """`<day>/<name of the file of lines>.<digest of its first line>`."""

    @abstractmethod
    def tables(
        self, start: int = 0, end: int | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows behind the place `start`, up to `end`, in blocks; with PLACE."""

    @property
    @abstractmethod
    def _spans(self) -> Sequence[dict[str, Span]]:
        """Of each part of the file: the span of its moments (`id`), times (`time`) and places (PLACE)."""

    @abstractmethod
    def _keys(self, parts: list[int]) -> Iterable[LineKeys]:
        """The keys of some parts: of each request, or of each prediction."""

    @abstractmethod
    def newest(self, n: int) -> list[Logged]:
        """The last n requests, oldest first; reads from the end backwards."""

    @abstractmethod
    def find(self, prediction_id: str) -> Logged | None:
        """The request of a prediction, with its row and answer only."""

    def span(self) -> Span:
        """The first and the last moment, in ms; NEVER without rows."""
        return self._hull("id")

    def times(self) -> Span:
        """The earliest and the latest time, in µs; NEVER without rows."""
        return self._hull("time")

    def latest(self) -> int:
        """The last moment."""
        return self.span()[1]

    def end(self, until: int) -> int:
        """The place of the last row answered at this moment or earlier; 0 without one."""
        if self.span()[1] <= until:
            return max(0, self._hull(PLACE)[1])
        return max((int(keys.places.max(initial=0)) for keys in self.keys(ALWAYS[0], until)), default=0)

    def keys(self, since: int, until: int) -> Iterator[LineKeys]:
        """The keys of what was answered from one moment to another, both included, in blocks."""
        spans = enumerate(part["id"] for part in self._spans)
        parts = [i for i, (low, high) in spans if low <= until and high >= since]
        return (keys.within(since, until) for keys in self._keys(parts))

    def _hull(self, column: str) -> Span:
        spans = [part[column] for part in self._spans]
        return (min(low for low, _ in spans), max(high for _, high in spans)) if spans else NEVER


# ── lines of JSON ─────────────────────────────────────────────────────────────────────────────────


def open_lines(path: Path, orders: Sequence[Erasure] = ()) -> JsonLog | None:
    """The log file that a file of lines is; None where it holds no whole line yet, or was removed."""
    try:
        with path.open("rb") as stream:
            first = stream.readline()
    except FileNotFoundError:
        return None
    return JsonLog(path, first, orders) if first.endswith(b"\n") else None


class JsonLog(LogFile):
    """A log file of lines. It may grow, and be compacted at any moment: then its Parquet file is read."""

    is_compacted = False

    def __init__(self, path: Path, first: bytes, orders: Sequence[Erasure] = ()) -> None:
        self.path, self.orders = path, orders
        # with a digest of its first line, as a later process may get the same number, and so the same file name
        name = f"{path.stem}.{hashlib.sha256(first).hexdigest()[:12]}"
        self.compacted = ParquetLog(path.parents[2] / path.parent.name / f"{name}.parquet", orders)
        self.name = self.compacted.name

    def latest(self) -> int:
        """The last moment, without reading all rows."""
        return max((request.moment for request in self.newest(1)), default=NEVER[1])

    def tables(
        self, start: int = 0, end: int | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows behind the place `start`, up to `end`, in blocks; with PLACE."""
        if (stream := self._open()) is None:
            yield from self.compacted.tables(start, end, columns)
            return
        with stream:
            for block, place in _blocks(stream, start, end):
                yield log_tables.select(self._table(block, place)[0], columns)

    def compact(self) -> tuple[int, int]:
        """Write its Parquet file, unless it exists; gives the rows, and how many lines could not be read.

        Equal lines give equal bytes. All rows are in memory at once: a replica begins another file after 64 MB.
        """
        from pyarrow import parquet

        if self.compacted.path.exists() and self.compacted.size() == self.path.stat().st_size:
            return 0, 0
        tables, damaged, end = [], 0, 0
        with self.path.open("rb") as stream:
            for block, place in _blocks(stream, 0, None):
                table, torn = self._table(block, place)
                tables.append(table)
                damaged, end = damaged + torn, place + len(block)
            size = stream.tell()
        damaged += end < size  # its last line has no end
        table = log_tables.concat(tables)
        with (
            files.replacing(self.compacted.path) as beside,
            parquet.ParquetWriter(beside, table.schema, compression="zstd") as writer,
        ):
            writer.write_table(table, row_group_size=ROW_GROUP)
            writer.add_key_value_metadata({"size": str(size), "damaged": str(damaged)})
        return len(table), damaged

    def _table(self, block: bytes, place: int) -> tuple[pa.Table, int]:
        """The rows of some lines, and how many of these could not be read."""
        requests, damaged = log_tables.parse_block(block, place)
        return erasures.without(log_tables.to_table(requests), self.orders), damaged

    def _keys(self, parts: list[int]) -> Iterable[LineKeys]:
        return [self._all_keys[i] for i in parts]

    @cached_property
    def _all_keys(self) -> list[LineKeys]:
        """Of all lines: a tenth of their size."""
        if (stream := self._open()) is None:
            blocks = list(self.compacted.keys(*ALWAYS))
        else:
            with stream:
                blocks = [_line_keys(block, place) for block, place in _blocks(stream, 0, None)]
        return [keys for keys in blocks if len(keys.places)]

    @cached_property
    def _spans(self) -> Sequence[dict[str, Span]]:
        return [keys.spans() for keys in self._all_keys]

    def newest(self, n: int) -> list[Logged]:
        """As they were posted. Only where rows are erased a table is made, which takes longer than all the rest."""
        if (stream := self._open()) is None:
            return self.compacted.newest(n)
        with stream:
            size, length = stream.seek(0, os.SEEK_END), BLOCK
            while True:
                begin = stream.seek(max(0, size - length))
                begin += len(stream.readline()) if begin else 0  # the rest of a line
                blocks = _blocks(stream, begin, size)
                requests = [logged for block in blocks for logged in log_tables.parse_block(*block)[0]]
                if self.orders:
                    kept = erasures.without(log_tables.to_table(requests), self.orders)
                    requests = log_tables.to_requests(kept)
                if len(requests) >= n or length >= size:
                    return requests[-n:]
                length *= 4

    def find(self, prediction_id: str) -> Logged | None:
        """The request of a prediction, with its row and answer only."""
        if (stream := self._open()) is None:
            return self.compacted.find(prediction_id)
        with stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = content.find(f'"{prediction_id}"'.encode())
            begin, end = content.rfind(b"\n", 0, max(at, 0)) + 1, content.find(b"\n", max(at, 0)) + 1
            block = content[begin:end] if at >= 0 else b""
        requests = [logged.only(prediction_id) for logged in log_tables.parse_block(block, begin)[0]]
        requests = [logged for logged in requests if logged.ids]
        if requests and self.orders:
            requests = log_tables.to_requests(erasures.without(log_tables.to_table(requests), self.orders))
        return requests[0] if requests else None

    def _open(self) -> BinaryIO | None:
        """None once it was compacted."""
        try:
            return self.path.open("rb")
        except FileNotFoundError:
            return None


def _blocks(stream: BinaryIO, start: int, end: int | None) -> Iterator[tuple[bytes, int]]:
    """Whole lines from `start` to `end`, and the place where they begin; not what no line break follows."""
    stream.seek(start)
    place, rest = start, b""
    while end is None or place + len(rest) < end:
        more = stream.read(BLOCK if end is None else min(BLOCK, end - place - len(rest)))
        if not more:
            return
        cut = more.rfind(b"\n") + 1
        if cut:
            yield rest + more[:cut], place
            place, rest = place + len(rest) + cut, more[cut:]
        else:
            rest += more


_LINE = re.compile(
    rb'^\{"request":"([^"\\\n]+)","time":"([0-9T:.-]{19,26})Z",[^\n]*?"ids":\["([0-9a-f]{12})[^\n]*\}\n', re.MULTILINE
)


def _line_keys(block: bytes, place: int) -> LineKeys:
    """The keys of each line, without parsing the rest where every line looks whole."""
    import numpy as np

    matches = list(_LINE.finditer(block))
    if len(matches) == block.count(b"\n") == block.count(BEGIN):
        return LineKeys(
            np.array([match[1] for match in matches], dtype=np.bytes_),
            np.array([int(match[3], 16) for match in matches], dtype=np.int64),
            np.array([match[2] for match in matches], dtype="S26").astype("datetime64[us]").astype(np.int64),
            np.array([match.end() + place for match in matches], dtype=np.int64),
        )
    requests, _ = log_tables.parse_block(block, place)
    return LineKeys(
        np.array([logged.request.encode() for logged in requests], dtype=np.bytes_),
        np.array([logged.moment for logged in requests], dtype=np.int64),
        np.array([log_tables.micros(logged.time) for logged in requests], dtype=np.int64),
        np.array([logged.place for logged in requests], dtype=np.int64),
    )


# ── Parquet ───────────────────────────────────────────────────────────────────────────────────────


class ParquetLog(LogFile):
    """A compacted log file. It may be removed while it is read: then it has no rows."""

    is_compacted = True

    def __init__(self, path: Path, orders: Sequence[Erasure] = ()) -> None:
        self.path, self.orders = path, orders
        self.name = f"{path.parent.name}/{path.stem}"

    def size(self) -> int:
        """How many bytes its lines had."""
        from pyarrow import parquet

        return int(parquet.read_metadata(self.path).metadata[b"size"])

    def tables(
        self, start: int = 0, end: int | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows behind the place `start`, up to `end`, in blocks; with PLACE."""
        import pyarrow.compute as pc

        end = 2**62 if end is None else end
        spans = [part[PLACE] for part in self._spans]
        groups = [i for i, (low, high) in enumerate(spans) if high > start and low <= end]
        are_whole = all(spans[i][0] > start and spans[i][1] <= end for i in groups)
        for table in self._read(groups, columns):
            if are_whole:
                yield table
            else:
                yield table.filter(pc.and_(pc.greater(table[PLACE], start), pc.less_equal(table[PLACE], end)))

    def erase(self) -> int:
        """Rewrite the file without the rows that are to be erased; gives how many these were."""
        from pyarrow import parquet

        with parquet.ParquetFile(self.path) as opened:
            schema, metadata = opened.schema_arrow, opened.metadata.metadata
            before = int(opened.metadata.num_rows)
        if before == (left := sum(len(table) for table in self.tables(columns=erasures.NEEDED))):
            return 0
        with (
            files.replacing(self.path) as beside,
            parquet.ParquetWriter(beside, schema, compression="zstd") as writer,
        ):
            for table in self.tables():
                if len(table):
                    writer.write_table(log_tables.fit(table, schema))
            writer.add_key_value_metadata({name: metadata[name.encode()].decode() for name in ("size", "damaged")})
        return before - left

    def _keys(self, parts: list[int]) -> Iterable[LineKeys]:
        import numpy as np

        for table in self._read(parts, ("id", "request", "time")):
            requests = np.array(table["request"].cast("binary").to_pylist(), dtype=np.bytes_)
            times = table["time"].cast("int64").to_numpy()
            yield LineKeys(requests, moments(table["id"]), times, table[PLACE].to_numpy())

    def newest(self, n: int) -> list[Logged]:
        """The last n requests, oldest first; reads from the last row group backwards."""
        import pyarrow.compute as pc

        table = log_tables.concat([])
        for group in reversed(range(len(self._spans))):
            table = log_tables.concat([*self._read([group], None), table])
            if len(table[PLACE].unique()) > n:
                break  # one more than is wanted: of the first one, some rows may be missing
        places = table[PLACE].unique()[-n:]
        return log_tables.to_requests(table.filter(pc.is_in(table[PLACE], places)))

    def find(self, prediction_id: str) -> Logged | None:
        """The request of a prediction, with its row and answer only."""
        import pyarrow.compute as pc

        answered = moment(prediction_id)
        groups = [i for i, part in enumerate(self._spans) if part["id"][0] <= answered <= part["id"][1]]
        tables = (table.filter(pc.equal(table["id"], prediction_id)) for table in self._read(groups, None))
        return next((log_tables.to_requests(table)[0] for table in tables if len(table)), None)

    def _read(self, groups: list[int], columns: Sequence[str] | None) -> Iterator[pa.Table]:
        import pyarrow as pa
        from pyarrow import parquet

        if not groups:
            return
        try:
            opened = parquet.ParquetFile(self.path)
        except FileNotFoundError:  # its day became too old meanwhile
            return
        with opened:
            needed = {*(columns or ()), PLACE, *(erasures.NEEDED if self.orders else ())}
            names = [name for name in opened.schema_arrow.names if columns is None or name in needed]
            for batch in opened.iter_batches(10_000, groups, names):
                table = erasures.without(pa.Table.from_batches([batch]), self.orders)
                yield log_tables.select(table, columns)

    @cached_property
    def _spans(self) -> Sequence[dict[str, Span]]:
        """From the statistics of its row groups."""
        from pyarrow import parquet

        try:
            metadata = parquet.read_metadata(self.path)
        except FileNotFoundError:  # as in _read
            return []
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        return [_statistics(group) for group in groups if group.num_rows]


def _statistics(group: Any) -> dict[str, Span]:
    chunks = [group.column(i) for i in range(group.num_columns)]
    ends = {chunk.path_in_schema: chunk.statistics for chunk in chunks if chunk.path_in_schema in {"id", "time", PLACE}}
    spans = {name: (int(ends[name].min_raw), int(ends[name].max_raw)) for name in ("time", PLACE)}
    return {**spans, "id": (moment(ends["id"].min), moment(ends["id"].max))}
