"""Requests of the prediction log: parsed from lines, laid out as a table with a row per prediction, and back.

The ids of predictions are UUIDs of version 7: their first 48 bits are the millisecond in which the request was
answered, its *moment*. Its `time` is when it was asked, which a client may set to an hour or a year ago.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

HEAD = ("id", "request", "time", "ms", "version", "release", "key", "row_key")
"""The columns before the features. `key` is the request's, `row_key` the client's name for the row."""

TAIL = ("prediction", "probability", "low", "high", "anomaly_score", "unseen")
"""The columns after them; `p_<class>` stand behind `probability`, and `<label>:prediction` of several labels."""

_ANSWERS = {"anomaly_score": "score"}
"""Column → its name in an answer, where that is another: a feature may be called `score`."""

PLACE = "at"
"""The column of a row's place in its file."""

BEGIN = b'{"request":"'
"""How each line begins."""

_OF_REQUEST = ("request", "time", "ms", "version", "release", "key")


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
    place: int

    @property
    def moment(self) -> int:
        """When it was answered, in ms since 1970."""
        return moment(self.ids[0])

    def only(self, prediction_id: str) -> Logged:
        """The request with one of its predictions only, or with none."""
        at = [i for i, id_ in enumerate(self.ids) if id_ == prediction_id]
        columns: dict[str, Any] = {
            name: [getattr(self, name)[i] for i in at] for name in ("ids", "row_keys", "rows", "predictions")
        }
        return replace(self, **columns)


# ── times ─────────────────────────────────────────────────────────────────────────────────────────


def moment(prediction_id: str) -> int:
    """When a prediction was made, in ms since 1970."""
    return int(prediction_id[:12], 16)


def moments(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """When some predictions were made, in ms since 1970; a hundred times as fast as `moment`."""
    import numpy as np
    import pyarrow.compute as pc

    if not len(ids):
        return np.empty(0, dtype=np.int64)
    texts = pc.utf8_slice_codeunits(ids, 0, 12).to_numpy().astype("S12")
    nibbles = np.frombuffer(texts.tobytes(), dtype=np.uint8).reshape(-1, 12)
    digits = np.where(nibbles >= ord("a"), nibbles - (ord("a") - 10), nibbles - ord("0")).astype(np.int64)
    return np.asarray(digits @ 16 ** np.arange(11, -1, -1, dtype=np.int64))


def micros(time: datetime) -> int:
    """A time in µs since 1970."""
    return int(time.replace(microsecond=0).timestamp()) * 1_000_000 + time.microsecond


# ── lines → requests ──────────────────────────────────────────────────────────────────────────────


def parse_block(block: bytes, place: int) -> tuple[list[Logged], int]:
    """The requests of whole lines that begin at a place, and how many of the lines could not be read."""
    requests, damaged = [], 0
    for line in block.split(b"\n")[:-1]:
        place += len(line) + 1
        logged = _parse(line, place)
        if logged is None:
            damaged += 1
            begin = line.find(BEGIN, 1)  # a full disk cut a line off, and the next one stands right behind it
            while logged is None and begin > 0:
                logged, begin = _parse(line[begin:], place), line.find(BEGIN, begin + 1)
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
            place=place,
        )
        are_texts = isinstance(logged.request, str) and isinstance(logged.release, str) and logged.moment >= 0
        is_whole = are_texts and len(logged.ids) == len(rows) == len(predictions) == len(logged.row_keys)
        return logged if is_whole and {*map(type, rows), *map(type, predictions)} <= {dict} else None
    except (orjson.JSONDecodeError, ValueError, TypeError, LookupError, AttributeError):
        return None


# ── requests ↔ a table ────────────────────────────────────────────────────────────────────────────


def to_table(requests: Sequence[Logged]) -> pa.Table:
    """A row per prediction, with PLACE; a column per feature that any of the requests has."""
    import pyarrow as pa

    rows = [row for logged in requests for row in logged.rows]
    columns = _request_columns(requests)
    for name in set().union(*rows):
        columns[column_of(name)] = _feature_column([row.get(name) for row in rows]), {"feature": name}
    columns |= _answer_columns([answer for logged in requests for answer in logged.predictions])
    fields = [pa.field(name, values.type, metadata=mark) for name, (values, mark) in columns.items()]
    schema = schema_of([pa.schema(fields)])
    return pa.Table.from_arrays([columns[name][0] for name in schema.names], schema=schema)


