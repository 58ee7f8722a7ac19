"""Consistency of the rows of all partitions together: an id names one row, labels are of one kind, time goes on.

The names of partitions say nothing of time: they sort as a person wrote them (`month-10` before `month-2`, `feb` before
`jan`). The times of their rows do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground.errors import DataMissing, ModelCodeError
from tasks.runtime import answer_columns

if TYPE_CHECKING:
    import pandas as pd

NEEDED_BY_SPLIT = (
    "the rows have no column time, and params.yaml splits by it. Give them their time, or, if they have none, say "
    "split: {by: random, holdout: 0.2}"
)

Rows = Mapping[str, Path]
"""Partition → the file of its rows."""

OVERLAP = 0.25
"""Such a share of a holdout partition may lie before the middle of the newest training partition. More: not newer."""


def refuse_ids_twice(rows: Rows, name: str) -> None:
    """Refuse an id that stands in two partitions: its row would be learned from twice, or learned and held out.

    Raises:
        ModelCodeError: names the id, both partitions with the row, and how many more there are.
    """
    import numpy as np
    import pandas as pd

    from tasks.modelling.rows import row_hashes

    ids = {partition: _column(path, "id") for partition, path in rows.items()}
    hashes = np.concatenate([row_hashes(column) for column in ids.values()])
    if len(np.unique(hashes)) == len(hashes):
        return
    every = pd.concat(ids, names=["partition", "row"]).reset_index()
    repeated = every[every["id"].duplicated(keep=False)]
    if repeated.empty:  # two ids of one hash
        return
    first = repeated[repeated["id"] == repeated["id"].iloc[0]]
    places = " and ".join(f"partition {at.partition}, row {at.row + 1}" for at in first.itertuples())
    others = repeated["id"].nunique() - 1
    more = f", and so do {others:,} more ids of {', '.join(sorted(repeated['partition'].unique()))}" if others else ""
    raise ModelCodeError(
        f"models/{name}/rows: id {first['id'].iloc[0]!r} stands twice: in {places}{more}. It must name one row. A "
        f"corrected partition is delivered under its own name; rows that differ need ids that differ"
    )


def refuse_labels_of_two_kinds(rows: Rows, name: str) -> None:
    """Refuse classes that are numbers in one partition and texts or truth values in another: they are other classes.

    Raises:
        ModelCodeError: names a partition of each kind.
    """
    from pyarrow import parquet, types

    kinds: dict[str, dict[str, str]] = {}
    for partition, path in rows.items():
        schema = parquet.read_schema(path)
        for column in answer_columns.labels(schema.names):
            type_ = schema.field(column).type
            is_number = types.is_integer(type_) or types.is_floating(type_)
            kind = "a number" if is_number else "a truth value" if types.is_boolean(type_) else "text"
            if column == "label" or _column(path, column).notna().any():  # of several, one may not have come yet
                kinds.setdefault(column, {}).setdefault(kind, partition)
    for column, of_label in kinds.items():
        if len(of_label) > 1:
            named = ", ".join(f"{kind} in partition {partition}" for kind, partition in of_label.items())
            label = answer_columns.split(column)[0] or column
            raise ModelCodeError(f"models/{name}/rows: {label} is {named}. Let it be one of these throughout")


def refuse_lacking_times(rows: Rows, name: str, split_by: str) -> None:
    """Refuse rows without a time where a split needs it, or where other partitions have it: they have no order.

    Raises:
        ModelCodeError: names a partition of each kind.
    """
    undated = {partition: bool(_column(path, "time").isna().all()) for partition, path in rows.items()}
    if split_by == "time" and any(undated.values()):
        raise ModelCodeError(f"models/{name}/rows: {NEEDED_BY_SPLIT}")
    if len(set(undated.values())) > 1:
        dated, without = (next(each for each in undated if undated[each] == kind) for kind in (False, True))
        raise ModelCodeError(
            f"models/{name}/rows: the rows of partition {without} have no time, those of {dated} have one. Let all of "
            f"them have it, or none"
        )


def refuse_some_weights(rows: Rows, name: str) -> None:
    """Refuse weights that only some partitions have: what the rows of the others count is not known.

    Raises:
        ModelCodeError: names a partition with weights and one without.
    """
    from pyarrow import parquet

    has = {partition: "weight" in parquet.read_schema(path).names for partition, path in rows.items()}
    if any(has.values()) and not all(has.values()):
        named = f"partition {min(k for k, v in has.items() if v)} and not in {min(k for k, v in has.items() if not v)}"
        raise ModelCodeError(
            f"models/{name}/rows: the column weight is in {named}. Let all have it (1 counts once), or none"
        )


def by_time(rows: Rows) -> list[str]:
    """The partitions, oldest first: by the middle of their rows' times, which one mistyped date does not move.

    Rows without a time: by the names of their partitions.
    """
    times = {partition: _column(path, "time") for partition, path in rows.items()}
    if all(column.isna().all() for column in times.values()):
        return sorted(rows, key=_by_name)
    middle = {partition: column.quantile(0.5, "lower") for partition, column in times.items()}
    return sorted(rows, key=lambda partition: (middle[partition], partition))


def _by_name(partition: str) -> Any:
    from tasks.tables import partitions

    period = partitions.period(partition)
    return (period.family, period.begin, partition) if period else ("", (), partition)


def refuse_overlap(rows: Rows, train: list[str], holdout: list[str], name: str) -> None:
    """Refuse a holdout that is not newer than the training rows, as where a partition is a shop and not a month.

    Raises:
        DataMissing: names both partitions, and how much of the holdout is older.
    """
    newest = _column(rows[train[-1]], "time")
    middle = newest.quantile(0.5, "lower")
    for partition in holdout:
        times = _column(rows[partition], "time")
        older = float((times < middle).mean())
        if older > OVERLAP:
            raise DataMissing(
                f"{name}: partition {partition} ({_span(times)}) would be held out, but {older:.0%} of its rows are "
                f"older than the middle of {train[-1]} ({_span(newest)}), which would be trained on. A split by time "
                f"needs partitions that follow each other in time: deliver them so, or say split.by: random"
            )


def _span(times: pd.Series[Any]) -> str:
    return f"{times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}"


def _column(path: Path, column: str) -> pd.Series[Any]:
    import pandas as pd

    return pd.read_parquet(path, columns=[column])[column]
