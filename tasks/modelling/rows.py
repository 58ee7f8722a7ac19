"""The rows a model learns from, as `prepare` laid them down: one Parquet file per partition, and the split."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground import files, numbers
from tasks.runtime import answer_columns, feature_types

if TYPE_CHECKING:
    from tasks.ground.params import Feature


HASHED = 100_000
"""So many rows are hashed at once: their values are Python objects meanwhile."""


def read(build: Path, part: Literal["train", "holdout"], columns: list[str] | None = None) -> pd.DataFrame:
    """The training rows or the holdout rows in a build folder, oldest partition first; all columns, or only some."""
    return pd.concat(by_partition(build, part, columns).values(), ignore_index=True)


def by_partition(
    build: Path, part: Literal["train", "holdout"], columns: list[str] | None = None
) -> dict[str, pd.DataFrame]:
    """As `read`, partition by partition. Of several labels a row may lack some: it is given when all are known."""
    split = files.read_json(build / "split.json")
    if split["by"] == "time":
        paths = {name: build / "rows" / f"{name}.parquet" for name in split[part]}
        if part == "train" and "until" in split:
            return {name: _until(path, split["until"], columns) for name, path in paths.items()}
        return {
            name: _whole(path, columns).loc[:, slice(None) if columns is None else columns]
            for name, path in paths.items()
        }
    sides = {}
    for name in split["partitions"]:
        wanted = None if columns is None else list(dict.fromkeys([*columns, "id"]))
        frame = _whole(build / "rows" / f"{name}.parquet", wanted)
        chosen = in_holdout(frame["id"], split["share"]) == (part == "holdout")
        sides[name] = frame.loc[chosen, slice(None) if columns is None else columns]
    return sides


def _until(path: Path, last: str, columns: list[str] | None) -> pd.DataFrame:
    """The rows of a partition that were known at some moment."""
    wanted = None if columns is None else list(dict.fromkeys([*columns, "time"]))
    frame = _whole(path, wanted)
    return frame.loc[frame["time"] <= pd.Timestamp(last), slice(None) if columns is None else columns]


def spread(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many of the rows, spread evenly over them, the first and the last among them."""
    return frame.iloc[np.unique(np.linspace(0, len(frame) - 1, min(most, len(frame))).astype(int))]


_WITHOUT_MISSING = {"Int64": "int64", "boolean": "bool"}


def _whole(path: Path, columns: list[str] | None) -> pd.DataFrame:
    """The rows of a partition in which no label of several is missing; these labels are among the columns."""
    from pyarrow import parquet

    several = [name for name in answer_columns.labels(parquet.read_schema(path).names) if name != "label"]
    wanted = None if columns is None else list(dict.fromkeys([*columns, *several]))
    return whole(pd.read_parquet(path, columns=wanted))