_Columns = dict[str, "tuple[pa.Array, dict[str, str] | None]"]
"""Name → the values, and the feature or class that they are of (`marks`)."""


def _request_columns(requests: Sequence[Logged]) -> _Columns:
    import numpy as np
    import pyarrow as pa

    head = schema_of([])
    attributes = {**dict(zip(_OF_REQUEST, _OF_REQUEST, strict=True)), PLACE: "place"}
    of_requests = {
        name: pa.array([getattr(logged, attribute) for logged in requests], head.field(name).type)
        for name, attribute in attributes.items()
    }
    request_of_row = np.repeat(np.arange(len(requests)), [len(logged.ids) for logged in requests] or 0)
    columns = {name: values.take(pa.array(request_of_row)) for name, values in of_requests.items()}
    columns["id"] = pa.array([id_ for logged in requests for id_ in logged.ids], pa.string())
    columns["row_key"] = pa.array([key for logged in requests for key in logged.row_keys], pa.string())
    return {name: (values, None) for name, values in columns.items()}


def _answer_columns(answers: Sequence[Mapping[str, Any]]) -> _Columns:
    import pyarrow as pa

    columns: _Columns = {}
    if any(isinstance(answer.get("prediction"), dict) for answer in answers):
        by_output = [_by_output(answer) for answer in answers]
        for output in dict.fromkeys(chain.from_iterable(by_output)):
            own = _answer_columns([each.get(output, {}) for each in by_output])
            columns |= {f"{output}:{n}": (of, {**(mark or {}), "output": output}) for n, (of, mark) in own.items()}
        answers = [{name: of for name, of in answer.items() if not isinstance(of, dict)} for answer in answers]
    given = set().union(*answers)
    for name in [name for name in TAIL if _ANSWERS.get(name, name) in given]:
        values = [answer.get(_ANSWERS.get(name, name)) for answer in answers]
        columns[name] = pa.array(values, pa.list_(pa.string())) if name == "unseen" else _column(values), None
    shares = [answer.get("probabilities") or {} for answer in answers]
    for label in dict.fromkeys(chain.from_iterable(shares)):
        columns[f"p_{label}"] = _column([share.get(label) for share in shares]), {"class": label}
    return columns


