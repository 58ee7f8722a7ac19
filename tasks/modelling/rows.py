"""The rows a model learns from, as `prepare` laid them down: one Parquet file per partition, and the split."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground import files, numbers


def read(build: Path, part: Literal["train", "holdout"], columns: list[str] | None = None) -> pd.DataFrame:
    """The training rows or the holdout rows in a build folder, oldest partition first; all columns, or only some."""
    return pd.concat(by_partition(build, part, columns).values(), ignore_index=True)


def by_partition(
    build: Path, part: Literal["train", "holdout"], columns: list[str] | None = None
) -> dict[str, pd.DataFrame]:
    """As `read`, partition by partition."""
    split = files.read_json(build / "split.json")
    if split["by"] == "time":
        return {name: pd.read_parquet(build / "rows" / f"{name}.parquet", columns=columns) for name in split[part]}
    sides = {}
    for name in split["partitions"]:
        wanted = None if columns is None else list(dict.fromkeys([*columns, "id"]))
        frame = pd.read_parquet(build / "rows" / f"{name}.parquet", columns=wanted)
        chosen = in_holdout(frame["id"], split["share"]) == (part == "holdout")
        sides[name] = frame.loc[chosen, slice(None) if columns is None else columns]
    return sides


def as_feature(values: pd.Series[Any], type_: str) -> pd.Series[Any]:
    """A column of a model's rows as it learns it, and is asked of it: a category as str, everything else as float64.

    Raises:
        ValueError, TypeError: it holds what is none.
    """
    if type_ == "category":
        return as_text(values)
    if pd.api.types.is_datetime64_any_dtype(values.dtype) or pd.api.types.is_timedelta64_dtype(values.dtype):
        raise TypeError(f"it is {values.dtype}")
    return values.astype("float64")


def as_text(values: pd.Series[Any]) -> pd.Series[Any]:
    """As str. A number has one text, whether it came as 49, 49.0 or Decimal("49"); missing stays missing."""
    if not pd.api.types.is_string_dtype(values.dtype) or values.dtype == object:
        values = values.astype(object).where(values.notna(), None).map(_text, na_action="ignore")
    return values.astype("str")


def _text(value: Any) -> str:
    return numbers.text(float(value)) if isinstance(value, float | Decimal) and value % 1 == 0 else str(value)


def row_hashes(ids: pd.Series[Any]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash per row id, the same in every process and on every machine."""
    return pd.util.hash_array(ids.to_numpy(dtype=object), categorize=False)


def content_hashes(frame: pd.DataFrame, features: list[str]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash per row of what is asked (features and time), the same on every machine: it outlives a row's id.

    Rows in which the same is asked have the same hash. The label is left out: a row is the same when it is corrected.
    """
    columns = {name: frame[name] for name in sorted(features)}
    columns = {name: values if values.dtype.kind == "f" else values.astype(object) for name, values in columns.items()}
    asked = pd.DataFrame({**columns, "time": frame["time"].astype("int64")})
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
