"""A file of the prediction log: append-only lines of JSON, or the Parquet file that they were compacted to.

Both give the same rows under the same name, and each row keeps its place, the byte behind its line. So "what stands
behind this place" means the same before and after compaction.

The ids of predictions are UUIDs of version 7: their first 48 bits are the millisecond in which the request was
answered, its *moment*. Its `time` is when it was asked, which a client may set to an hour or a year ago.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tasks.ground import files
from tasks.prediction_log import erasures, prediction_ids
from tasks.prediction_log.erasures import Erasure

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Ints = npt.NDArray[np.int64]

HEAD = ("id", "request", "time", "ms", "version", "release", "key", "row_key")
"""The columns before the features. `key` is the request's, `row_key` the client's name for the row."""

TAIL = ("prediction", "probability", "low", "high", "unseen")
"""The columns after them; `p_<class>` stand behind `probability`."""

PLACE = "at"
"""The column of a row's place."""

BLOCK = 1 << 20
"""Bytes of lines that are read at once: more is not faster."""

ROW_GROUP = 50_000
"""Rows of a Parquet file that are read at once."""

NEVER, ALWAYS = (2**62, -(2**62)), (-(2**62), 2**62)
"""The span of a file without rows, and one that holds every row."""


@dataclass(slots=True)
class Logged:
    """A request as it was answered in production."""

    request: str
    time: datetime
    ms: float
    version: str | None
    release: str
    key: str | None
    ids: list[str]
    row_keys: list[str | None]
    rows: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    """Without ids."""
    moment: int
    """When it was answered, in ms since 1970."""
    place: int


@dataclass(frozen=True)
class LineKeys:
    """What identifies each of some lines, or of their rows."""

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

    def lines(self) -> Iterator[tuple[bytes, int, int]]:
        """Request, moment and place of each."""
        return zip(self.requests.tolist(), self.moments.tolist(), self.places.tolist(), strict=True)


# ── lines of JSON ─────────────────────────────────────────────────────────────────────────────────


def open_lines(path: Path, orders: Sequence[Erasure] = ()) -> JsonLog | None:
    """The log file that a file of lines is; None where it holds no whole line yet, or was removed."""
    try:
        with path.open("rb") as stream:
            first = stream.readline()
    except FileNotFoundError:
        return None
    return JsonLog(path, first, orders) if first.endswith(b"\n") else None


