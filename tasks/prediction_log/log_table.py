"""The compacted prediction log: a Delta table per model, on disk or in a bucket, that any engine can read.

    var/predictions/<model>/table    or <serving.log_table>/<model>

A row per answered prediction, once, with the columns of the log (log_tables.py) and `answered_day`, the partition: the
day, UTC, in which its file of lines was begun.

Exactly once: a commit of rows carries, as application transactions, for each file of lines the place up to which it was
taken (app id: its name; version: the place). Delta compares no versions: it refuses who commits for an app id that has
been committed for since the handle was opened. So rows are appended through the handle by which places were compared.

Names of a Delta table's columns differ by more than case. One that does not is stored as `<name>~<n>`, with its own
name beside it (`column`, as metadata of the field).
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import addresses, files, params, paths, settings, storage
from tasks.ground.errors import WorldError
from tasks.ground.words import one_line
from tasks.prediction_log import log_tables
from tasks.prediction_log.log_tables import moment

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable

DAY = "answered_day"

ROW_GROUP = 50_000
"""Rows of a data file that are read at once."""

MANY = 16
"""The data files of a day that are so many are merged."""

KEPT_HOURS = 7 * 24
"""For so long merged data files stay, for readers that know these only."""

PROPERTIES = {
    "delta.dataSkippingStatsColumns": "id,time",
    "delta.checkpointInterval": "20",
    "delta.logRetentionDuration": f"interval {KEPT_HOURS // 24} days",
}
"""Of the table: a commit every quarter of an hour makes a hundred a day."""

ORIGIN = "evergreen"
"""The key in a commit's information: whether its rows are new (`append`), or were in the table before."""

Added = tuple[str, str]
"""The path of a data file that was added, and its day."""


class Conflict(Exception):
    """Another writer has changed the table since it was opened: open it again."""


class VersionsGone(Exception):
    """What was added since a version is not known any more: begin with all that there is."""


@dataclass(frozen=True)
class DataFile:
    """A Parquet file of the table."""

    path: str
    day: str
    size: int
    ids: tuple[str, str]
    """The least and the greatest."""
    times: tuple[datetime, datetime]

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last moment, in ms."""
        return moment(self.ids[0]), moment(self.ids[1])

    @property
    def name(self) -> str:
        """`<day>/<file>`."""
        return f"{self.day}/{self.path.rpartition('/')[2]}"


def location(model: str) -> str:
    """The path or URL of a model's table."""
    configured = params.load().models.get(model)  # the log of a model outlives its section of params.yaml
    base = configured.serving.log_table if configured else None
    return f"{base.rstrip('/')}/{model}" if base else str(paths.prediction_table(model))


def is_local(where: str) -> bool:
    """Whether the table is on this machine."""
    return "://" not in where


def local_version(where: str) -> int:
    """The version of a table on this machine; −1 without one. Imports nothing."""
    versions = [path.stem for path in Path(where, "_delta_log").glob("*.json")]
    return max((int(version) for version in versions if version.isdigit()), default=-1)


def snapshot(model: str) -> tuple[LogTable, list[DataFile]] | None:
    """The table as it is now and its data files, to be read; opened once for as long as nothing is committed."""
    where = location(model)
    if not is_local(where):
        table = LogTable.open(model)
        return (table, table.files()) if table else None
    return _snapshot(model, where, local_version(where))


@lru_cache(maxsize=4)
def _snapshot(
    model: str,
    where: str,  # noqa: ARG001 - the same name in another project is another table
    version: int,  # noqa: ARG001 - what a commit changes
) -> tuple[LogTable, list[DataFile]] | None:
    table = LogTable.open(model)
    return (table, table.files()) if table else None


