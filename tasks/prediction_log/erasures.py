"""Erasure orders: rows that a person had taken out of the prediction log, and out of all that is made of it.

    the journal                               an order a line, oldest first; row keys as hashes only
    var/predictions/<model>/erased.json       how many of these orders were carried out in every Parquet file

An order is written first, and holds from then on: every reader leaves its rows out, so a kill in between changes
nothing. `prediction_log.compact` removes them from Parquet files at once, and from lines when these are compacted, as
a process may still write to them. The monitor reads everything again where an order is new (monitoring/intake).

An order concerns what had been answered when it was given. Later requests may well have such a time or key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tasks.ground import files, paths
from tasks.journal import journal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

NEEDED = ("id", "time", "key", "row_key")
"""The columns of the log by which an order chooses."""


@dataclass(frozen=True)
class Erasure:
    """An order for the rows that meet all of its conditions."""

    answered: int
    """Answered up to this moment, in ms since 1970."""
    after: int | None = None
    """Asked later than this, in µs since 1970."""
    before: int | None = None
    """Asked earlier than this."""
    ids: tuple[str, ...] = ()
    """One of these predictions."""
    keys: tuple[int, ...] = ()
    """The row, or its request, has a key with one of these hashes (rows.row_hashes)."""

    def matches(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of the log these are."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from tasks.modelling import rows
        from tasks.prediction_log import log_tables

        chosen = log_tables.moments(table["id"]) <= self.answered
        times = table["time"].cast("int64").to_numpy()
        if self.after is not None:
            chosen &= times > self.after
        if self.before is not None:
            chosen &= times < self.before
        if self.ids:
            chosen &= np.asarray(pc.is_in(table["id"], pa.array(self.ids, pa.string())))
        if self.keys:
            has_key = np.zeros(len(table), dtype=bool)
            for name in ("key", "row_key"):
                hashes = rows.row_hashes(pc.fill_null(table[name], "").to_pandas())
                has_key |= np.isin(hashes, np.array(self.keys, dtype=np.uint64)) & np.asarray(pc.is_valid(table[name]))
            chosen &= has_key
        return np.asarray(chosen)


def hashes(keys: Sequence[str]) -> tuple[int, ...]:
    """Of keys, as an order keeps them."""
    import pandas as pd

    from tasks.modelling import rows

    return tuple(rows.row_hashes(pd.Series(list(keys), dtype=object)).tolist()) if keys else ()


def without(table: pa.Table, orders: Iterable[Erasure]) -> pa.Table:
    """The rows that no order concerns."""
    for order in orders:
        chosen = order.matches(table)
        table = table.filter(~chosen) if chosen.any() else table
    return table


def read(model: str) -> tuple[Erasure, ...]:
    """Every order, oldest first."""
    orders = (line.what for line in journal.lines(model, "erasure"))
    return tuple(
        Erasure(order["answered"], order["after"], order["before"], tuple(order["ids"]), tuple(order["keys"]))
        for order in orders
    )


def add(model: str, order: Erasure) -> None:
    """Write an order down; the caller holds the lock of the log."""
    journal.append(model, "erasure", asdict(order))


def done(model: str) -> int:
    """How many orders were carried out in every Parquet file."""
    path = paths.erased_files(model)
    return int(files.read_json(path)["orders"]) if path.exists() else 0


def set_done(model: str, orders: int) -> None:
    """Write down that so many are carried out."""
    files.write_json(paths.erased_files(model), {"orders": orders})
