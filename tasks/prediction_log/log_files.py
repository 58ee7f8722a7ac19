"""A file of the prediction log: lines of JSON as they were written, or the Parquet file that was made of them.

Both give the same rows under the same name, and every row has its place: the byte behind its line. So "what stands
behind this place" means the same in both.

When a request was answered is told by the ids of its predictions, which are UUIDs of version 7: 48 bits of
milliseconds. Its `time` is when it was asked, which a client may say: of an hour or a year ago.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from tasks.ground import files
from tasks.prediction_log import erasures
from tasks.prediction_log.erasures import Erasure

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

HEAD = ("id", "request", "time", "ms", "version", "release", "key", "row_key")
"""The columns before the features. `key` is the request's, `row_key` what the client calls the row."""

TAIL = ("prediction", "probability", "low", "high", "unseen")
"""The columns after them; `p_<class>` stand behind `probability`."""

PLACE = "at"
"""The column of a row's place."""

BLOCK = 1 << 20
"""Bytes of lines that are read at once: more do not go faster."""

ROW_GROUP = 50_000
"""ParquetLog of a Parquet file that are read at once."""

NEVER, ALWAYS = (2**62, -(2**62)), (-(2**62), 2**62)
"""The span of a file without rows, and one that holds all."""


@dataclass(frozen=True)
class Logged:
    """A request as it was answered in production."""

    request: str
    time: datetime
    ms: float
    version: str | None
    release: str
    key: str | None
    rows: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    """As answered, without ids."""
    moment: int
    """When it was answered, in ms since 1970."""

    @property
    def body(self) -> dict[str, Any]:
        """What to post to /predict to ask the same again."""
        return {"rows": self.rows}


@dataclass(frozen=True)
class LineKeys:
    """Of some lines, or of their rows: what tells them apart."""

    requests: npt.NDArray[np.bytes_]
    moments: npt.NDArray[np.int64]
    """When they were answered, in ms since 1970."""
    times: npt.NDArray[np.int64]
    """When they were asked, in µs since 1970."""
    places: npt.NDArray[np.int64]

    def within(self, since: int, until: int) -> LineKeys:
        """Those from one moment to another, both included."""
        kept = (self.moments >= since) & (self.moments <= until)
        if kept.all():
            return self
        return LineKeys(self.requests[kept], self.moments[kept], self.times[kept], self.places[kept])