class LogTable:
    """A snapshot of the table, through which it is changed."""

    def __init__(self, table: DeltaTable) -> None:
        self.table = table
        self.root = None if "://" in table.table_uri.removeprefix("file://") else Path(_path_of(table.table_uri))

    @classmethod
    def open(cls, model: str) -> LogTable | None:
        """The table as it is now; None where nothing was compacted yet.

        Raises:
            WorldError: it cannot be opened.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        where = location(model)
        if is_local(where) and local_version(where) < 0:
            return None
        try:
            return cls(DeltaTable(where, storage_options=_options()))
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise WorldError(
                f"the prediction log's table {addresses.masked(where)} cannot be opened: {one_line(error)}. After a "
                f"power cut the next run of the monitor mends what it can; otherwise check address and credentials"
            ) from error

    @classmethod
    def create(cls, model: str) -> LogTable:
        """The table as it is now, made where there is none."""
        import pyarrow as pa
        from deltalake import DeltaTable

        where = location(model)
        torn = _mend(Path(where)) if is_local(where) else False
        try:
            existing = cls.open(model)
        except WorldError:
            if not torn:
                raise
            existing = None
        if torn and existing is None:
            files.set_aside(Path(where), "too much of its log is torn: its rows are in its Parquet files, if anywhere")
        if existing is not None:
            return existing
        columns = [field for field in log_tables.schema_of([]) if field.name != log_tables.PLACE]
        with _translated(where):
            made = DeltaTable.create(
                where,
                pa.schema([*columns, pa.field(DAY, pa.string())]),
                mode="ignore",
                partition_by=[DAY],
                configuration=PROPERTIES,
                storage_options=_options(),
            )
        return cls(made)

    @property
    def version(self) -> int:
        """Of this snapshot."""
        return int(self.table.version())

    @property
    def identity(self) -> str:
        """Another one where the table was made anew."""
        return str(self.table.metadata().id)

    def place(self, lines: str) -> int:
        """Up to which place a file of lines was taken; 0 if it was not."""
        return self.table.transaction_version(lines) or 0

    # ── reading ───────────────────────────────────────────────────────────────────────────────────

    def schema(self) -> pa.Schema:
        """The columns by their own names, without DAY."""
        import pyarrow as pa

        own = pa.schema([_named(field) for field in self._fields() if field.name != DAY])
        return pa.schema([field for field in log_tables.schema_of([own]) if field.name != log_tables.PLACE])

    def files(self) -> list[DataFile]:
        """Every data file, oldest first."""
        import pyarrow as pa

        added = pa.table(self.table.get_add_actions(flatten=True)).to_pylist()
        data_files = [
            DataFile(
                add["path"],
                add[f"partition.{DAY}"],
                add["size_bytes"],
                (add["min.id"], add["max.id"]),
                (add["min.time"], add["max.time"] + timedelta(milliseconds=1)),  # Delta's statistics are cut to ms
            )
            for add in added
        ]
        return sorted(data_files, key=lambda file: (file.day, file.ids))

    def added_since(self, version: int) -> list[str]:
        """The paths of the data files whose rows are new since a version.

        Raises:
            VersionsGone: some of them, or the commits, are not there any more.
        """
        added = [add for number in range(version + 1, self.version + 1) for add in self._appended(number)]
        current = {file.path: file.day for file in self.files()}
        kept_days = {*current.values()}
        # what was merged stays for some days; what was swept is in no day that is kept
        gone = [path for path, day in added if path not in current and not self._exists(path)]
        if any(day in kept_days for path, day in added if path in gone):
            raise VersionsGone
        return [path for path, _ in added if path not in gone]

    def tables(
        self, data_files: Sequence[str], columns: Sequence[str] | None = None, ids: tuple[str, str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of data files, in blocks, as they were appended; from row groups that may have such ids only.

        A file may be removed meanwhile, as its day became too old: then it has no rows.
        """
        import pyarrow as pa
        from pyarrow import parquet

        schema = self.schema()
        wanted = schema if columns is None else pa.schema([field for field in schema if field.name in columns])
        own_names = {field.name: _named(field).name for field in self._fields()}
        for path in data_files:
            try:
                opened = parquet.ParquetFile(self.root / path if self.root else self._open(path))
            except FileNotFoundError:
                continue
            with opened:
                stored = [name for name in opened.schema_arrow.names if own_names.get(name) in wanted.names]
                groups = _groups(opened.metadata, ids)
                for batch in opened.iter_batches(10_000, groups, stored) if groups else ():
                    table = pa.Table.from_batches([batch])
                    yield log_tables.fit(table.rename_columns([own_names[name] for name in stored]), wanted)

    def _fields(self) -> list[pa.Field]:
        import pyarrow as pa

        return list(pa.schema(self.table.schema().to_arrow()))

    def _appended(self, number: int) -> list[Added]:
        """The data files that a commit added with new rows."""
        try:
            with self._open(f"_delta_log/{number:020}.json") as stream:
                actions = [json.loads(line) for line in stream.read().splitlines() if line]
        except FileNotFoundError:
            raise VersionsGone from None
        if not any(action.get("commitInfo", {}).get(ORIGIN) == "append" for action in actions):
            return []
        adds = [action["add"] for action in actions if "add" in action]
        return [(add["path"], add["partitionValues"][DAY]) for add in adds]

    # ── writing ───────────────────────────────────────────────────────────────────────────────────

    def append(self, rows: pa.Table, places: Mapping[str, int]) -> None:
        """Commit rows of the log, which have DAY, with the places that they reach; on the disk when it returns.

        Raises:
            Conflict: somebody has committed for one of these files, or changed the columns.
            WorldError: the disk is full. Nothing was committed.
        """
        from deltalake import Transaction, write_deltalake

        if widened := self._columns_to_be_texts(rows):
            self._make_texts(widened)
        stored, before = self._stored(rows), self.version
        with _translated(str(self.table.table_uri)):
            write_deltalake(
                self.table,
                stored,
                mode="append",
                schema_mode="merge",
                partition_by=[DAY],
                writer_properties=_writer_properties(),
                commit_properties=_commit("append", [Transaction(name, place) for name, place in places.items()]),
            )
        self._flush(before)

    def remove(self, data_files: Sequence[DataFile]) -> None:
        """Remove data files, also from the disk."""
        from deltalake.transaction import RemoveAction

        now = int(time.time() * 1000)
        self._change([RemoveAction(file.path, True, now, file.size, {DAY: file.day}) for file in data_files])
        self._delete(data_files)

    def rewrite(self, file: DataFile, keep: Callable[[pa.Table], pa.Table]) -> int:
        """Replace a data file by one with the rows that `keep` leaves of it; gives how many rows went."""
        from deltalake.transaction import AddAction, RemoveAction

        counts = [(len(table), len(keep(table))) for table in self.tables([file.path])]
        before, after = (sum(part) for part in zip(*counts, strict=True))
        if before == after:
            return 0
        now, path = int(time.time() * 1000), f"{file.path.rpartition('/')[0]}/part-{uuid.uuid4()}.parquet"
        removed = RemoveAction(file.path, True, now, file.size, {DAY: file.day})
        if not after:
            self._change([removed])
        else:
            size = self._write(path, (self._stored(keep(table), with_day=False) for table in self.tables([file.path])))
            stats = _statistics(after, file)
            self._change([removed, AddAction(path, size, {DAY: file.day}, now, True, stats)])
        self._delete([file])
        return int(before - after)

    def tidy(self) -> None:
        """Merge the data files of days that have many: a compaction every quarter of an hour makes a hundred a day."""
        by_day: dict[str, int] = {}
        for file in self.files():
            by_day[file.day] = by_day.get(file.day, 0) + 1
        for day in sorted(day for day, count in by_day.items() if count >= MANY):
            with _translated(str(self.table.table_uri)):
                self.table.optimize.compact(
                    partition_filters=[(DAY, "=", day)],
                    max_concurrent_tasks=1,
                    writer_properties=_writer_properties(),
                    commit_properties=_commit("merged"),
                )
        if any(count >= MANY for count in by_day.values()):
            self.table.vacuum(KEPT_HOURS, dry_run=False, commit_properties=_commit("vacuum"))

    def set_torn_aside(self) -> None:
        """Remove data files of which a power cut has left no Parquet file: their predictions are lost."""
        if self.root is None:
            return
        whole = {file.path: self._exists(file.path) and files.is_whole(self.root / file.path) for file in self.files()}
        torn = [file for file in self.files() if not whole[file.path]]
        for file in torn:
            files.set_aside(self.root / file.path, "it does not begin and end as Parquet: its predictions are lost")
        if torn:
            self.remove(torn)

    def _columns_to_be_texts(self, rows: pa.Table) -> set[str]:
        """Columns of the table, of another type than texts, that hold texts from now on: of both, text is made."""
        import pyarrow as pa

        kinds = {field.name: field.type for field in self.schema()}
        return {
            field.name
            for field in rows.schema
            if (kind := kinds.get(field.name)) is not None
            and not pa.types.is_null(field.type)
            and not pa.types.is_string(kind)
            and _kind(field.type) != _kind(kind)
        }

    def _make_texts(self, names: set[str]) -> None:
        """Write the whole table anew with columns of texts: Delta cannot change a column's type otherwise."""
        import pyarrow as pa
        from deltalake import write_deltalake

        fields = [field.with_type(pa.string()) if field.name in names else field for field in self.schema()]
        schema = pa.schema([*fields, pa.field(DAY, pa.string())])

        def batches() -> Iterator[pa.RecordBatch]:
            for file in self.files():
                for table in self.tables([file.path]):
                    with_day = table.append_column(DAY, pa.array([file.day] * len(table), pa.string()))
                    yield from self._renamed(log_tables.fit(with_day, schema)).to_batches()

        stored = self._renamed(schema.empty_table()).schema
        with _translated(str(self.table.table_uri)):
            write_deltalake(
                self.table,
                pa.RecordBatchReader.from_batches(stored, batches()),
                mode="overwrite",
                schema_mode="overwrite",
                partition_by=[DAY],
                writer_properties=_writer_properties(),
                commit_properties=_commit("retyped"),
            )

    def _stored(self, rows: pa.Table, with_day: bool = True) -> pa.Table:
        """Rows as the table stores them: its names and types, no column of nulls only."""
        import pyarrow as pa

        kinds = {field.name: field.type for field in self.schema()}
        fields = [field.with_type(kinds.get(field.name, field.type)) for field in rows.schema]
        fields = [f for f in fields if f.name != log_tables.PLACE and not pa.types.is_null(f.type)]
        fields = [field for field in fields if with_day or field.name != DAY]
        return self._renamed(log_tables.fit(rows, pa.schema(fields)))

    def _renamed(self, rows: pa.Table) -> pa.Table:
        """Names that differ by more than case."""
        import pyarrow as pa

        stored = {_named(field).name: field.name for field in self._fields()}
        taken = {name.lower() for name in stored.values()}
        fields = []
        for field in rows.schema:
            name, number = stored.get(field.name, field.name), 1
            while field.name not in stored and name.lower() in taken:
                name, number = f"{field.name}~{number}", number + 1
            taken.add(name.lower())
            marks = {**(field.metadata or {}), **({} if name == field.name else {b"column": field.name.encode()})}
            fields.append(pa.field(name, field.type, metadata=marks or None))
        return pa.Table.from_arrays(rows.columns, schema=pa.schema(fields))

    def _change(self, actions: list[Any]) -> None:
        """Commit removals and replacements: no row of them is new."""
        if not actions:
            return
        before = self.version
        with _translated(str(self.table.table_uri)):
            self.table.create_write_transaction(
                actions, "append", self.table.schema(), partition_by=[DAY], commit_properties=_commit("changed")
            )
            self.table.update_incremental()
        self._flush(before)

    def _write(self, path: str, tables: Iterator[pa.Table]) -> int:
        """Write a data file; gives its bytes."""
        from pyarrow import parquet

        first = next(tables)

        def write(target: Path) -> None:
            with parquet.ParquetWriter(target, first.schema, compression="zstd") as writer:
                writer.write_table(first)
                for table in tables:
                    if len(table):
                        writer.write_table(log_tables.fit(table, first.schema))

        if self.root:
            with files.replacing(self.root / path) as beside:
                write(beside)
            return (self.root / path).stat().st_size
        self._place(path).write(write, settings.VAR)
        return self._place(path).size()

    # ── files ─────────────────────────────────────────────────────────────────────────────────────

    def _open(self, path: str) -> Any:
        """A file of the table; a path on this machine.

        Raises:
            FileNotFoundError: it is not there (any more).
        """
        if self.root:
            return (self.root / path).open("rb")
        place = self._place(path)
        if not place.exists():
            raise FileNotFoundError(path)
        with place.translated_errors():
            return place.fs.open(place.path, "rb")

    def _place(self, path: str) -> storage.Location:
        return storage.Location.of(self.table.table_uri, label="the prediction log's table ") / path

    def _exists(self, path: str) -> bool:
        return (self.root / path).exists() if self.root else self._place(path).exists()

    def _delete(self, data_files: Sequence[DataFile]) -> None:
        for file in data_files:
            if self.root:
                files.remove(self.root / file.path)
            else:
                self._place(file.path).remove()

    def _flush(self, before: int) -> None:
        """Have the disk hold what was committed since a version: its lines are removed next."""
        if self.root is None:
            return
        log = self.root / "_delta_log"
        for number in range(before + 1, self.version + 1):
            commit = log / f"{number:020}.json"
            added = [json.loads(line).get("add") for line in commit.read_bytes().splitlines() if line]
            data = [self.root / add["path"] for add in added if add]
            for path in {*data, *(path.parent for path in data), commit}:
                files.flush(path)
        files.flush(log)


