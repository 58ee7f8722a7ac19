"""Partitions of a table: its rows as its files have them, in a file per month, day, hour, or so many rows."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.drafting import times
from tasks.drafting.source import Progress, TableSource
from tasks.drafting.survey import Survey
from tasks.ground.errors import Mistake
from tasks.tables import conversions

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 200_000
"""Of a partition, where a table is cut by rows."""

MOST = 500
"""Partitions that a table may be cut into."""


@dataclass
class Cut:
    """What was cut."""

    rows: dict[str, int] = field(default_factory=dict)
    """Partition → its rows."""
    labelled: dict[str, int] = field(default_factory=dict)
    """Partition → those of them that have a label."""
    without_time: int = 0
    """Rows that are in no partition."""
    keys: list[npt.NDArray[np.uint64]] = field(default_factory=list)

    @property
    def without_label(self) -> list[str]:
        """The partitions that wait for their labels."""
        return sorted(name for name, count in self.labelled.items() if not count)

    def repeated_keys(self) -> int:
        """Rows whose key another row has too."""
        every = np.concatenate(self.keys) if self.keys else np.zeros(0, dtype=np.uint64)
        return int(len(every) - len(np.unique(every)))


def cut(
    survey: Survey,
    by: str,
    form: times.TimeForm | None,
    key: Sequence[str],
    label: str | None,
    folder: Path,
    progress: Progress,
) -> Cut:
    """Write a table's partitions into a folder.

    Args:
        survey: of the table.
        by: a unit of time, `file` or `rows`.
        form: how the table says the time, for a unit of time.
        key: the columns that may name a row.
        label: the column that is predicted: a partition in which it is missing in every row is not written. None:
            rows need none.
        folder: where.
        progress: is told how far it is.

    Raises:
        Mistake: there would be too many partitions, or two files would be one.
        DataMissing: a file changed since it was surveyed.
    """
    source, done = survey.source, Cut()
    if by == "file":
        _refuse_one_name(source.paths)
    folder.mkdir(parents=True)
    writers: dict[str, Any] = {}
    place = 0
    try:
        for path, batch in source.batches(progress):
            if key:
                done.keys.append(_hashes(batch, key))
            for name, part in _parts(batch, _names(survey, by, form, path, place, batch), done):
                if name not in writers:
                    if len(writers) == MOST:
                        raise Mistake(f"--partition-by {by} gives more than {MOST} partitions: take a coarser one")
                    writers[name] = _writer(folder, name, part.schema, source)
                writers[name](part)
                done.rows[name] = done.rows.get(name, 0) + len(part)
                filled = len(part) - (part.column(label).null_count if label else 0)
                done.labelled[name] = done.labelled.get(name, 0) + filled
            place += len(batch)
    finally:
        for write in writers.values():
            write(None)
    for name in done.without_label:
        next(folder.glob(f"{name}.*")).unlink()
    return done


def _names(
    survey: Survey, by: str, form: times.TimeForm | None, path: Path, place: int, batch: pa.RecordBatch
) -> npt.NDArray[Any]:
    """The partition of each row."""
    if by == "file":
        return np.full(len(batch), _of_file(path))
    if by == "rows":
        return np.array([f"part-{number + 1:03d}" for number in (place + np.arange(len(batch))) // ROWS])
    assert form is not None
    column = survey.columns[form.column]
    values, _ = conversions.convert(
        batch.column(form.column), column.candidates[0], survey.source.nulls, survey.source.dialect
    )
    return times.names(form.parse(values.to_pandas()), by)  # type: ignore[arg-type]  # the units are what is left


def _of_file(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:100] or "part"


def _refuse_one_name(paths: Sequence[Path]) -> None:
    of: dict[str, Path] = {}
    for path in paths:
        if (other := of.setdefault(_of_file(path), path)) != path:
            raise Mistake(f"{other} and {path} would both be the partition {_of_file(path)}: rename one of them")


def _parts(batch: pa.RecordBatch, names: npt.NDArray[Any], done: Cut) -> Iterator[tuple[str, pa.RecordBatch]]:
    import pyarrow as pa

    several, codes = np.unique(names, return_inverse=True)
    for code, name in enumerate(several):
        if name == "NaT":
            done.without_time += int((codes == code).sum())
        else:
            yield str(name), batch if len(several) == 1 else batch.take(pa.array(np.flatnonzero(codes == code)))


def _hashes(batch: pa.RecordBatch, key: Sequence[str]) -> npt.NDArray[np.uint64]:
    frame = pd.DataFrame({name: batch.column(name).to_pandas().astype(str) for name in key})
    return np.asarray(pd.util.hash_pandas_object(frame, index=False), dtype=np.uint64)


Write = Callable[["pa.RecordBatch | None"], None]
"""Appends rows to a file; None closes it."""


def _writer(folder: Path, name: str, schema: pa.Schema, source: TableSource) -> Write:
    return (_parquet_writer if source.is_typed else _csv_writer)(folder, name, schema, source)


def _parquet_writer(folder: Path, name: str, schema: pa.Schema, source: TableSource) -> Write:  # noqa: ARG001
    from pyarrow import parquet

    writer = parquet.ParquetWriter(folder / f"{name}.parquet", schema.remove_metadata(), compression="zstd")

    def write(batch: pa.RecordBatch | None) -> None:
        if batch is None:
            writer.close()
        else:
            writer.write_batch(batch.replace_schema_metadata())

    return write


def _csv_writer(folder: Path, name: str, schema: pa.Schema, source: TableSource) -> Write:
    """In the dialect of the source, so that the next delivery in it is read by the same contract."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    dialect = source.dialect
    options = arrow_csv.WriteOptions(include_header=dialect.header, delimiter=dialect.delimiter, quoting_style="needed")
    sink = _Encoded((folder / f"{name}.csv").open("wb"), dialect.encoding)
    writer = arrow_csv.CSVWriter(pa.PythonFile(sink, mode="w"), schema, write_options=options)

    def write(batch: pa.RecordBatch | None) -> None:
        if batch is None:
            writer.close()
            sink.stream.close()
        else:
            writer.write_batch(batch)

    return write


class _Encoded:
    """A file that takes UTF-8 and holds another encoding."""

    def __init__(self, stream: Any, encoding: str) -> None:
        self.stream, self.closed = stream, False
        self._decode, self._encode = codecs.getincrementaldecoder("utf-8")(), codecs.getincrementalencoder(encoding)()

    def write(self, data: Any) -> int:
        self.stream.write(self._encode.encode(self._decode.decode(bytes(data))))
        return len(data)

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        self.closed = True
