"""Write-ahead prediction log with compaction: every answered request, and which release answered it.

A replica writes one line of JSON per request before it answers (tasks/runtime/replica.py):

    var/predictions/<model>/incoming/<day, UTC>/<candidate>.<process>.<began>.<n>.jsonl
    {"request", "time", "ms", "model", "version", "release", "key", "ids": […], "keys", "rows": [{…}],
     "predictions": [{…}]}

`compact` takes what has settled of them to a Delta table, a row per prediction, each exactly once (log_table.py); a
file that is closed and taken whole is removed. Many machines may share a table: each has its own files of lines.

The writer promises: a line holds no line break, and `request` comes first; a file is new (O_EXCL), and held by a shared
flock from before its first line until its process begins another file, ends or dies.

A killed process leaves two things. Its last line may be torn: that request was not answered, the line is counted and
left out. And a request that was logged but not answered is asked again and stands twice: the later line counts, the
earlier one is left out. The two are less than `settling` apart; so the table takes no younger line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tasks.ground import files, params, paths
from tasks.ground.errors import Mistake
from tasks.prediction_log import erasures, former_log, log_lines, log_table, log_tables
from tasks.prediction_log.erasures import Erasure
from tasks.prediction_log.log_lines import LogLines
from tasks.prediction_log.log_table import DataFile, LogTable
from tasks.prediction_log.log_tables import Logged, micros
from tasks.runtime import answer_columns, request_schema

if TYPE_CHECKING:
    import pyarrow as pa

MS = timedelta(milliseconds=1)

AT_ONCE = 32_000_000
"""Bytes of lines that are taken by one commit: their rows are in memory."""

ATTEMPTS = 10
"""How often a compaction begins again after another writer has changed the table."""

Watermark = dict[str, Any]
"""`table` and `version` of the Delta table whose rows were read; {}: none. As JSON has it."""

VersionsGone = log_table.VersionsGone


@dataclass
class Compacted:
    """What one call of `compact` did."""

    files: int = 0
    """Files of lines that were closed, and are gone."""
    rows: int = 0
    damaged: int = 0
    """Lines that could not be read: torn by a kill or a full disk."""
    open: int = 0
    """Files that a process still writes to, or that have young lines."""
    erased: int = 0
    """Rows that erasure orders removed from the table."""

    def __str__(self) -> str:
        torn = f", {self.damaged} torn lines left out" if self.damaged else ""
        erased = f"; {self.erased:,} rows were erased as ordered" if self.erased else ""
        return f"{self.files} files compacted, {self.rows:,} rows{torn}; {self.open} are still written to{erased}"


def settling(model: str) -> timedelta:
    """An older request is not asked again: three times `serving.timeout_s`."""
    configured = params.load().models.get(model)  # the log of a model outlives its section of params.yaml
    return 3 * timedelta(seconds=configured.serving.timeout_s if configured else params.Serving().timeout_s)


def ahead() -> timedelta:
    """How far the `time` of a row may be ahead of its answer."""
    return timedelta(seconds=request_schema.max_ahead_s())


# ── reading ───────────────────────────────────────────────────────────────────────────────────────


def read(
    model: str, since: datetime | None = None, until: datetime | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """Every prediction of a span of time, once, in the order of time and id; `.to_pandas()` makes a DataFrame of it.

    Args:
        model: whose.
        since: from this moment on (a time with its zone); None means from the beginning.
        until: before this moment.
        columns: only these, in this order; one that was never logged is null.

    Returns:
        A row per prediction. id (of the prediction), request, time (when it was asked, or the client's own time; µs,
        UTC), ms, version, release (the candidate), key (the request's) and row_key (the client's name for the row);
        the features (category, text, datetime: text; integer, number: float64; boolean: bool; vector: a list), where
        one with the name of another column is called `feature_<name>`; prediction, probability, p_<class>, low, high,
        anomaly_score and unseen, as far as there are any.
    """
    import pyarrow.compute as pc

    low = micros(since) if since else -(2**62)
    high = micros(until) if until else 2**62
    orders = _orders(model)
    needed = None if columns is None else [*columns, *erasures.NEEDED]
    tables = []
    with log_lines.opened(model, orders) as lines:  # open first: what is taken meanwhile can still be read
        table = LogTable.open(model)
        for block in (*_pending(model, table, lines), *_stored(table, low, high, needed, orders)):
            times = block["time"].cast("int64")
            inside = pc.and_(pc.greater_equal(times, low), pc.less(times, high))
            tables.append(log_tables.select(block.filter(inside), needed))
    whole = log_tables.concat(tables).sort_by([("time", "ascending"), ("id", "ascending")])
    return _typed(whole, _types(model), columns)


def _pending(model: str, table: LogTable | None, lines: Sequence[LogLines]) -> Iterator[pa.Table]:
    """The rows of lines that the table has not."""
    places = {log.name: table.place(log.name) if table else 0 for log in lines}
    superseded = _superseded(model, lines, places)
    for log in lines:
        for rows, _, _ in log.tables(places[log.name], log.whole):
            yield _without(rows, superseded.get(log.name))


def _stored(
    table: LogTable | None, low: int, high: int, columns: Sequence[str] | None, orders: Sequence[Erasure]
) -> Iterator[pa.Table]:
    """The rows of the table that may be of a span of time (µs)."""
    data_files = table.files() if table else []
    wanted = [file.path for file in data_files if micros(file.times[0]) < high and micros(file.times[1]) >= low]
    for rows in table.tables(wanted, columns) if table else ():
        yield erasures.without(rows, orders)


def read_new(model: str, watermark: Watermark, now: datetime | None = None) -> tuple[Iterator[pa.Table], Watermark]:
    """What was logged since a watermark, each prediction once, in bounded memory; what has settled is compacted first.

    Store the new watermark in one step with what was made of the rows: a reader that is killed before that begins
    again at the old one, and gets the same rows and those that came since. What is younger than `settling` is left for
    the next call. {} is the beginning. Where nothing is new, nothing heavy is imported.

    Returns:
        Tables as those of `read`, in no order, each with the columns that it has; and the watermark that holds once
        all of them were read.

    Raises:
        VersionsGone: it is too long ago: what is new is not known any more.
    """
    if not _is_news(model, watermark):
        return iter(()), watermark
    compact(model, now)
    where = log_table.location(model)
    is_there = log_table.is_local(where) and log_table.local_version(where) >= 0
    table = LogTable.create(model) if is_there else LogTable.open(model)  # which mends what a power cut has torn
    if table is None:
        return iter(()), {}
    if watermark.get("table", table.identity) != table.identity:
        raise VersionsGone
    data_files = table.added_since(watermark["version"]) if watermark else [file.path for file in table.files()]
    orders, types = erasures.read(model), _types(model)
    rows = (erasures.without(block, orders) for block in table.tables(data_files))
    return (_typed(block, types, None) for block in rows if len(block)), _watermark(table)


def _watermark(table: LogTable) -> Watermark:
    return {"table": table.identity, "version": table.version}


def _is_news(model: str, watermark: Watermark) -> bool:
    """Whether there is anything to compact or to read; imports nothing."""
    where = log_table.location(model)
    if not log_table.is_local(where) or log_table.local_version(where) != watermark.get("version", -1):
        return True
    taken = files.read_state(paths.compacted_lines(model), dict[str, int]())
    lines = log_lines.line_files(model)
    is_pending = any(path.stat().st_size != taken.get(f"{path.parent.name}/{path.name}") for path in lines)
    return is_pending or bool(former_log.parts(model)) or erasures.done(model) < len(erasures.read(model))


def last_requests(model: str, n: int, release: str | None = None) -> list[Logged]:
    """The newest n requests with their answers, oldest first; of one release only where it is named.

    Reads from the newest files backwards; the table only where the lines are too few.
    """
    newest: dict[str, Logged] = {}
    orders = _orders(model)
    with log_lines.opened(model, orders, release=release) as lines:
        ends = sorted(((log.latest(), log) for log in lines), key=lambda pair: -pair[0])
        _add_newest(newest, n, ((end, lambda log=log: log.newest(n)) for end, log in ends))
    if len(newest) < n and (table := LogTable.open(model)) is not None:
        data_files = sorted(table.files(), key=lambda file: -file.span[1])
        _add_newest(
            newest, n, ((f.span[1], lambda f=f: _newest_stored(table, f, n, orders, release)) for f in data_files)
        )
    return sorted(newest.values(), key=lambda logged: (logged.moment, logged.request))[max(0, len(newest) - n) :]


def _add_newest(newest: dict[str, Logged], n: int, sources: Iterator[tuple[int, Any]]) -> None:
    """Add the requests of sources, the one with the newest first, until there are n that are newer than the rest."""
    for end, requests in sources:
        moments = sorted((logged.moment for logged in newest.values()), reverse=True)[:n]
        if len(moments) == n and end < moments[-1]:
            return
        for logged in requests():
            if logged.request not in newest or newest[logged.request].moment < logged.moment:
                newest[logged.request] = logged


def _newest_stored(
    table: LogTable, file: DataFile, n: int, orders: Sequence[Erasure], release: str | None
) -> list[Logged]:
    """The newest requests of a data file."""
    import pyarrow.compute as pc

    blocks = [erasures.without(block, orders) for block in table.tables([file.path])]
    blocks = [block.filter(pc.equal(block["release"], release)) if release else block for block in blocks]
    rows = log_tables.concat(blocks).sort_by([("id", "ascending")])
    requests = pc.unique(rows["request"].combine_chunks()[::-1])[:n]
    return log_tables.to_requests(rows.filter(pc.is_in(rows["request"], requests)))


def find(model: str, prediction_id: str) -> Logged | None:
    """The request of one prediction, with its row and its answer only; None where the log has it not (any more).

    An id holds when it was answered, so only files of that time are looked into: some milliseconds.
    """
    import pyarrow.compute as pc

    try:
        answered = datetime.fromtimestamp(log_tables.moment(prediction_id) / 1000, UTC)
        days = {(answered + timedelta(days=n)).date().isoformat() for n in (-1, 0, 1)}  # a file begun before midnight
    except (ValueError, OverflowError):  # no id of ours
        return None
    orders = _orders(model)
    with log_lines.opened(model, orders, days) as lines:
        for log in lines:
            if logged := log.find(prediction_id):
                return logged
    if (opened := log_table.snapshot(model)) is None:
        return None
    table, known = opened
    data_files = [f.path for f in known if f.day in days and f.ids[0] <= prediction_id <= f.ids[1]]
    for block in table.tables(data_files, ids=(prediction_id, prediction_id)):
        row = erasures.without(block.filter(pc.equal(block["id"], prediction_id)), orders)
        if len(row):
            return log_tables.to_requests(row)[0]
    return None


def _orders(model: str) -> tuple[Erasure, ...]:
    """The erasure orders, by which whatever is read is filtered; takes what a former build has left to the table."""
    if former_log.parts(model):
        compact(model)
    return erasures.read(model)


def _superseded(model: str, lines: Sequence[LogLines], places: Mapping[str, int]) -> dict[str, set[int]]:
    """The lines, behind some places, that count for nothing."""
    return log_lines.superseded({log.name: log.keys(places[log.name]) for log in lines}, settling(model) // MS)


def _without(table: pa.Table, places: set[int] | None) -> pa.Table:
    if not places:
        return table
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.invert(pc.is_in(table[log_tables.PLACE], pa.array(sorted(places), pa.int64()))))


def _typed(table: pa.Table, types: Mapping[str, Any], columns: Sequence[str] | None) -> pa.Table:
    """Without the place; a column that is all null has the type that it should have."""
    import pyarrow as pa

    names = columns if columns is not None else [name for name in table.column_names if name != log_tables.PLACE]
    fields = []
    for name in names:
        field = table.schema.field(name) if name in table.column_names else pa.field(name, pa.null())
        usual = types.get(name, pa.float64() if answer_columns.split(name)[1].startswith("p_") else pa.string())
        fields.append(field.with_type(usual) if pa.types.is_null(field.type) else field)
    return log_tables.fit(table, pa.schema(fields))


def _types(model: str) -> dict[str, Any]:
    """The types of what may be all null: features, as params.yaml has them now, and parts of an answer."""
    import pyarrow as pa

    configured = params.load().models.get(model)
    features = configured.features if configured else {}
    of_type = {"integer": pa.float64(), "number": pa.float64(), "boolean": pa.bool_(), "vector": pa.list_(pa.float64())}
    types = {log_tables.column_of(name): of_type.get(feature.type, pa.string()) for name, feature in features.items()}
    of_numbers = dict.fromkeys(("probability", "low", "high", "anomaly_score"), pa.float64())
    return {**types, **of_numbers, "unseen": pa.list_(pa.string())}


# ── keeping ───────────────────────────────────────────────────────────────────────────────────────


def compact(model: str, now: datetime | None = None) -> Compacted:
    """Take what has settled of every file of lines to the table. Killed anywhere, the next call goes on exactly there.

    Raises:
        WorldError: the disk is full. The lines stay until the table has them.
        Conflict: other writers changed the table again and again.
    """
    done = Compacted()
    with files.lock(f"predictions-{model}"):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _compact(model, _now(now), done)
            except log_table.Conflict:
                if attempt == ATTEMPTS:
                    raise
            else:
                break
    return done


def _compact(model: str, now: datetime, done: Compacted) -> None:
    orders, former, taken = erasures.read(model), former_log.parts(model), dict[str, int]()
    with log_lines.opened(model, orders) as lines:
        if lines or former or erasures.done(model) < len(orders):
            table = LogTable.create(model)
            table.set_torn_aside()
            done.rows += former_log.migrate(table, former, orders, settling(model) // MS)
            if erasures.done(model) < len(orders):
                done.erased += sum(
                    table.rewrite(file, lambda rows: erasures.without(rows, orders)) for file in table.files()
                )
                erasures.set_done(model, len(orders))
            taken = _take(model, table, lines, now, done)
            table.tidy()
    _remove_empty(model, now, done)
    if taken != files.read_state(paths.compacted_lines(model), dict[str, int]()):
        files.write_json(paths.compacted_lines(model), taken)


def _take(model: str, table: LogTable, lines: Sequence[LogLines], now: datetime, done: Compacted) -> dict[str, int]:
    """Append what has settled of files of lines, and remove those that are taken whole.

    Returns:
        Each of the others: `<day>/<name>` → the place that was reached.
    """
    settled = now - settling(model)
    places = {log.name: table.place(log.name) for log in lines}
    keys = {log.name: log.keys(places[log.name]) for log in lines}
    superseded = log_lines.superseded(keys, settling(model) // MS)
    waiting = _Waiting(table, done, _types(model))
    taken = {}
    # the file of a later line after that of the one which it supersedes: a kill between two commits parts no pair
    for log in sorted(lines, key=lambda log: int(keys[log.name].moments.max(initial=0))):
        is_closed = log.is_closed(now)
        # lines of a clock that was ahead have settled too, once nobody writes behind them
        is_old = is_closed and log.written() < settled.timestamp()
        end = log.whole if is_old else max(places[log.name], keys[log.name].end(micros(settled) // 1000))
        if is_closed and end >= keys[log.name].places.max(initial=0):
            end = log.whole  # what is behind its last request cannot be read
        for rows, place, damaged in log.tables(places[log.name], end):
            waiting.add(log, _without(rows, superseded.get(log.name)), place, damaged)
        if is_closed and end == log.whole:
            waiting.is_done[log] = log.size - log.whole
        else:
            taken[f"{log.day}/{log.path.name}"] = end
    waiting.commit()
    done.open = len(taken)
    return taken


class _Waiting:
    """Rows on their way into the table, and files of lines that may go when they are in it."""

    def __init__(self, table: LogTable, done: Compacted, types: Mapping[str, Any]) -> None:
        self.table, self.done, self.types = table, done, types
        self.tables: list[pa.Table] = []
        self.places: dict[str, int] = {}
        self.bytes, self.damaged = 0, 0
        self.is_done: dict[LogLines, int] = {}
        """File → bytes of a torn last line."""

    def add(self, log: LogLines, rows: pa.Table, place: int, damaged: int) -> None:
        """Rows of a file up to a place."""
        import pyarrow as pa

        self.tables.append(rows.append_column(log_table.DAY, pa.array([log.day] * len(rows), pa.string())))
        self.places[log.name] = place
        self.bytes, self.damaged = self.bytes + rows.nbytes, self.damaged + damaged
        if self.bytes > AT_ONCE:
            self.commit()

    def commit(self) -> None:
        """Append them; what was taken whole is removed."""
        import pyarrow as pa

        rows = log_tables.concat(self.tables) if self.tables else None
        if rows is not None:
            nulls = {field.name for field in rows.schema if field.type == "null"} & {*self.types}
            fields = [f.with_type(self.types[f.name]) if f.name in nulls else f for f in rows.schema]
            self.table.append(log_tables.fit(rows, pa.schema(fields)), self.places)
            self.done.rows, self.done.damaged = self.done.rows + len(rows), self.done.damaged + self.damaged
        self.tables, self.places, self.bytes, self.damaged = [], {}, 0, 0
        for log, torn in self.is_done.items():
            log.path.unlink(missing_ok=True)
            self.done.files, self.done.damaged = self.done.files + 1, self.done.damaged + bool(torn)
        self.is_done = {}


def _remove_empty(model: str, now: datetime, done: Compacted) -> None:
    """Remove files that never got a whole line, and folders of days that are over."""
    for path in log_lines.line_files(model):
        with path.open("rb") as stream:
            if stream.readline().endswith(b"\n"):
                continue
            if not log_lines.is_closed(stream, now):
                done.open += 1
                continue
            done.files, done.damaged = done.files + 1, done.damaged + (path.stat().st_size > 0)
            path.unlink()
    for day in paths.incoming_predictions(model).glob("????-??-??"):
        if day.name < now.date().isoformat() and not any(day.iterdir()):
            day.rmdir()


def forget(
    model: str,
    after: datetime | None = None,
    before: datetime | None = None,
    ids: Sequence[str] = (),
    keys: Sequence[str] = (),
    now: datetime | None = None,
) -> int:
    """Take the rows that meet all conditions out of the log, and out of all that is made of it (erasures.py).

    `after` and `before` are times with their zone, of when the client says that it asked; `keys` are those of rows or
    of their requests. Only what was answered by now is meant (`now` is for tests).

    Returns:
        How many rows these were; 0 where none was left.

    Raises:
        Mistake: no condition was given.
    """
    if after is None and before is None and not ids and not keys:
        raise Mistake("say which rows are to be forgotten: --time-after, --time-before, --prediction-id or --key")
    order = Erasure(
        answered=micros(_now(now)) // 1000,
        after=None if after is None else micros(after),
        before=None if before is None else micros(before),
        ids=tuple(ids),
        keys=erasures.hashes(keys),
    )
    compact(model, now)
    orders = erasures.read(model)
    with files.lock(f"predictions-{model}"):
        with log_lines.opened(model, orders) as lines:
            table = LogTable.open(model)
            stored = _stored(table, -(2**62), 2**62, erasures.NEEDED, orders)
            tables = [rows for rows in (*_pending(model, table, lines), *stored) if len(rows)]
        count = sum(int(order.matches(rows).sum()) for rows in tables)
        if count:
            erasures.add(model, order)
    compact(model, now)
    return count


def sweep(model: str, keep_days: int, most_bytes: int, now: datetime | None = None) -> list[str]:
    """Forget what is older than the last `keep_days` days, today included, and the oldest of what is too large.

    Lines are forgotten once they are compacted: call `compact` first.

    Returns:
        The days, and the data files of other days, that were forgotten: `<day>` and `<day>/<file>`, oldest first.
    """
    first = (_now(now).date() - timedelta(days=keep_days - 1)).isoformat()
    with files.lock(f"predictions-{model}"):
        if (table := LogTable.open(model)) is None:
            return []
        too_old = [file for file in table.files() if file.day < first]
        table.remove(too_old)
        table.remove(too_large := _beyond(model, table, most_bytes))
    return [*sorted({file.day for file in too_old}), *(file.name for file in too_large)]


def _beyond(model: str, table: LogTable, most_bytes: int) -> list[DataFile]:
    """The oldest data files without which the log, its lines included, is no larger than it may be."""
    data_files = table.files()
    lines = sum(path.stat().st_size for path in log_lines.line_files(model))
    excess = lines + sum(file.size for file in data_files) - most_bytes
    beyond: list[DataFile] = []
    for file in data_files:
        if excess <= 0:
            break
        beyond.append(file)
        excess -= file.size
    return beyond


def _now(now: datetime | None) -> datetime:
    return now or datetime.now(UTC)
