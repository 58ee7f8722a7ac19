"""Write-ahead prediction log with compaction: every answered request, and which release answered it.

A replica writes one line of JSON per request before it answers (tasks/runtime/replica.py):

    var/predictions/<model>/incoming/<day, UTC>/<candidate>.<process>.<began>.<n>.jsonl
    {"request", "time", "ms", "model", "version", "release", "key", "ids": […], "keys", "rows": [{…}],
     "predictions": [{…}]}

`compact` makes a Parquet file, a row per prediction, of each file that no process writes to any more:

    var/predictions/<model>/<day>/<candidate>.<process>.<began>.<n>.<digest of the first line>.parquet

Before and after, it is the same log file (log_files.py), and each row keeps its place in it.

The writer promises: a line holds no line break, and `request` and `time` come first; a file is new (O_EXCL), and held
by a shared flock from before its first line until its process begins another file, ends or dies.

A killed process leaves two things. Its last line may be torn: that request was not answered, the line is counted and
left out. And a request that was logged but not answered is asked again and stands twice: the later line counts, the
earlier one is left out. The two are less than `settling` apart.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, params, paths
from tasks.ground.errors import Mistake, WorldError
from tasks.prediction_log import erasures, log_files, log_tables
from tasks.prediction_log.erasures import Erasure
from tasks.prediction_log.log_files import LogFile
from tasks.prediction_log.log_tables import PLACE, Logged, micros
from tasks.runtime import answer_columns, request_schema

if TYPE_CHECKING:
    import pyarrow as pa

MS = timedelta(milliseconds=1)

A_MINUTE = 60
"""Seconds after which the process that made an empty file has its lock, or is dead."""

Watermark = dict[str, int | None]
"""Log file → the place up to which it was read; None: all of it, and it will not grow. As JSON has it."""


@dataclass
class Compacted:
    """What one call of `compact` did."""

    files: int = 0
    rows: int = 0
    damaged: int = 0
    """Lines that could not be read: torn by a kill or a full disk."""
    open: int = 0
    """Files that a process still writes to."""
    erased: int = 0
    """Rows that erasure orders removed from Parquet files."""

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
    near = settling(model) // MS
    spans = {log: log.times() for log in _logs(model)}
    # a line outside of the span may supersede one within it
    around = [log for log, (begin, end) in spans.items() if begin < high + near * 1000 and end >= low - near * 1000]
    superseded = _superseded({log: log.span() for log in around}, near)
    needed = None if columns is None else [*columns, "time", "id"]
    tables = []
    for log, (begin, end) in spans.items():
        for table in log.tables(columns=needed) if begin < high and end >= low else ():
            times = table["time"].cast("int64")
            inside = table.filter(pc.and_(pc.greater_equal(times, low), pc.less(times, high)))
            tables.append(_without(inside, superseded.get(log.name)))
    table = log_tables.concat(tables).sort_by([("time", "ascending"), ("id", "ascending")])
    return _typed(table, _types(model), columns)


def read_new(model: str, watermark: Watermark, now: datetime | None = None) -> tuple[Iterator[pa.Table], Watermark]:
    """What was logged since a watermark, each prediction once, whatever is compacted meanwhile; in bounded memory.

    Store the new watermark in one step with what was made of the rows: a reader that is killed before that begins
    again at the old one, and gets the same rows and those that came since. What is younger than `settling` is left for
    the next call. {} is the beginning.

    Returns:
        Tables as those of `read`, in no order, each with the columns that it has; and the watermark that holds once
        all of them were read.
    """
    near = settling(model) // MS
    settled = micros(_now(now)) // 1000 - near
    logs = _logs(model)
    unread = {log: log.span() for log in logs if watermark.get(log.name, 0) is not None}
    parts = {log: (watermark.get(log.name) or 0, log.end(settled)) for log in unread}
    reached: Watermark = {log.name: None for log in logs}
    for log, (begin, end) in parts.items():
        # it is needed until every line that may supersede one of its own was read as well
        is_done = log.is_compacted and unread[log][1] < settled - near
        reached[log.name] = None if is_done else max(begin, end)
    superseded = _superseded(unread, near)
    types = _types(model)

    def tables() -> Iterator[pa.Table]:
        for log, (begin, end) in parts.items():
            for table in log.tables(begin, end) if end > begin else ():
                if len(counted := _without(table, superseded.get(log.name))):
                    yield _typed(counted, types, None)

    return tables(), reached


def last_requests(model: str, n: int, release: str | None = None) -> list[Logged]:
    """The newest n requests with their answers, oldest first; of one release only where it is named.

    Reads from the newest files backwards.
    """
    newest: dict[str, Logged] = {}
    logs = [log for log in _logs(model) if release is None or log.name.partition("/")[2].startswith(f"{release}.")]
    for day in sorted({_day(log) for log in logs}, reverse=True):
        ends = [(log.latest(), log) for log in logs if _day(log) == day]
        for end, log in sorted(ends, key=lambda pair: -pair[0]):
            moments = sorted((logged.moment for logged in newest.values()), reverse=True)[:n]
            if len(moments) == n and end < moments[-1]:
                break
            for logged in log.newest(n):
                if logged.request not in newest or newest[logged.request].moment < logged.moment:
                    newest[logged.request] = logged
        if len(newest) >= n:
            break
    return sorted(newest.values(), key=lambda logged: (logged.moment, logged.request))[max(0, len(newest) - n) :]


def find(model: str, prediction_id: str) -> Logged | None:
    """The request of one prediction, with its row and its answer only; None where the log has it not (any more).

    An id holds when it was answered, so only files of that time are looked into: some milliseconds.
    """
    try:
        answered = log_tables.moment(prediction_id)
        days = {
            (datetime.fromtimestamp(answered / 1000, UTC) + timedelta(days=n)).date().isoformat() for n in (-1, 0, 1)
        }
    except (ValueError, OverflowError):  # no id of ours
        return None
    orders = erasures.read(model)
    for day in sorted(days):  # a process may have begun its file before midnight
        for path in (paths.incoming_predictions(model) / day).glob("*.jsonl"):
            if (lines := log_files.open_lines(path, orders)) and (logged := lines.find(prediction_id)):
                return logged
        for path in (paths.predictions(model) / day).glob("*.parquet"):
            if logged := log_files.ParquetLog(path, orders).find(prediction_id):
                return logged
    return None


def _superseded(spans: Mapping[LogFile, tuple[int, int]], near: int) -> dict[str, set[int]]:
    """The places of the lines whose request a later line answers, at most `near` ms later.

    A line was not answered only if its process was killed right then. So it is one of the last of its file (of the
    last two, if the process had just begun another), and the later line is in a file that was written to then or soon
    after.
    """
    import numpy as np

    logs = list(spans)
    begins, ends = np.array(list(spans.values()), dtype=np.int64).reshape(-1, 2).T
    places: dict[str, set[int]] = {}
    for log, (_, end) in spans.items():
        around = np.flatnonzero((begins <= end + near) & (ends >= end - near)).tolist()
        others = [logs[i] for i in around if logs[i] is not log]
        last = list(_lines(log, end - near, end)) if others else []
        latest = dict.fromkeys((request for request, _, _ in last), (0, ""))
        for other in others:
            for request, moment, _ in _lines(other, end - near, end + near):
                if request in latest:
                    latest[request] = max(latest[request], (moment, other.name))
        places[log.name] = {place for request, moment, place in last if (moment, log.name) < latest[request]}
    return places


def _lines(log: LogFile, since: int, until: int) -> Iterator[tuple[bytes, int, int]]:
    """Request, moment and place of what was answered from one moment to another."""
    for keys in log.keys(since, until):
        yield from zip(keys.requests.tolist(), keys.moments.tolist(), keys.places.tolist(), strict=True)


def _without(table: pa.Table, places: set[int] | None) -> pa.Table:
    if not places:
        return table
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.invert(pc.is_in(table[PLACE], pa.array(sorted(places), pa.int64()))))


def _typed(table: pa.Table, types: Mapping[str, Any], columns: Sequence[str] | None) -> pa.Table:
    """Without the place; a column that is all null has the type that it should have."""
    import pyarrow as pa

    names = columns if columns is not None else [name for name in table.column_names if name != PLACE]
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
    """Make Parquet of every file of lines that is closed. Killed anywhere, the next call ends in the same state.

    Raises:
        WorldError: the disk is full. The lines stay until there is a Parquet file of them.
    """
    done, now = Compacted(), _now(now)
    with files.lock(f"predictions-{model}"):
        files.sweep(paths.predictions(model))
        orders = erasures.read(model)
        if erasures.done(model) < len(orders):
            compacted = _files(paths.predictions(model), "*.parquet")
            done.erased = sum(log_files.ParquetLog(path, orders).erase() for path in compacted)
            erasures.set_done(model, len(orders))
        for path in sorted(paths.incoming_predictions(model).glob("*/*.jsonl")):
            with path.open("rb") as stream:
                if not _is_closed(stream.fileno(), now):
                    done.open += 1
                    continue
                rows, damaged = _compact(path, orders)
                path.unlink()
            done.files, done.rows, done.damaged = done.files + 1, done.rows + rows, done.damaged + damaged
        for day in _days(paths.incoming_predictions(model)):
            if day.name < now.date().isoformat() and not any(day.iterdir()):
                day.rmdir()
    return done


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
    with files.lock(f"predictions-{model}"):
        tables = (table for log in _logs(model) for table in log.tables(columns=erasures.NEEDED))
        count = sum(int(order.matches(table).sum()) for table in tables if len(table))
        if count:
            erasures.add(model, order, _now(now).isoformat(timespec="seconds"))
    compact(model, now)
    return count


def sweep(model: str, keep_days: int, most_bytes: int, now: datetime | None = None) -> list[str]:
    """Forget what is older than the last `keep_days` days, today included, and the oldest of what is too large.

    Lines are forgotten once they are compacted: call `compact` first.

    Returns:
        The days, and the Parquet files of other days, that were forgotten: `<day>` and `<day>/<file>`, oldest first.
    """
    first = (_now(now).date() - timedelta(days=keep_days - 1)).isoformat()
    with files.lock(f"predictions-{model}"):
        too_old = [day for day in _days(paths.predictions(model)) if day.name < first]
        for day in too_old:
            files.remove(day)
        too_large = _beyond(model, most_bytes)
        for path in too_large:
            path.unlink()
    return [str(path.relative_to(paths.predictions(model))) for path in (*too_old, *too_large)]


def _beyond(model: str, most_bytes: int) -> list[Path]:
    """The oldest Parquet files without which the log, its lines included, is no larger than it may be."""
    compacted = _files(paths.predictions(model), "*.parquet")
    lines = _files(paths.incoming_predictions(model), "*.jsonl")
    excess = sum(path.stat().st_size for path in (*compacted, *lines)) - most_bytes
    beyond: list[Path] = []
    for path in sorted(compacted, key=_age):
        if excess <= 0:
            break
        beyond.append(path)
        excess -= path.stat().st_size
    return beyond


def _age(compacted: Path) -> tuple[str, int, int]:
    """Orders Parquet files by when their lines were begun."""
    _, _, began, number, _ = compacted.stem.split(".")
    return compacted.parent.name, int(began), int(number)


def _compact(path: Path, orders: Sequence[Erasure]) -> tuple[int, int]:
    """One closed file: gives the rows, and how many lines were damaged."""
    log = log_files.open_lines(path, orders)
    if log is None:  # it never got a whole line
        return 0, int(path.stat().st_size > 0)
    try:
        return log.compact()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise WorldError(
                f"no space left on the disk while compacting {path}. Nothing is lost, its lines stay; free some space "
                f"(serving.log_days and .log_gb in params.yaml say how much of the log is kept), then run again"
            ) from error
        raise


def _is_closed(descriptor: int, now: datetime) -> bool:
    """Whether no process will write to a file of lines again."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    status = os.fstat(descriptor)
    return status.st_size > 0 or now.timestamp() - status.st_mtime > A_MINUTE


# ── files ─────────────────────────────────────────────────────────────────────────────────────────


def _logs(model: str) -> list[LogFile]:
    """All log files. Lines first: a file that is compacted meanwhile then appears as Parquet."""
    logs: dict[str, LogFile] = {}
    orders = erasures.read(model)
    for path in _files(paths.incoming_predictions(model), "*.jsonl"):
        if lines := log_files.open_lines(path, orders):
            logs[lines.name] = lines
    for path in _files(paths.predictions(model), "*.parquet"):
        if files.is_whole(path):
            compacted = log_files.ParquetLog(path, orders)
            logs.setdefault(compacted.name, compacted)  # as long as the lines are there, they are complete
        else:
            files.set_aside(path, "it does not begin and end as Parquet: its predictions are lost")
    return [logs[name] for name in sorted(logs)]


def _files(parent: Path, pattern: str) -> list[Path]:
    return [path for day in _days(parent) for path in day.glob(pattern) if not path.name.startswith(".")]


def _days(parent: Path) -> list[Path]:
    return sorted(day for day in parent.glob("????-??-??") if day.is_dir())


def _day(log: LogFile) -> str:
    return log.name.partition("/")[0]


def _now(now: datetime | None) -> datetime:
    return now or datetime.now(UTC)