def _by_output(answer: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The answer to each of several labels, by its name; none where it is to one."""
    if not isinstance(answer.get("prediction"), dict):
        return {}
    kinds = {kind: of for kind in ("prediction", "probabilities") if isinstance(of := answer.get(kind), dict)}
    return {output: {kind: of[output] for kind, of in kinds.items()} for output in answer["prediction"]}


def _feature_column(values: list[Any]) -> pa.Array:
    """As `_column`; truth values and lists of numbers are themselves."""
    import pyarrow as pa

    kinds = {type(value) for value in values} - {type(None)}
    itself = {frozenset({bool}): pa.bool_(), frozenset({list}): pa.list_(pa.float64())}.get(frozenset(kinds))
    return _column(values) if itself is None else pa.array(values, itself)


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


def to_requests(table: pa.Table) -> list[Logged]:
    """Requests from their rows, which stand next to each other."""
    features, classes = marks(table.schema, b"feature"), marks(table.schema, b"class")
    outputs = marks(table.schema, b"output")
    requests = []
    own = [name for name in (*_OF_REQUEST, PLACE) if name in table.column_names]  # the table has no places
    for _, group in groupby(table.to_pylist(), key=lambda row: [row[name] for name in own]):
        rows = list(group)
        requests.append(
            Logged(
                **{name: rows[0][name] for name in _OF_REQUEST},
                ids=[row["id"] for row in rows],
                row_keys=[row["row_key"] for row in rows],
                rows=[{feature: _as_posted(row[name]) for name, feature in features.items()} for row in rows],
                predictions=[_prediction(row, classes, outputs) for row in rows],
                place=rows[0].get(PLACE, 0),
            )
        )
    return requests


def _prediction(row: dict[str, Any], classes: dict[str, str], outputs: dict[str, str]) -> dict[str, Any]:
    if several := {name: output for name, output in outputs.items() if row[name] is not None}:
        kinds: dict[str, dict[str, Any]] = {"prediction": {}}
        for name, output in several.items():
            if name in classes:
                kinds.setdefault("probabilities", {}).setdefault(output, {})[classes[name]] = row[name]
            else:
                kinds["prediction"][output] = row[name]
        return {**kinds, **({} if row.get("unseen") is None else {"unseen": row["unseen"]})}
    probabilities = {label: row[name] for name, label in classes.items() if row[name] is not None}
    answer = {**{_ANSWERS.get(name, name): row.get(name) for name in TAIL}, "probabilities": probabilities or None}
    return {name: value for name, value in answer.items() if value is not None}


def _as_posted(value: Any) -> Any:
    """A whole number without a point is valid for a float and an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ── schemas ───────────────────────────────────────────────────────────────────────────────────────


def column_of(feature: str) -> str:
    """A feature's column: not one that the log has itself."""
    is_taken = feature in {*HEAD, *TAIL, PLACE, "answered_day"} or feature.startswith("p_")
    return f"feature_{feature}" if is_taken else feature


def marks(schema: pa.Schema, kind: bytes) -> dict[str, str]:
    """Column → the feature (`b"feature"`), or the class (`b"class"`), whose values it holds."""
    marked = {field.name: (field.metadata or {}).get(kind) for field in schema}
    return {name: mark.decode() for name, mark in marked.items() if mark is not None}


def schema_of(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The columns that any of them has, in order: HEAD, the features by name, TAIL, the place."""
    import pyarrow as pa

    types = {**dict.fromkeys(HEAD, pa.string()), "time": pa.timestamp("us", "UTC"), "ms": pa.float64()}
    head = pa.schema([*types.items(), (PLACE, pa.int64())])
    return pa.schema(sorted(unified([head, *schemas]), key=_order))


def _order(field: pa.Field) -> tuple[float, int, str]:
    if field.name in HEAD:
        return 0, HEAD.index(field.name), ""
    if field.name in TAIL:
        return 2 if field.name in TAIL[:2] else 4, TAIL.index(field.name), ""
    if field.name == PLACE:
        return 5, 0, ""
    return (3, 0, "") if {b"class", b"output"} & {*(field.metadata or {})} else (1, 0, field.name)


def unified(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The fields that any of them has, each of a type that holds the values of all: of a number and a text, text."""
    import pyarrow as pa

    fields: dict[str, pa.Field] = {}
    for field in chain.from_iterable(schemas):
        other = fields.setdefault(field.name, field)
        if other.type != field.type and not pa.types.is_null(field.type):
            fields[field.name] = field if pa.types.is_null(other.type) else other.with_type(pa.string())
    return pa.schema(list(fields.values()))


def fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of a schema; one that it lacks is null."""
    import pyarrow as pa

    if table.schema.equals(schema, check_metadata=True):
        return table
    present = dict(zip(table.column_names, table.columns, strict=True))
    columns = [
        _cast(present[field.name], field.type) if field.name in present else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(values: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    import pyarrow as pa

    if pa.types.is_list(values.type) and pa.types.is_string(wanted):  # a feature that was a vector, and is none now
        return pa.chunked_array([pa.array([None if v is None else str(v) for v in values.to_pylist()], wanted)])
    return values.cast(wanted)


def concat(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables below each other, with the columns of all; those of an empty log without a table."""
    import pyarrow as pa

    schema = schema_of(table.schema for table in tables)
    return pa.concat_tables([fit(table, schema) for table in tables]) if tables else schema.empty_table()


def select(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """These columns and PLACE, as far as the table has them; all of them for None."""
    wanted = None if columns is None else {*columns, PLACE}
    return table.select([name for name in table.column_names if wanted is None or name in wanted])
