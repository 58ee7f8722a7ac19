"""The prediction log, read: what was asked, what was answered, by which release.

What serves writes one line of JSON per answered request, before it answers (tasks/runtime/replica.py):

    var/predictions/<model>/incoming/<day, UTC>/<candidate>.<process>.<began>.<n>.jsonl
    {"request", "time", "ms", "model", "version", "release", "key", "ids": […], "keys", "rows": [{…}],
     "predictions": [{…}]}

`compact` makes a Parquet file, a row per prediction, of each of these files that nobody writes to any more:

    var/predictions/<model>/<day>/<candidate>.<process>.<began>.<n>.<digest of the first line>.parquet

Before and after, it is the same log file (tasks/prediction_log/log_files.py), and each row keeps its place in it.

What the writer promises: a line holds no line break, and `request` and `time` come first; a file is new (O_EXCL), held
by a shared flock while it is open, and not written to once its process began another one, nor when its day has ended.

A process that was killed leaves two things. Its last line may be torn: that request was not answered, the line is
counted and left out. And a request that was logged but not answered is asked again and stands twice: the later line is
the one that was answered, the earlier is left out. The two are less than `settling` apart.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, params, paths
from tasks.ground.errors import Mistake, WorldError
from tasks.prediction_log import erasures, log_files
from tasks.prediction_log.erasures import Erasure
from tasks.prediction_log.log_files import PLACE, LogFile, Logged, micros

if TYPE_CHECKING:
    import pyarrow as pa

MS = timedelta(milliseconds=1)

A_MINUTE = 60
"""Seconds after which a write that began before midnight has ended."""

Watermark = dict[str, int | None]
"""Log file → the place up to which it was read; None: all of it, and it will not grow. As JSON has it."""


@dataclass(frozen=True)
class Compacted:
    """What one call of `compact` did."""

    files: int = 0
    rows: int = 0
    damaged: int = 0
    """Lines that could not be read: torn by a kill or a full disk."""
    open: int = 0
    """Files that somebody still writes to."""
    erased: int = 0
    """Rows that were taken out of Parquet files, as they were to be forgotten."""

    def __str__(self) -> str:
        torn = f", {self.damaged} torn lines left out" if self.damaged else ""
        erased = f"; {self.erased:,} rows were to be forgotten, and are" if self.erased else ""
        return f"{self.files} files compacted, {self.rows:,} rows{torn}; {self.open} are still written to{erased}"


def folder(model: str) -> Path:
    """Where the log of a model is."""
    return paths.predictions(model)


def incoming(model: str) -> Path:
    """Where its lines arrive, in a folder per day."""
    return folder(model) / "incoming"


def settling(model: str) -> timedelta:
    """What is older than this is not asked again: three times what a request may take (`serving.timeout_s`)."""
    said = params.load().models.get(model)  # a model that is gone has a log all the same
    return 3 * timedelta(seconds=said.serving.timeout_s if said else params.Serving().timeout_s)


def ahead() -> timedelta:
    """So far may the `time` of a row be ahead of its answer: as answering.AHEAD, which imports scikit-learn, has it."""
    return timedelta(seconds=float(os.environ.get("EVERGREEN_MAX_AHEAD_S") or 300))


# ── reading ───────────────────────────────────────────────────────────────────────────────────────


def read(
    model: str, since: datetime | None = None, until: datetime | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """Every prediction of a span of time, once, in the order of time and id; `.to_pandas()` makes a DataFrame of it.

    Args:
        model: whose.
        since: from this moment on (a time with its zone); None means from the beginning.
        until: before this moment.
        columns: only these, in this order; one that nobody logged is null.

    Returns:
        A row per prediction. id (of the prediction), request, time (when it was asked, or the client says so; µs, UTC),
        ms, version, release (the candidate), key (the request's) and row_key (what the client calls the row); the
        features (category: text; integer and number: float64), where one with the name of another column is called
        `feature_<name>`; prediction, probability, p_<class>, low, high and unseen as far as there are any.
    """
    low = micros(since) if since else -(2**62)
    high = micros(until) if until else 2**62
    near = settling(model) // MS
    logs = {log: log.times() for log in _logs(model)}
    asked = {log for log, (begin, end) in logs.items() if begin < high and end >= low}
    around = {log for log, (begin, end) in logs.items() if begin < high + near * 1000 and end >= low - near * 1000}
    dropped = _answered_later({log: log.span() for log in logs if log in around}, near)
    tables = [
        _within(_counted(table, dropped.get(log.name)), low, high)
        for log in logs
        if log in asked
        for table in log.tables(columns=_needed(columns))
    ]
    table = log_files.joined(tables).sort_by([("time", "ascending"), ("id", "ascending")])
    return _shown(table, _types(model), columns)


def read_new(model: str, watermark: Watermark, now: datetime | None = None) -> tuple[Iterator[pa.Table], Watermark]:
    """What was logged since a watermark, each prediction once, whatever is compacted meanwhile; in bounded memory.

    Store the new watermark in one step with what was made of the rows: who is killed before that begins again at the
    old one, and gets the same rows and those that came since. What is younger than `settling` is left for the next
    call. {} is the beginning.

    Returns:
        Tables as those of `read`, in no order, each with the columns that it has; and the watermark that holds once
        all of them were read.
    """
    near = settling(model) // MS
    settled = micros(_now(now)) // 1000 - near
    everything = _logs(model)
    unread = {log: log.span() for log in everything if watermark.get(log.name, 0) is not None}
    parts = {log: (watermark.get(log.name) or 0, log.end(settled)) for log in unread}
    reached: Watermark = {log.name: None for log in everything}
    for log, (begin, end) in parts.items():
        # not before all that it could hold the later line of was read as well
        is_done = log.is_compacted and unread[log][1] < settled - near
        reached[log.name] = None if is_done else max(begin, end)
    dropped = _answered_later(unread, near)
    types = _types(model)

    def tables() -> Iterator[pa.Table]:
        for log, (begin, end) in parts.items():
            for table in log.tables(begin, end) if end > begin else ():
                if len(counted := _counted(table, dropped.get(log.name))):
                    yield _shown(counted, types, None)

    return tables(), reached


def last_requests(model: str, n: int, release: str | None = None) -> list[Logged]:
    """The newest n requests with what was answered, oldest first; of one release only where it is named.

    Reads from the newest files backwards.
    """
    found: dict[str, Logged] = {}
    logs = [log for log in _logs(model) if release is None or log.name.partition("/")[2].startswith(f"{release}.")]
    for day in sorted({_day(log) for log in logs}, reverse=True):
        ends = [(log.latest(), log) for log in logs if _day(log) == day]
        for end, log in sorted(ends, key=lambda pair: -pair[0]):
            newest = sorted((one.moment for one in found.values()), reverse=True)[:n]
            if len(newest) == n and end < newest[-1]:
                break
            for one in log.newest(n):
                if one.request not in found or found[one.request].moment < one.moment:
                    found[one.request] = one
        if len(found) >= n:
            break
    return sorted(found.values(), key=lambda one: (one.moment, one.request))[max(0, len(found) - n) :]


def _counted(table: pa.Table, places: set[int] | None) -> pa.Table:
    """The rows that count."""
    if not places:
        return table
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.invert(pc.is_in(table[PLACE], pa.array(sorted(places), pa.int64()))))


def _within(table: pa.Table, low: int, high: int) -> pa.Table:
    import pyarrow.compute as pc

    times = table["time"].cast("int64")
    return table.filter(pc.and_(pc.greater_equal(times, low), pc.less(times, high)))


def _needed(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else [*columns, "time", "id"]


def _shown(table: pa.Table, types: Mapping[str, Any], columns: Sequence[str] | None) -> pa.Table:
    """Without the place; a feature of which nothing but null was logged has the type that params.yaml says."""
    import pyarrow as pa

    wanted = columns if columns is not None else [name for name in table.column_names if name != PLACE]
    fields = [table.schema.field(name) if name in table.column_names else pa.field(name, pa.null()) for name in wanted]
    typed = [f.with_type(_type_of(f.name, types)) if pa.types.is_null(f.type) else f for f in fields]
    return log_files.fit(table, pa.schema(typed))


def _types(model: str) -> dict[str, Any]:
    """The types of what may be all null: features, as params.yaml has them now, and parts of an answer."""
    import pyarrow as pa

    said = params.load().models.get(model)
    kinds = {name: feature.type for name, feature in said.features.items()} if said else {}
    features = {
        log_files.column_of(name): pa.string() if kind == "category" else pa.float64() for name, kind in kinds.items()
    }
    numbers = dict.fromkeys(("probability", "low", "high"), pa.float64())
    return {**features, **numbers, "unseen": pa.list_(pa.string())}


def _type_of(column: str, types: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    return types.get(column, pa.float64() if column.startswith("p_") else pa.string())


# ── a request that stands twice ───────────────────────────────────────────────────────────────────


def _answered_later(spans: Mapping[LogFile, tuple[int, int]], near: int) -> dict[str, set[int]]:
    """The lines whose request a later line answers, at most `near` ms later.

    A line was not answered only if its process was killed right then, so it is one of the last of its file (of the
    last two, if it had just begun another), and the later line is in a file that was written to then or soon after.
    """
    import numpy as np

    logs = list(spans)
    begins = np.array([begin for begin, _ in spans.values()], dtype=np.int64)
    ends = np.array([end for _, end in spans.values()], dtype=np.int64)
    dropped: dict[str, set[int]] = {}
    for log, (_, end) in spans.items():
        around = np.flatnonzero((begins <= end + near) & (ends >= end - near)).tolist()
        others = [logs[i] for i in around if logs[i] is not log]
        last = {request for keys in log.keys(end - near, end) for request in keys.requests.tolist()} if others else ()
        for other in others:
            later: dict[bytes, tuple[int, str]] = {}
            for keys in other.keys(end - near, end + near):
                for i, request in enumerate(keys.requests.tolist()):
                    if request in last:
                        later[request] = (int(keys.moments[i]), other.name)
            for keys in log.keys(end - near, end) if later else ():
                for i, request in enumerate(keys.requests.tolist()):
                    if request in later and (int(keys.moments[i]), log.name) < later[request]:
                        dropped.setdefault(log.name, set()).add(int(keys.places[i]))
    return dropped


# ── keeping ───────────────────────────────────────────────────────────────────────────────────────


def compact(model: str, now: datetime | None = None) -> Compacted:
    """Make Parquet of every file of lines that is closed. Killed anywhere, the next call ends in the same state.

    Raises:
        WorldError: the disk is full. The lines stay until there is a Parquet file of them.
    """
    done = Compacted()
    with files.lock(f"predictions-{model}"):
        files.sweep(folder(model))
        orders = erasures.read(model)
        if erasures.done(model) < len(orders):
            erased = sum(log_files.ParquetLog(path, orders).erase() for path in _files(folder(model), "*.parquet"))
            erasures.are_done(model, len(orders))
            done = Compacted(erased=erased)
        newest = _newest_of_each_process(model)
        for path in sorted(incoming(model).glob("*/*.jsonl")):
            with path.open("rb") as stream:
                if not _is_closed(path, stream.fileno(), newest, _now(now)):
                    done = replace(done, open=done.open + 1)
                    continue
                rows, damaged = _compact(path, orders)
                path.unlink()
            done = replace(done, files=done.files + 1, rows=done.rows + rows, damaged=done.damaged + damaged)
        for day in _days(incoming(model)):
            if day.name < _now(now).date().isoformat() and not any(day.iterdir()):
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
    """Take rows out of the log, and out of all that is made of it (erasures.py); those of which all holds.

    Args:
        model: whose.
        after: asked later than this, as the client said; a time with its zone.
        before: asked earlier than this.
        ids: one of these predictions.
        keys: with one of these keys, of the row or of its request.
        now: what is answered later is not meant; for tests.

    Returns:
        How many rows these were; 0 where there was none, or none any more.

    Raises:
        Mistake: nothing was given to go by.
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
    """Forget what is older than the last `keep_days` days, of which today is one, and the oldest of what is too large.

    Lines are forgotten once they are compacted: call `compact` first.

    Returns:
        The days, and the Parquet files of other days, that were forgotten: `<day>` and `<day>/<file>`, oldest first.
    """
    first = (_now(now).date() - timedelta(days=keep_days - 1)).isoformat()
    with files.lock(f"predictions-{model}"):
        gone = [day for day in _days(folder(model)) if day.name < first]
        for day in gone:
            files.remove(day)
        too_large = _beyond(model, most_bytes)
        for path in too_large:
            path.unlink()
    return [str(path.relative_to(folder(model))) for path in (*gone, *too_large)]


def _beyond(model: str, most_bytes: int) -> list[Path]:
    """The oldest Parquet files without which the log, its lines included, is no larger than it may be."""
    compacted = _files(folder(model), "*.parquet")
    sizes = {path: path.stat().st_size for path in compacted}
    excess = sum(sizes.values()) + sum(path.stat().st_size for path in _files(incoming(model), "*.jsonl")) - most_bytes
    gone: list[Path] = []
    for path in sorted(compacted, key=_age):
        if excess <= 0:
            break
        gone.append(path)
        excess -= sizes[path]
    return gone


def _age(compacted: Path) -> tuple[str, int, int]:
    """Orders Parquet files by when their lines were begun."""
    _, _, began, number, _ = compacted.stem.split(".")
    return compacted.parent.name, int(began), int(number)


def _compact(path: Path, orders: Sequence[Erasure]) -> tuple[int, int]:
    """One closed file: gives the rows, and how many lines were damaged."""
    log = log_files.lines(path, orders)
    if log is None:  # no line was ever ended
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


def _is_closed(path: Path, descriptor: int, newest: Mapping[str, _Began], now: datetime) -> bool:
    """Whether nobody will write to a file of lines again."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the writer holds it shared, and lets go by dying
    except BlockingIOError:
        return False
    changed = os.fstat(descriptor).st_mtime
    process, began = _process(path)
    if (path.parent.name, began) < newest[process]:
        return True
    is_of_today = path.parent.name >= now.date().isoformat()
    if not is_of_today and now.timestamp() - changed > A_MINUTE:
        return True
    return _has_ended(int(process.rpartition(".")[2]), changed)


def _has_ended(pid: int, changed: float) -> bool:
    """Whether the process that wrote a file is gone. Another one may have its number, but that began later."""
    import psutil

    try:
        began: float = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return True
    return began > changed + 1  # the kernel counts in ticks since the start of the machine


_Began = tuple[str, tuple[int, ...]]


def _newest_of_each_process(model: str) -> dict[str, _Began]:
    """`<candidate>.<process>` → of the file that it began last: the day, when, and its number."""
    newest: dict[str, _Began] = {}
    for path in incoming(model).glob("*/*.jsonl"):
        process, began = _process(path)
        newest[process] = max((path.parent.name, began), newest.get(process, ("", ())))
    return newest


def _process(path: Path) -> tuple[str, tuple[int, ...]]:
    """Of the name of a file of lines: `<candidate>.<process>`; and what orders the files of one process."""
    candidate, process, *began = path.stem.split(".")
    return f"{candidate}.{process}", tuple(map(int, began))


# ── where they lie ────────────────────────────────────────────────────────────────────────────────


def _logs(model: str) -> list[LogFile]:
    """All log files. Lines first: what is compacted meanwhile is then found as Parquet."""
    found: dict[str, LogFile] = {}
    orders = erasures.read(model)
    for path in _files(incoming(model), "*.jsonl"):
        if lines := log_files.lines(path, orders):
            found[lines.name] = lines
    for path in _files(folder(model), "*.parquet"):
        if not files.is_whole(path):
            files.set_aside(path, "it does not begin and end as Parquet: its predictions are lost")
            continue
        rows = log_files.ParquetLog(path, orders)
        found.setdefault(rows.name, rows)  # as long as the lines are there, they are all
    return [found[name] for name in sorted(found)]


def _files(parent: Path, pattern: str) -> list[Path]:
    return [path for day in _days(parent) for path in day.glob(pattern) if not path.name.startswith(".")]


def _days(parent: Path) -> list[Path]:
    return sorted(day for day in parent.glob("????-??-??") if day.is_dir())


def _day(log: LogFile) -> str:
    return log.name.partition("/")[0]


def _now(now: datetime | None) -> datetime:
    return now or datetime.now(UTC)