def _named(field: pa.Field) -> pa.Field:
    """A field of the table by its own name."""
    marks = dict(field.metadata or {})
    name = marks.pop(b"column", field.name.encode()).decode()
    return field.with_name(name).with_metadata(marks or None)


def _kind(kind: pa.DataType) -> str:
    import pyarrow as pa

    return "list" if pa.types.is_list(kind) or pa.types.is_large_list(kind) else str(kind)


def _groups(metadata: Any, ids: tuple[str, str] | None) -> list[int]:
    """The row groups that may hold ids of a span; all of them without one."""
    groups = list(range(metadata.num_row_groups))
    if ids is None:
        return groups
    at = next(i for i in range(metadata.num_columns) if metadata.row_group(0).column(i).path_in_schema == "id")
    spans = {group: metadata.row_group(group).column(at).statistics for group in groups}
    return [group for group, of in spans.items() if of is None or (of.min <= ids[1] and of.max >= ids[0])]


def _statistics(rows: int, file: DataFile) -> str:
    """Delta's statistics of a file with some rows of another: the bounds of all hold for these."""
    times = [time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03}Z" for time in file.times]
    low, high = ({"id": id_, "time": time} for id_, time in zip(file.ids, times, strict=True))
    return json.dumps({"numRecords": rows, "minValues": low, "maxValues": high, "nullCount": {"id": 0, "time": 0}})