def whole(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows in which no label of several is missing."""
    several = [name for name in answer_columns.labels(rows.columns) if name != "label"]
    if not several:
        return rows
    known = rows[rows[several].notna().all(axis=1)]
    return known.astype({n: kind for n in several if (kind := _WITHOUT_MISSING.get(str(known[n].dtype)))})


def as_feature(values: pd.Series[Any], type_: str, timezone: str = "UTC") -> pd.Series[Any]:
    """A column of a model's rows as it learns it, and is asked of it (tasks/runtime/feature_types.py).

    Args:
        values: of any type. A vector has columns of its own: `as_matrix`.
        type_: of params.yaml.
        timezone: a time that names its zone is converted to this one.

    Raises:
        ValueError, TypeError: it holds what is none.
    """
    if type_ in ("category", "text"):
        _refuse_kinds(values, _NO_TEXT if type_ == "category" else (*_NO_TEXT, *_NUMBERS))
        return as_text(values)
    if type_ == "datetime":
        return as_local_time(values, timezone)
    if type_ == "boolean":
        _refuse_kinds(values, (*_NO_TEXT, str))
        return _as_truth(values)
    if pd.api.types.is_datetime64_any_dtype(values.dtype) or pd.api.types.is_timedelta64_dtype(values.dtype):
        raise TypeError(f"it is {values.dtype}")
    return values.astype("float64")


_NO_TEXT = (dt.date, dt.time, dt.timedelta, np.datetime64, np.timedelta64, bytes, list, tuple, dict, set, np.ndarray)
"""What has a text, as everything in Python has, that nobody means: `[1, 2]`. (A datetime is a date.)"""

_NUMBERS = (int, float, Decimal, np.number, np.bool_)


def _refuse_kinds(values: pd.Series[Any], kinds: tuple[type, ...]) -> None:
    are_texts = pd.api.types.is_string_dtype(values.dtype) and values.dtype != object
    if (are_texts and str not in kinds) or (values.dtype.kind in "iufb" and float not in kinds):
        return
    if values.dtype.kind in "mM" or isinstance(values.dtype, pd.DatetimeTZDtype):
        raise TypeError(f"it is {values.dtype}")
    for row, value in enumerate(values.astype(object).where(values.notna(), None)):
        if isinstance(value, kinds):
            shown = "" if isinstance(value, str) else f", {str(value)[:40]}"
            raise TypeError(f"it is a {type(value).__name__} in row {row + 1}{shown}")


def _as_truth(values: pd.Series[Any]) -> pd.Series[Any]:
    """1 and 0; from truth values, or from these numbers."""
    numbers = values.astype("float64")
    if (strange := numbers.notna() & ~numbers.isin([0.0, 1.0])).any():
        row = int(np.argmax(strange.to_numpy()))
        raise ValueError(f"it is {numbers.iloc[row]:g} in row {row + 1}; true and false are 1 and 0")
    return numbers


def as_local_time(values: pd.Series[Any], timezone: str) -> pd.Series[Any]:
    """Times as datetime64[us] without a zone: the clock of `timezone`."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        raise TypeError("it is a number, of which nobody knows the unit; use pd.to_datetime(…, unit=…)")
    if values.dtype == object and values.notna().any():
        _refuse_kinds(values, (str, bytes, list, dict, *_NUMBERS))
        values = pd.to_datetime(values)
    elif pd.api.types.is_string_dtype(values.dtype) and values.notna().any():
        raise TypeError("it is text; use pd.to_datetime(…), which is told how it is written")
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_convert(timezone).dt.tz_localize(None)
    return values.astype("datetime64[us]")


def as_matrix(rows: pd.DataFrame, name: str, length: int) -> npt.NDArray[np.float64] | None:
    """The vectors of a feature as a matrix, a missing one as NaN; None where the rows do not have it.

    They come as a column of lists or arrays, or as the columns `<name>_0`, `<name>_1`, ….

    Raises:
        ValueError, TypeError: a row has something else, or another length.
    """
    if name in rows.columns:
        return _of_lists(rows[name], length)
    columns = feature_types.vector_columns(name, length)
    if set(columns) - {*rows.columns}:
        return None
    return np.asarray(rows[columns].to_numpy(dtype=np.float64, na_value=np.nan))


def as_features(rows: pd.DataFrame, features: Mapping[str, Feature]) -> dict[str, pd.Series[Any]]:
    """The columns of the features that the rows have, as `as_feature` and `as_matrix` make them.

    Raises:
        ValueError, TypeError: a feature holds what is none.
    """
    columns: dict[str, pd.Series[Any]] = {}
    for name, feature in features.items():
        if feature.type == "vector":
            names, matrix = (
                feature_types.vector_columns(name, feature.length or 0),
                as_matrix(rows, name, feature.length or 0),
            )
            columns |= {} if matrix is None else {str(n): c for n, c in pd.DataFrame(matrix, rows.index, names).items()}
        elif name in rows:
            columns[name] = as_feature(rows[name], feature.type, feature.timezone or "UTC")
    return columns


def _of_lists(values: pd.Series[Any], length: int) -> npt.NDArray[np.float64]:
    matrix = np.full((len(values), length), np.nan)
    for row, value in enumerate(values):
        if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
            continue
        if not isinstance(value, list | tuple | np.ndarray):
            raise TypeError(f"it is a {type(value).__name__} in row {row + 1}, no list of {length} numbers")
        if np.shape(value) != (length,):
            raise ValueError(f"it has the shape {np.shape(value)} in row {row + 1}; its length is {length}")
        try:
            matrix[row] = np.asarray(value, dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise TypeError(f"it has no numbers in row {row + 1}: {error}") from None
        if np.isnan(matrix[row]).any():
            raise ValueError(f"its number {int(np.argmax(np.isnan(matrix[row])))} is missing in row {row + 1}")
    return matrix


def as_text(values: pd.Series[Any]) -> pd.Series[Any]:
    """As str. A number has one text, whether it came as 49, 49.0 or Decimal("49"); missing stays missing."""
    if not pd.api.types.is_string_dtype(values.dtype) or values.dtype == object:
        values = values.astype(object).where(values.notna(), None).map(_text, na_action="ignore")
    return values.astype("str")


def _text(value: Any) -> str:
    return numbers.text(float(value)) if isinstance(value, float | Decimal) and value % 1 == 0 else str(value)


def row_hashes(ids: pd.Series[Any]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash per row id, the same in every process and on every machine."""
    parts = (ids.iloc[at : at + HASHED].to_numpy(dtype=object) for at in range(0, len(ids), HASHED))
    hashes = [pd.util.hash_array(part, categorize=False) for part in parts]
    return np.concatenate([np.empty(0, dtype=np.uint64), *hashes])


def content_hashes(frame: pd.DataFrame, features: list[str]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash per row of what is asked (features and time), the same on every machine: it outlives a row's id.

    Rows in which the same is asked have the same hash. The label is left out: a row is the same when it is corrected.
    """
    asked = frame[[*sorted(features), "time"]]
    hashes = [_content_hashes(asked.iloc[at : at + HASHED]) for at in range(0, len(asked), HASHED)]
    return np.concatenate([np.empty(0, dtype=np.uint64), *hashes])


def _content_hashes(asked: pd.DataFrame) -> npt.NDArray[np.uint64]:
    columns = {str(name): asked[name] for name in asked if name != "time"}
    columns = {name: values if values.dtype.kind == "f" else values.astype(object) for name, values in columns.items()}
    asked = pd.DataFrame({**columns, "time": asked["time"].astype("int64")})
    return np.asarray(pd.util.hash_pandas_object(asked, index=False, categorize=True), dtype=np.uint64)


def in_holdout(ids: pd.Series[Any], share: float) -> npt.NDArray[np.bool_]:
    """Which rows a random split puts into the holdout: by the row's id alone, so that a row never changes sides."""
    return row_hashes(ids) < np.uint64(share * 2.0**64)


def arrived(build: Path) -> dict[str, dict[str, Any]]:
    """The partitions of a model's rows: of each the sha256 of its file, how many `rows`, `from` and `until` when.

    Both are None where rows have no time.
    """
    partitions = {}
    for path in sorted((build / "rows").glob("*.parquet")):
        times = pd.read_parquet(path, columns=["time"])["time"]
        span = {"from": isoformat(times.min()), "until": isoformat(times.max())}
        partitions[path.stem] = {"sha256": files.sha256(path), "rows": len(times), **span}
    return partitions


def isoformat(time: pd.Timestamp) -> str | None:
    """A time as JSON has it; None where there is none."""
    return None if pd.isna(time) else str(time.isoformat())


def without(build: Path, features: list[str]) -> dict[str, list[str]]:
    """The features that are missing in every row of some partitions, with these: they began late, or ended."""
    from pyarrow import parquet

    lacking: dict[str, list[str]] = {}
    for path in sorted((build / "rows").glob("*.parquet")):
        metadata = parquet.read_metadata(path)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        for place, name in enumerate(metadata.schema.names):
            pairs = zip([group.column(place).statistics for group in groups], groups, strict=True)
            if name in features and all(s is not None and s.null_count == g.num_rows for s, g in pairs):
                lacking.setdefault(name, []).append(path.stem)
    return lacking