class LogFile(Protocol):
    """What lines and Parquet files have in common."""

    @property
    def name(self) -> str:
        """`<day>/<name of its lines>.<digest of the first of them>`."""

    @property
    def is_compacted(self) -> bool:
        """Whether it cannot grow."""

    def span(self) -> tuple[int, int]:
        """The first and the last moment, in ms; NEVER when there is no row."""

    def times(self) -> tuple[int, int]:
        """The earliest and the latest time, in µs; NEVER when there is no row."""

    def latest(self) -> int:
        """The last moment, without reading all rows."""

    def end(self, until: int) -> int:
        """The place of the last row that is of this moment or before it; 0 when there is none."""

    def keys(self, since: int, until: int) -> Iterator[LineKeys]:
        """The keys from one moment to another, both included, in blocks."""

    def tables(
        self, start: int = 0, end: int | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows that stand behind `start`, up to `end`, in blocks; with PLACE."""

    def newest(self, n: int) -> list[Logged]:
        """The last n requests, oldest first."""


# ── lines ─────────────────────────────────────────────────────────────────────────────────────────


def lines(path: Path, orders: Sequence[Erasure] = ()) -> JsonLog | None:
    """The log file that a file of lines is; None when no line of it was ended yet, or it is gone.

    Args:
        path: the file.
        orders: what is read and compacted is without the rows that these are about.
    """
    try:
        with path.open("rb") as stream:
            first = stream.readline()
    except FileNotFoundError:
        return None
    return JsonLog(path, first, orders) if first.endswith(b"\n") else None


class JsonLog:
    """A log file that is lines. It may grow, and be compacted at any moment: then its Parquet file is read."""

    is_compacted = False

    def __init__(self, path: Path, first: bytes, orders: Sequence[Erasure] = ()) -> None:
        self.path, self.orders = path, orders
        # by its first line, as a process may get the number of one that is gone, and so the name of its file
        name = f"{path.stem}.{hashlib.sha256(first).hexdigest()[:12]}"
        self.compacted = ParquetLog(path.parents[2] / path.parent.name / f"{name}.parquet", orders)
        self.name = self.compacted.name

    def span(self) -> tuple[int, int]:  # noqa: D102
        return _span([keys.moments for keys in self._keys])

    def times(self) -> tuple[int, int]:  # noqa: D102
        return _span([keys.times for keys in self._keys])

    def latest(self) -> int:  # noqa: D102
        return max((one.moment for one in self.newest(1)), default=NEVER[1])

    def end(self, until: int) -> int:  # noqa: D102
        return _end(self._keys, until)

    def keys(self, since: int, until: int) -> Iterator[LineKeys]:  # noqa: D102
        return (keys.within(since, until) for keys in self._keys)

    @cached_property
    def _keys(self) -> list[LineKeys]:
        """Of all lines: a tenth of what they take."""
        with self._opened() as stream:
            if stream is None:
                return list(self.compacted.keys(*ALWAYS))
            return [_keys(block, at) for block, at in _blocks(stream, 0, None)]

    def tables(  # noqa: D102
        self, start: int = 0, end: int | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        with self._opened() as stream:
            if stream is None:
                yield from self.compacted.tables(start, end, columns)
                return
            for block, at in _blocks(stream, start, end):
                documents, _ = _documents(block, at)
                if documents:
                    yield _selected(erasures.without(_table(documents), self.orders), columns)

    def newest(self, n: int) -> list[Logged]:  # noqa: D102
        with self._opened() as stream:
            if stream is None:
                return self.compacted.newest(n)
            size, back = stream.seek(0, os.SEEK_END), BLOCK
            while True:
                begin = stream.seek(max(0, size - back))
                begin += len(stream.readline()) if begin else 0  # what is left of a line
                found = [one for block, at in _blocks(stream, begin, size) for one in _documents(block, at)[0]]
                requests = self._requests(found)
                if len(requests) >= n or back >= size:
                    return requests[-n:]
                back *= 4

    def _requests(self, documents: list[_Document]) -> list[Logged]:
        if not self.orders or not documents:
            return [one.logged() for one in documents]
        return _logged(erasures.without(_table(documents), self.orders))

    def compact(self) -> tuple[int, int]:
        """Write its Parquet file, unless it is there: gives the rows, and how many lines could not be read.

        Equal lines give equal bytes. One pass, and another one where a later line has a column more.
        """
        if self.compacted.path.exists() and self.compacted.size() == self.path.stat().st_size:
            return 0, 0
        schema: pa.Schema | None = None
        while True:
            try:
                return self._compact(schema)
            except _Wider as found:
                schema = found.schema

    def _compact(self, schema: pa.Schema | None) -> tuple[int, int]:
        from pyarrow import parquet

        rows = damaged = 0
        with files.replacing(self.compacted.path) as beside, self.path.open("rb") as stream:
            tables = ((erasures.without(table, self.orders), more) for table, more in _row_groups(stream))
            first, damaged = next(tables)
            schema = schema or first.schema
            with parquet.ParquetWriter(beside, schema, compression="zstd") as writer:
                for table, more in chain([(first, 0)], tables):
                    if (wider := schema_of([schema, table.schema])) != schema:
                        raise _Wider(wider)
                    if len(table):
                        writer.write_table(fit(table, schema), row_group_size=len(table))
                    rows, damaged = rows + len(table), damaged + more
                writer.add_key_value_metadata({"size": str(stream.tell()), "damaged": str(damaged)})
            with beside.open("rb") as written:
                os.fsync(written.fileno())  # the lines are removed next
        return rows, damaged

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO | None]:
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            yield None
            return
        with stream:
            yield stream


class _Wider(Exception):
    """A later line has a column, or a type, that the first ones had not."""

    def __init__(self, schema: pa.Schema) -> None:
        super().__init__()
        self.schema = schema


def _blocks(stream: BinaryIO, start: int, end: int | None) -> Iterator[tuple[bytes, int]]:
    """Whole lines from `start` to `end`, and the place where they begin; not what no line break follows."""
    stream.seek(start)
    at, rest = start, b""
    while end is None or at + len(rest) < end:
        more = stream.read(BLOCK if end is None else min(BLOCK, end - at - len(rest)))
        if not more:
            return
        cut = more.rfind(b"\n") + 1
        if cut:
            yield rest + more[:cut], at
            at, rest = at + len(rest) + cut, more[cut:]
        else:
            rest += more


def _row_groups(stream: BinaryIO) -> Iterator[tuple[pa.Table, int]]:
    """All of a file of lines as tables of some ROW_GROUP rows, at least one, each with the damaged lines in it."""
    tables: list[pa.Table] = []
    damaged = end = 0
    for block, at in _blocks(stream, 0, None):
        end = at + len(block)
        documents, more = _documents(block, at)
        damaged += more
        tables += [_table(documents)] if documents else []
        if sum(map(len, tables)) >= ROW_GROUP:
            yield joined(tables), damaged
            tables, damaged = [], 0
    yield joined(tables), damaged + (end < stream.tell())


_BEGIN = b'{"request":"'
_LINE = re.compile(
    rb'^\{"request":"([^"\\\n]+)","time":"([0-9T:.-]{19,26})Z",[^\n]*?"ids":\["([0-9a-f]{12})[^\n]*\}\n', re.MULTILINE
)


def _keys(block: bytes, at: int) -> LineKeys:
    """The keys of a block, without reading the rest where every line looks whole."""
    import numpy as np

    found = list(_LINE.finditer(block))
    if len(found) == block.count(b"\n") == block.count(_BEGIN):
        requests = np.array([one[1] for one in found], dtype=np.bytes_)
        moments = np.array([int(one[3], 16) for one in found], dtype=np.int64)
        times = np.array([one[2] for one in found], dtype="S26").astype("datetime64[us]").astype(np.int64)
        return LineKeys(requests, moments, times, np.array([one.end() + at for one in found], dtype=np.int64))
    documents, _ = _documents(block, at)
    return LineKeys(
        np.array([one.said["request"].encode() for one in documents], dtype=np.bytes_),
        np.array([one.moment for one in documents], dtype=np.int64),
        np.array([micros(one.time) for one in documents], dtype=np.int64),
        np.array([one.at for one in documents], dtype=np.int64),
    )


@dataclass(frozen=True)
class _Document:
    """A line that was read."""

    said: dict[str, Any]
    time: datetime
    moment: int
    at: int

    def logged(self) -> Logged:
        said = self.said
        return Logged(
            request=said["request"],
            time=self.time,
            ms=said["ms"],
            version=said["version"],
            release=said["release"],
            key=said["key"],
            rows=said["rows"],
            predictions=said["predictions"],
            moment=self.moment,
        )


def _documents(block: bytes, at: int) -> tuple[list[_Document], int]:
    """The lines of a block that begins at a place, and how many could not be read."""
    found, damaged = [], 0
    for line in block.split(b"\n")[:-1]:
        at += len(line) + 1
        document = _document(line, at)
        if document is None:
            damaged += 1
            again = line.find(_BEGIN, 1)  # a line was cut off by a full disk, and the next stands right behind it
            while document is None and again > 0:
                document, again = _document(line[again:], at), line.find(_BEGIN, again + 1)
        if document is not None:
            found.append(document)
    return found, damaged


def _document(line: bytes, at: int) -> _Document | None:
    """A line, if it is whole."""
    import orjson

    try:
        said = orjson.loads(line)
        time = datetime.fromisoformat(said["time"]).astimezone(UTC)
        rows, predictions = said["rows"], said["predictions"]
        keys = said.get("keys") or [None] * len(rows)
        alike = len(said["ids"]) == len(rows) == len(predictions) == len(keys)
        moment = _moment(said["ids"][0])
        float(said["ms"])
    except (orjson.JSONDecodeError, ValueError, TypeError, LookupError):
        return None
    texts = isinstance(said.get("request"), str) and isinstance(said.get("release"), str) and "version" in said
    whole = alike and texts and {*map(type, rows), *map(type, predictions)} <= {dict}
    return _Document({"key": None, **said, "keys": keys}, time, moment, at) if whole else None


def _moment(id_: str) -> int:
    return int(id_[:12], 16)


def _end(found: Iterable[LineKeys], until: int) -> int:
    return max((int(keys.places[keys.moments <= until].max(initial=0)) for keys in found), default=0)


def _span(found: Sequence[npt.NDArray[np.int64]]) -> tuple[int, int]:
    held = [values for values in found if len(values)]
    return (min(int(v.min()) for v in held), max(int(v.max()) for v in held)) if held else NEVER


def micros(time: datetime) -> int:
    """A moment in µs since 1970."""
    whole = int(time.replace(microsecond=0).timestamp())
    return whole * 1_000_000 + time.microsecond


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────


class ParquetLog:
    """A log file that was compacted."""

    is_compacted = True

    def __init__(self, path: Path, orders: Sequence[Erasure] = ()) -> None:
        self.path, self.orders = path, orders
        self.name = f"{path.parent.name}/{path.stem}"

    def size(self) -> int:
        """How many bytes its lines were."""
        from pyarrow import parquet

        return int(parquet.read_metadata(self.path).metadata[b"size"])

    def span(self) -> tuple[int, int]:  # noqa: D102
        return self._whole("id")

    def times(self) -> tuple[int, int]:  # noqa: D102
        return self._whole("time")

    def latest(self) -> int:  # noqa: D102
        return self.span()[1]

    def end(self, until: int) -> int:  # noqa: D102
        if self.latest() > until:
            return _end(self.keys(*ALWAYS), until)
        return max(0, self._whole(PLACE)[1])

    def keys(self, since: int, until: int) -> Iterator[LineKeys]:  # noqa: D102
        import numpy as np

        groups = [i for i, (low, high) in enumerate(self._spans("id")) if low <= until and high >= since]
        for table in self._read(groups, ("id", "request", "time")):
            requests = np.array(table["request"].cast("binary").to_pylist(), dtype=np.bytes_)
            moments = np.array([_moment(id_) for id_ in table["id"].to_pylist()], dtype=np.int64)
            times = table["time"].cast("int64").to_numpy()
            yield LineKeys(requests, moments, times, table[PLACE].to_numpy()).within(since, until)

    def tables(  # noqa: D102
        self, start: int = 0, end: int | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        import pyarrow.compute as pc

        end = 2**62 if end is None else end
        spans = self._spans(PLACE)
        groups = [i for i, (low, high) in enumerate(spans) if high > start and low <= end]
        whole = all(spans[i][0] > start and spans[i][1] <= end for i in groups)
        for table in self._read(groups, columns):
            if whole:
                yield table
            else:
                yield table.filter(pc.and_(pc.greater(table[PLACE], start), pc.less_equal(table[PLACE], end)))

    def newest(self, n: int) -> list[Logged]:  # noqa: D102
        import pyarrow.compute as pc

        table = schema_of([]).empty_table()
        for group in reversed(range(len(self._spans(PLACE)))):
            table = joined([*self._read([group], None), table])
            if len(table[PLACE].unique()) > n:
                break  # one more than is wanted: its first rows may stand in the group before
        first = table[PLACE].unique()[-n:]
        return _logged(table.filter(pc.greater_equal(table[PLACE], first[0]))) if len(first) else []

    def _read(self, groups: list[int], columns: Sequence[str] | None) -> Iterator[pa.Table]:
        import pyarrow as pa
        from pyarrow import parquet

        if not groups:
            return
        try:
            opened = parquet.ParquetFile(self.path)
        except FileNotFoundError:  # forgotten meanwhile, as its day was too old
            return
        with opened:
            needed = {*(columns or ()), PLACE, *(erasures.NEEDED if self.orders else ())}
            wanted = [name for name in opened.schema_arrow.names if columns is None or name in needed]
            for batch in opened.iter_batches(10_000, groups, wanted):
                yield _selected(erasures.without(pa.Table.from_batches([batch]), self.orders), columns)

    def erase(self) -> int:
        """Write the file anew without the rows that are to be erased; gives how many these were."""
        from pyarrow import parquet

        with parquet.ParquetFile(self.path) as opened:
            schema, about = opened.schema_arrow, opened.metadata.metadata
            every = int(opened.metadata.num_rows)
        if every == (left := sum(len(table) for table in self.tables(columns=erasures.NEEDED))):
            return 0
        with files.replacing(self.path) as beside:
            with parquet.ParquetWriter(beside, schema, compression="zstd") as writer:
                for table in self.tables():
                    if len(table):
                        writer.write_table(fit(table, schema))
                writer.add_key_value_metadata({name: about[name.encode()].decode() for name in ("size", "damaged")})
            with beside.open("rb") as written:
                os.fsync(written.fileno())
        return every - left

    def _whole(self, column: str) -> tuple[int, int]:
        spans = self._spans(column)
        return (min(low for low, _ in spans), max(high for _, high in spans)) if spans else NEVER

    def _spans(self, column: str) -> list[tuple[int, int]]:
        """The least and the greatest value of each row group: of `id` the moment, of `time` µs."""
        return [group[column] for group in self._statistics]

    @cached_property
    def _statistics(self) -> list[dict[str, tuple[int, int]]]:
        from pyarrow import parquet

        try:
            metadata = parquet.read_metadata(self.path)
        except FileNotFoundError:  # as in _read
            return []
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        return [_spans_of(group) for group in groups if group.num_rows]


def _spans_of(group: Any) -> dict[str, tuple[int, int]]:
    """What a Parquet file says of some columns of a row group."""
    chunks = [group.column(i) for i in range(group.num_columns)]
    said = {chunk.path_in_schema: chunk.statistics for chunk in chunks if chunk.path_in_schema in {"id", "time", PLACE}}
    ids = said["id"]
    spans = {name: (int(one.min_raw), int(one.max_raw)) for name, one in said.items() if name != "id"}
    return {**spans, "id": (_moment(ids.min), _moment(ids.max))}


def _logged(table: pa.Table) -> list[Logged]:
    """Requests from their rows, which stand one behind the other."""
    marks = {field.name: field.metadata or {} for field in table.schema}
    features = {name: mark[b"feature"].decode() for name, mark in marks.items() if b"feature" in mark}
    classes = {name: mark[b"class"].decode() for name, mark in marks.items() if b"class" in mark}
    said = []
    for _, group in groupby(table.to_pylist(), key=lambda row: row[PLACE]):
        rows = list(group)
        asked = [{feature: _as_json(row[name]) for name, feature in features.items()} for row in rows]
        head = {name: rows[0][name] for name in (*_ONCE, "time")}
        answered = [_prediction(row, classes) for row in rows]
        said.append(Logged(**head, rows=asked, predictions=answered, moment=_moment(rows[0]["id"])))
    return said


def _prediction(row: dict[str, Any], classes: dict[str, str]) -> dict[str, Any]:
    told = {name: row.get(name) for name in TAIL}
    probabilities = {label: row[name] for name, label in classes.items() if row[name] is not None}
    return {
        name: value for name, value in {**told, "probabilities": probabilities or None}.items() if value is not None
    }


def _as_json(value: Any) -> Any:
    """A feature as a client may post it: a whole number without a point, which a float takes as well as an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ── documents → a table ───────────────────────────────────────────────────────────────────────────


def _table(documents: list[_Document]) -> pa.Table:
    """A row per prediction; a column per feature that any of the documents has."""
    import numpy as np
    import pyarrow as pa

    said = [one.said for one in documents]
    rows = [row for one in said for row in one["rows"]]
    answers = [answer for one in said for answer in one["predictions"]]
    schema = schema_of([])
    head = {name: pa.array([one[name] for one in said], schema.field(name).type) for name in _ONCE}
    head["time"] = pa.array([one.time for one in documents], schema.field("time").type)
    head[PLACE] = pa.array([one.at for one in documents], schema.field(PLACE).type)
    times = pa.array(np.repeat(np.arange(len(said)), [len(one["ids"]) for one in said]))
    columns = {name: values.take(times) for name, values in head.items()}
    columns["id"] = pa.array([id_ for one in said for id_ in one["ids"]], pa.string())
    columns["row_key"] = pa.array([key for one in said for key in one["keys"]], pa.string())
    marks: dict[str, dict[str, str]] = {}
    for feature in set().union(*rows):
        columns[column_of(feature)] = _column([row.get(feature) for row in rows])
        marks[column_of(feature)] = {"feature": feature}
    for name in TAIL:
        if any(name in answer for answer in answers):
            values = [answer.get(name) for answer in answers]
            columns[name] = pa.array(values, pa.list_(pa.string())) if name == "unseen" else _column(values)
    shares = [answer.get("probabilities") or {} for answer in answers]
    for label in dict.fromkeys(chain.from_iterable(shares)):
        columns[f"p_{label}"] = _column([share.get(label) for share in shares])
        marks[f"p_{label}"] = {"class": label}
    fields = [pa.field(name, values.type, metadata=marks.get(name)) for name, values in columns.items()]
    found = schema_of([pa.schema(fields)])
    return pa.Table.from_arrays([columns[name] for name in found.names], schema=found)


_ONCE = ("request", "ms", "version", "release", "key")


def _column(values: list[Any]) -> pa.Array:
    """Text, numbers, or nothing but nulls. A type for each, so that blocks and files fit together."""
    import numpy as np
    import pyarrow as pa

    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds <= {int, float}:
        return pa.array(np.array(values, dtype=np.float64), from_pandas=True)
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def column_of(feature: str) -> str:
    """A feature's column: not one that the log has itself."""
    taken = feature in {*HEAD, *TAIL, PLACE} or feature.startswith("p_")
    return f"feature_{feature}" if taken else feature


def schema_of(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The columns that any of them has, in order: HEAD, the features by name, TAIL, the place."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    types = {"id": text, "request": text, "time": pa.timestamp("us", "UTC"), "ms": number}
    types |= {"version": text, "release": text, "key": text, "row_key": text, PLACE: pa.int64()}
    fields = {name: pa.field(name, type_) for name, type_ in types.items()}
    for field in chain.from_iterable(schemas):
        fields[field.name] = wider(fields[field.name], field) if field.name in fields else field
    return pa.schema(sorted(fields.values(), key=_order))


def _order(field: pa.Field) -> tuple[float, int, str]:
    if field.name in HEAD:
        return 0, HEAD.index(field.name), ""
    if field.name in TAIL:
        return 2 if field.name in TAIL[:2] else 4, TAIL.index(field.name), ""
    marks = field.metadata or {}
    return (5 if field.name == PLACE else 3 if b"class" in marks else 1), 0, field.name if b"class" not in marks else ""


def wider(one: pa.Field, other: pa.Field) -> pa.Field:
    """The field that holds the values of both: of a number and a text, text."""
    import pyarrow as pa

    if one.type == other.type or pa.types.is_null(other.type):
        return one
    return other if pa.types.is_null(one.type) else one.with_type(pa.string())


def fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of a schema; one that it lacks is null."""
    import pyarrow as pa

    if table.schema.equals(schema, check_metadata=True):
        return table
    there = dict(zip(table.column_names, table.columns, strict=True))
    columns = [_fitting(there.get(field.name), field, len(table)) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _fitting(column: pa.ChunkedArray | None, field: pa.Field, rows: int) -> pa.ChunkedArray | pa.Array:
    import pyarrow as pa

    if column is None:
        return pa.nulls(rows, field.type)
    return column if column.type == field.type else column.cast(field.type)


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables one below the other, with the columns of all."""
    import pyarrow as pa

    schema = schema_of([table.schema for table in tables])
    return pa.concat_tables([fit(table, schema) for table in tables]) if tables else schema.empty_table()


def _selected(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    wanted = None if columns is None else {*columns, PLACE}
    return table.select([name for name in table.column_names if wanted is None or name in wanted])