def _writer_properties() -> Any:
    from deltalake import ColumnProperties, WriterProperties

    # no two rows have the same id: a dictionary of them takes time and room
    ids = {"id": ColumnProperties(dictionary_enabled=False)}
    return WriterProperties(max_row_group_size=ROW_GROUP, compression="ZSTD", column_properties=ids)


def _commit(origin: str, transactions: Sequence[Any] = ()) -> CommitProperties:
    from deltalake import CommitProperties

    return CommitProperties(custom_metadata={ORIGIN: origin}, app_transactions=list(transactions) or None)


def _options() -> dict[str, str]:
    """Of the object store; the rest it reads from AWS_… itself."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return {"allow_http": "true"} if endpoint.startswith("http://") else {}


def _path_of(uri: str) -> str:
    from urllib.parse import unquote, urlsplit

    return unquote(urlsplit(uri).path) if uri.startswith("file://") else uri


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """What Delta's client raises, as errors that say what to do."""
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise Conflict(str(error)) from error
    except (DeltaError, OSError) as error:
        if "No space left" in str(error):
            raise WorldError(
                f"no space left on the disk while compacting {where}. Nothing is lost, its lines stay; free some space "
                f"(serving.log_days and .log_gb in params.yaml say how much of the log is kept), then run again"
            ) from error
        raise


def _mend(root: Path) -> bool:
    """Set aside what a power cut has torn of the table's log, if anything; the lines of its last commits are there."""
    root.mkdir(parents=True, exist_ok=True)
    log = root / "_delta_log"
    torn = [path for path in log.glob("*.checkpoint*.parquet") if not files.is_whole(path)]
    for path in torn:
        files.set_aside(path, "it is no checkpoint")
    for path in sorted(log.glob("*.json")):
        if not _is_commit(path):
            torn.append(path)
            files.set_aside(path, "it holds no commit")
    if torn:
        files.remove(log / "_last_checkpoint")
    return bool(torn)


def _is_commit(path: Path) -> bool:
    content = path.read_bytes()
    try:
        return bool(content) and all(isinstance(json.loads(line), dict) for line in content.splitlines())
    except ValueError:
        return False
