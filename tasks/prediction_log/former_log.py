"""Parquet files by day, to which builds before the Delta table compacted their lines: taken into it, once.

    var/predictions/<model>/<day>/<candidate>.<process>.<began>.<n>.<digest>.parquet

They hold superseded lines too. A file is the same file of lines, with the same places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.ground import files, paths
from tasks.prediction_log import erasures, log_lines, log_table
from tasks.prediction_log.erasures import Erasure
from tasks.prediction_log.log_lines import LineKeys
from tasks.prediction_log.log_tables import PLACE, moments

if TYPE_CHECKING:
    import pyarrow as pa


def parts(model: str) -> list[Path]:
    """The files, oldest day first."""
    return sorted(path for path in paths.predictions(model).glob("????-??-??/*.parquet") if path.name[0] != ".")


def migrate(table: log_table.LogTable, former: Sequence[Path], orders: Sequence[Erasure], near: int) -> int:
    """Append their rows to the table, and remove them; gives how many rows. Killed anywhere, the next call goes on."""
    whole = []
    for path in former:
        if files.is_whole(path):
            whole.append(path)
        else:
            files.set_aside(path, "it does not begin and end as Parquet: its predictions are lost")
    superseded = log_lines.superseded(_keys(whole, near), near)
    count = 0
    for path in whole:
        if table.place(name := _name(path)) == 0:
            rows = erasures.without(_rows(path, superseded.get(name, set())), orders)
            table.append(rows, {name: _size(path)})
            count += len(rows)
        path.unlink()
    for day in {path.parent for path in former}:
        if not any(day.iterdir()):
            day.rmdir()
    return count


def _rows(path: Path, superseded: set[int]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    rows = parquet.ParquetFile(path).read()
    rows = rows.filter(pc.invert(pc.is_in(rows[PLACE], pa.array(sorted(superseded), pa.int64()))))
    return rows.append_column(log_table.DAY, pa.array([path.parent.name] * len(rows), pa.string()))


def _keys(whole: Sequence[Path], near: int) -> Mapping[str, LineKeys]:
    """Of each file the keys of its beginning, its end, and what was answered near the end of any."""
    import numpy as np

    spans = {path: moments(_read(path, ("id",))["id"]) for path in whole}
    spans = {path: of[[of.argmin(), of.argmax()]] for path, of in spans.items() if len(of)}
    ends = np.sort([of[1] for of in spans.values()])

    def near_an_end(of: np.ndarray) -> np.ndarray:
        return np.searchsorted(ends, of - near) < np.searchsorted(ends, of + near, side="right")

    keys = {}
    for path in spans:
        rows = _read(path, ("id", "request", PLACE))
        requests = np.array(rows["request"].cast("binary").to_pylist(), dtype=np.bytes_)
        own = LineKeys(requests, moments(rows["id"]), rows[PLACE].to_numpy())
        keys[_name(path)] = own.only(near_an_end(own.moments))
    return keys


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    from pyarrow import parquet

    return parquet.ParquetFile(path).read(list(columns))


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _size(path: Path) -> int:
    """How many bytes its lines had."""
    from pyarrow import parquet

    return int(parquet.read_metadata(path).metadata[b"size"])