class JsonLog:
    """A log file of lines. It may grow, and be compacted at any moment: then its Parquet file is read."""

    is_compacted = False

    def __init__(self, path: Path, first: bytes, orders: Sequence[Erasure] = ()) -> None:
        self.path, self.orders = path, orders
        # with a digest of its first line, as a later process may get the same number, and so the same file name
        name = f"{path.stem}.{hashlib.sha256(first).hexdigest()[:12]}"
        self.compacted = ParquetLog(path.parents[2] / path.parent.name / f"{name}.parquet", orders)
        self.name = self.compacted.name
        """`<day>/<name of the file of lines>.<digest of its first line>`."""

    def span(self) -> tuple[int, int]:
        """The first and the last moment, in ms; NEVER without rows."""
        return _span([keys.moments for keys in self._keys])

    def times(self) -> tuple[int, int]:
        """The earliest and the latest time, in µs; NEVER without rows."""
        return _span([keys.times for keys in self._keys])

    def latest(self) -> int:
        """The last moment, without reading all rows."""
        return max((request.moment for request in self.newest(1)), default=NEVER[1])

    def end(self, until: int) -> int:
        """The place of the last row answered at this moment or earlier; 0 without one."""
        return _end(self._keys, until)

    def keys(self, since: int, until: int) -> Iterator[LineKeys]:
        """The keys from one moment to another, both included, in blocks."""
        return (keys.within(since, until) for keys in self._keys)

    @cached_property
    def _keys(self) -> list[LineKeys]:
        """Of all lines: a tenth of their size."""
        if (stream := self._open()) is None:
            return list(self.compacted.keys(*ALWAYS))
        with stream:
            return [_keys(block, place) for block, place in _blocks(stream, 0, None)]

    def tables(
        self, start: int = 0, end: int | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows behind the place `start`, up to `end`, in blocks; with PLACE."""
        if (stream := self._open()) is None:
            yield from self.compacted.tables(start, end, columns)
            return
        with stream:
            for block, place in _blocks(stream, start, end):
                requests, _ = _parse_block(block, place)
                if requests:
                    yield _select(erasures.without(_to_table(requests), self.orders), columns)

    def newest(self, n: int) -> list[Logged]:
        """The last n requests, oldest first; reads from the end backwards."""
        if (stream := self._open()) is None:
            return self.compacted.newest(n)
        with stream:
            size, length = stream.seek(0, os.SEEK_END), BLOCK
            while True:
                begin = stream.seek(max(0, size - length))
                begin += len(stream.readline()) if begin else 0  # the rest of a line
                parsed = [
                    request for block, at in _blocks(stream, begin, size) for request in _parse_block(block, at)[0]
                ]
                if self.orders and parsed:
                    parsed = _to_requests(erasures.without(_to_table(parsed), self.orders))
                if len(parsed) >= n or length >= size:
                    return parsed[-n:]
                length *= 4

    def compact(self) -> tuple[int, int]:
        """Write its Parquet file, unless it exists; gives the rows, and how many lines could not be read.

        Equal lines give equal bytes. One pass, and another one for each later line that has a column more.
        """
        if self.compacted.path.exists() and self.compacted.size() == self.path.stat().st_size:
            return 0, 0
        schema: pa.Schema | None = None
        while True:
            try:
                return self._compact(schema)
            except _SchemaTooNarrow as narrow:
                schema = narrow.wider

    def _compact(self, schema: pa.Schema | None) -> tuple[int, int]:
        from pyarrow import parquet

        rows = damaged = 0
        with files.replacing(self.compacted.path) as beside, self.path.open("rb") as stream:
            tables = ((erasures.without(table, self.orders), torn) for table, torn in _row_groups(stream))
            first = next(tables)
            schema = schema or first[0].schema
            with parquet.ParquetWriter(beside, schema, compression="zstd") as writer:
                for table, torn in chain([first], tables):
                    if (wider := schema_of([schema, table.schema])) != schema:
                        raise _SchemaTooNarrow(wider)
                    if len(table):
                        writer.write_table(fit(table, schema), row_group_size=len(table))
                    rows, damaged = rows + len(table), damaged + torn
                writer.add_key_value_metadata({"size": str(stream.tell()), "damaged": str(damaged)})
        return rows, damaged

    def _open(self) -> BinaryIO | None:
        """None once it was compacted."""
        try:
            return self.path.open("rb")
        except FileNotFoundError:
            return None


class _SchemaTooNarrow(Exception):
    """A later line has a column, or a type, that the earlier ones had not."""

    def __init__(self, wider: pa.Schema) -> None:
        super().__init__()
        self.wider = wider


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


def _row_groups(stream: BinaryIO) -> Iterator[tuple[pa.Table, int]]:
    """A file of lines as tables of some ROW_GROUP rows, at least one, each with the number of damaged lines in it."""
    tables: list[pa.Table] = []
    damaged = end = 0
    for block, place in _blocks(stream, 0, None):
        end = place + len(block)
        requests, torn = _parse_block(block, place)
        damaged += torn
        tables += [_to_table(requests)] if requests else []
        if sum(map(len, tables)) >= ROW_GROUP:
            yield concat(tables), damaged
            tables, damaged = [], 0
    yield concat(tables), damaged + (end < stream.tell())


_BEGIN = b'{"request":"'
_LINE = re.compile(
    rb'^\{"request":"([^"\\\n]+)","time":"([0-9T:.-]{19,26})Z",[^\n]*?"ids":\["([0-9a-f]{12})[^\n]*\}\n', re.MULTILINE
)


def _keys(block: bytes, place: int) -> LineKeys:
    """The keys of a block, without parsing the rest where every line looks whole."""
    import numpy as np

    matches = list(_LINE.finditer(block))
    if len(matches) == block.count(b"\n") == block.count(_BEGIN):
        return LineKeys(
            np.array([match[1] for match in matches], dtype=np.bytes_),
            np.array([int(match[3], 16) for match in matches], dtype=np.int64),
            np.array([match[2] for match in matches], dtype="S26").astype("datetime64[us]").astype(np.int64),
            np.array([match.end() + place for match in matches], dtype=np.int64),
        )
    requests, _ = _parse_block(block, place)
    return LineKeys(
        np.array([logged.request.encode() for logged in requests], dtype=np.bytes_),
        np.array([logged.moment for logged in requests], dtype=np.int64),
        np.array([micros(logged.time) for logged in requests], dtype=np.int64),
        np.array([logged.place for logged in requests], dtype=np.int64),
    )


def _parse_block(block: bytes, place: int) -> tuple[list[Logged], int]:
    """The requests of a block that begins at a place, and how many of its lines could not be read."""
    requests, damaged = [], 0
    for line in block.split(b"\n")[:-1]:
        place += len(line) + 1
        logged = _parse(line, place)
        if logged is None:
            damaged += 1
            begin = line.find(_BEGIN, 1)  # a full disk cut a line off, and the next one stands right behind it
            while logged is None and begin > 0:
                logged, begin = _parse(line[begin:], place), line.find(_BEGIN, begin + 1)
        if logged is not None:
            requests.append(logged)
    return requests, damaged


def _parse(line: bytes, place: int) -> Logged | None:
    """The request of a line; None where it is damaged."""
    import orjson

    try:
        fields = orjson.loads(line)
        rows, predictions = fields["rows"], fields["predictions"]
        logged = Logged(
            request=fields["request"],
            time=datetime.fromisoformat(fields["time"]).astimezone(UTC),
            ms=float(fields["ms"]),
            version=fields["version"],
            release=fields["release"],
            key=fields.get("key"),
            ids=fields["ids"],
            row_keys=fields.get("keys") or [None] * len(rows),
            rows=rows,
            predictions=predictions,
            moment=prediction_ids.moment(fields["ids"][0]),
            place=place,
        )
        are_texts = isinstance(logged.request, str) and isinstance(logged.release, str)
        is_whole = are_texts and len(logged.ids) == len(rows) == len(predictions) == len(logged.row_keys)
        return logged if is_whole and {*map(type, rows), *map(type, predictions)} <= {dict} else None
    except (orjson.JSONDecodeError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _end(blocks: Iterable[LineKeys], until: int) -> int:
    return max((int(keys.places[keys.moments <= until].max(initial=0)) for keys in blocks), default=0)


def _span(blocks: Sequence[Ints]) -> tuple[int, int]:
    ends = [(int(values.min()), int(values.max())) for values in blocks if len(values)]
    return _hull(ends)


def _hull(spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return (min(low for low, _ in spans), max(high for _, high in spans)) if spans else NEVER


def micros(time: datetime) -> int:
    """A moment in µs since 1970."""
    return int(time.replace(microsecond=0).timestamp()) * 1_000_000 + time.microsecond


# ── Parquet ───────────────────────────────────────────────────────────────────────────────────────


class ParquetLog:
    """A compacted log file, with the methods of JsonLog. It may be removed while it is read: then it has no rows."""

    is_compacted = True

    def __init__(self, path: Path, orders: Sequence[Erasure] = ()) -> None:
        self.path, self.orders = path, orders
        self.name = f"{path.parent.name}/{path.stem}"

    def size(self) -> int:
        """How many bytes its lines had."""
        from pyarrow import parquet

        return int(parquet.read_metadata(self.path).metadata[b"size"])

    def span(self) -> tuple[int, int]:
        """As JsonLog.span, from the file's statistics."""
        return _hull(self._spans("id"))

    def times(self) -> tuple[int, int]:
        """As JsonLog.times."""
        return _hull(self._spans("time"))

    def latest(self) -> int:
        """As JsonLog.latest."""
        return self.span()[1]

    def end(self, until: int) -> int:
        """As JsonLog.end."""
        if self.latest() > until:
            return _end(self.keys(*ALWAYS), until)
        return max(0, _hull(self._spans(PLACE))[1])

    def keys(self, since: int, until: int) -> Iterator[LineKeys]:
        """As JsonLog.keys."""
        import numpy as np

        groups = [i for i, (low, high) in enumerate(self._spans("id")) if low <= until and high >= since]
        for table in self._read(groups, ("id", "request", "time")):
            requests = np.array(table["request"].cast("binary").to_pylist(), dtype=np.bytes_)
            times = table["time"].cast("int64").to_numpy()
            keys = LineKeys(requests, prediction_ids.moments(table["id"]), times, table[PLACE].to_numpy())
            yield keys.within(since, until)

    def tables(
        self, start: int = 0, end: int | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """As JsonLog.tables."""
        import pyarrow.compute as pc

        end = 2**62 if end is None else end
        spans = self._spans(PLACE)
        groups = [i for i, (low, high) in enumerate(spans) if high > start and low <= end]
        are_whole = all(spans[i][0] > start and spans[i][1] <= end for i in groups)
        for table in self._read(groups, columns):
            if are_whole:
                yield table
            else:
                yield table.filter(pc.and_(pc.greater(table[PLACE], start), pc.less_equal(table[PLACE], end)))

    def newest(self, n: int) -> list[Logged]:
        """As JsonLog.newest."""
        import pyarrow.compute as pc

        table = schema_of([]).empty_table()
        for group in reversed(range(len(self._spans(PLACE)))):
            table = concat([*self._read([group], None), table])
            if len(table[PLACE].unique()) > n:
                break  # one more than is wanted: its first rows may stand in the group before
        newest = table[PLACE].unique()[-n:]
        return _to_requests(table.filter(pc.greater_equal(table[PLACE], newest[0]))) if len(newest) else []

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
                    writer.write_table(fit(table, schema))
            writer.add_key_value_metadata({name: metadata[name.encode()].decode() for name in ("size", "damaged")})
        return before - left

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
                yield _select(erasures.without(pa.Table.from_batches([batch]), self.orders), columns)

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
        return [_column_spans(group) for group in groups if group.num_rows]


LogFile = JsonLog | ParquetLog


def _column_spans(group: Any) -> dict[str, tuple[int, int]]:
    chunks = [group.column(i) for i in range(group.num_columns)]
    statistics = {
        chunk.path_in_schema: chunk.statistics for chunk in chunks if chunk.path_in_schema in {"id", "time", PLACE}
    }
    ids = statistics["id"]
    spans = {name: (int(statistics[name].min_raw), int(statistics[name].max_raw)) for name in ("time", PLACE)}
    return {**spans, "id": (prediction_ids.moment(ids.min), prediction_ids.moment(ids.max))}


# ── requests ↔ a table ────────────────────────────────────────────────────────────────────────────

_OF_REQUEST = ("request", "ms", "version", "release", "key")


def _to_requests(table: pa.Table) -> list[Logged]:
    """Requests from their rows, which stand next to each other."""
    features, classes = marks(table.schema, b"feature"), marks(table.schema, b"class")
    requests = []
    for place, group in groupby(table.to_pylist(), key=lambda row: row[PLACE]):
        rows = list(group)
        requests.append(
            Logged(
                **{name: rows[0][name] for name in (*_OF_REQUEST, "time")},
                ids=[row["id"] for row in rows],
                row_keys=[row["row_key"] for row in rows],
                rows=[{feature: _as_json(row[name]) for name, feature in features.items()} for row in rows],
                predictions=[_prediction(row, classes) for row in rows],
                moment=prediction_ids.moment(rows[0]["id"]),
                place=place,
            )
        )
    return requests


def _prediction(row: dict[str, Any], classes: dict[str, str]) -> dict[str, Any]:
    probabilities = {label: row[name] for name, label in classes.items() if row[name] is not None}
    answer = {**{name: row.get(name) for name in TAIL}, "probabilities": probabilities or None}
    return {name: value for name, value in answer.items() if value is not None}


def _as_json(value: Any) -> Any:
    """A feature as a client may post it: a whole number without a point, valid for a float and an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _to_table(requests: list[Logged]) -> pa.Table:
    """A row per prediction; a column per feature that any of the requests has."""
    import numpy as np
    import pyarrow as pa

    head = schema_of([])
    request_of_row = pa.array(np.repeat(np.arange(len(requests)), [len(logged.ids) for logged in requests]))
    of_request = {**{name: name for name in (*_OF_REQUEST, "time")}, PLACE: "place"}
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(logged, attribute) for logged in requests], head.field(name).type).take(request_of_row)
        for name, attribute in of_request.items()
    }
    columns["id"] = pa.array([id_ for logged in requests for id_ in logged.ids], pa.string())
    columns["row_key"] = pa.array([key for logged in requests for key in logged.row_keys], pa.string())
    metadata: dict[str, dict[str, str]] = {}
    rows = [row for logged in requests for row in logged.rows]
    for feature in set().union(*rows):
        columns[column_of(feature)] = _column([row.get(feature) for row in rows])
        metadata[column_of(feature)] = {"feature": feature}
    answers = [answer for logged in requests for answer in logged.predictions]
    for name in {*TAIL} & set().union(*answers):
        values = [answer.get(name) for answer in answers]
        columns[name] = pa.array(values, pa.list_(pa.string())) if name == "unseen" else _column(values)
    probabilities = [answer.get("probabilities") or {} for answer in answers]
    for label in dict.fromkeys(chain.from_iterable(probabilities)):
        columns[f"p_{label}"] = _column([shares.get(label) for shares in probabilities])
        metadata[f"p_{label}"] = {"class": label}
    fields = [pa.field(name, values.type, metadata=metadata.get(name)) for name, values in columns.items()]
    schema = schema_of([pa.schema(fields)])
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _column(values: list[Any]) -> pa.Array:
    """Texts, numbers, or only nulls: a type for each, so that blocks and files fit together."""
    import numpy as np
    import pyarrow as pa

    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds <= {int, float}:
        return pa.array(np.array(values, dtype=np.float64), from_pandas=True)
    return pa.array([None if value is None else str(value) for value in values], pa.string())


# ── schemas ───────────────────────────────────────────────────────────────────────────────────────


def column_of(feature: str) -> str:
    """A feature's column: not one that the log has itself."""
    is_taken = feature in {*HEAD, *TAIL, PLACE} or feature.startswith("p_")
    return f"feature_{feature}" if is_taken else feature


def marks(schema: pa.Schema, kind: bytes) -> dict[str, str]:
    """Column → the feature (`b"feature"`), or the class (`b"class"`), whose values it holds."""
    marked = {field.name: (field.metadata or {}).get(kind) for field in schema}
    return {name: mark.decode() for name, mark in marked.items() if mark is not None}


def schema_of(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The columns that any of them has, in order: HEAD, the features by name, TAIL, the place."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    types = {"id": text, "request": text, "time": pa.timestamp("us", "UTC"), "ms": number}
    types |= {"version": text, "release": text, "key": text, "row_key": text, PLACE: pa.int64()}
    head = pa.schema([pa.field(name, type_) for name, type_ in types.items()])
    return pa.schema(sorted(unified([head, *schemas]), key=_order))


def unified(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The fields that any of them has, each of a type that holds the values of all: of a number and a text, text."""
    import pyarrow as pa

    fields: dict[str, pa.Field] = {}
    for field in chain.from_iterable(schemas):
        other = fields.setdefault(field.name, field)
        if other.type != field.type and not pa.types.is_null(field.type):
            fields[field.name] = field if pa.types.is_null(other.type) else other.with_type(pa.string())
    return pa.schema(list(fields.values()))


def _order(field: pa.Field) -> tuple[float, int, str]:
    if field.name in HEAD:
        return 0, HEAD.index(field.name), ""
    if field.name in TAIL:
        return 2 if field.name in TAIL[:2] else 4, TAIL.index(field.name), ""
    if field.name == PLACE:
        return 5, 0, ""
    return (3, 0, "") if b"class" in (field.metadata or {}) else (1, 0, field.name)


def fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of a schema; one that it lacks is null."""
    import pyarrow as pa

    if table.schema.equals(schema, check_metadata=True):
        return table
    present = dict(zip(table.column_names, table.columns, strict=True))
    columns = [
        present[field.name].cast(field.type) if field.name in present else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def concat(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables below each other, with the columns of all."""
    import pyarrow as pa

    schema = schema_of([table.schema for table in tables])
    return pa.concat_tables([fit(table, schema) for table in tables]) if tables else schema.empty_table()


def _select(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    wanted = None if columns is None else {*columns, PLACE}
    return table.select([name for name in table.column_names if wanted is None or name in wanted])
