"""Rows that a person had taken out of the prediction log, and out of all that is made of it.

    var/predictions/<model>/erasures.jsonl    an order a line, oldest first; row keys as hashes only
    var/predictions/<model>/erased.json       how many of these orders no Parquet file of the log holds a row of

An order is written first, and holds from then on: whoever reads the log reads it without these rows, so a kill in
between changes nothing. `predictions.compact` takes them out of the files: out of lines when they are compacted, as a
process may still write to them, out of Parquet files at once. The monitor reads everything again where there is a new
order (tasks/monitoring/intake/intake.py), so that sums, joined labels and weeks are of what is left.

An order is about what had been answered when it was given. What is asked later may well have such a time or key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, paths

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

NEEDED = ("id", "time", "key", "row_key")
"""The columns of the log that an order goes by."""


@dataclass(frozen=True)
class Erasure:
    """An order: it is about the rows of which everything holds that it names."""

    answered: int
    """Up to this moment, in ms since 1970."""
    after: int | None = None
    """Asked later than this, in µs since 1970."""
    before: int | None = None
    """Asked earlier than this."""
    ids: tuple[str, ...] = ()
    """One of these predictions."""
    keys: tuple[int, ...] = ()
    """The row, or its request, has one of these keys (rows.row_hashes)."""

    def matches(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of the log these are."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from tasks.modelling import rows
        from tasks.prediction_log import prediction_ids

        chosen = prediction_ids.moments(table["id"]) <= self.answered
        times = table["time"].cast("int64").to_numpy()
        if self.after is not None:
            chosen &= times > self.after
        if self.before is not None:
            chosen &= times < self.before
        if self.ids:
            chosen &= np.asarray(pc.is_in(table["id"], pa.array(self.ids, pa.string())))
        if self.keys:
            hashes = [rows.row_hashes(pc.fill_null(table[name], "").to_pandas()) for name in ("key", "row_key")]
            known = [np.asarray(pc.is_valid(table[name])) for name in ("key", "row_key")]
            wanted = np.array(self.keys, dtype=np.uint64)
            chosen &= np.any(
                [np.isin(of, wanted) & is_known for of, is_known in zip(hashes, known, strict=True)], axis=0
            )
        return np.asarray(chosen)


def hashes(keys: Sequence[str]) -> tuple[int, ...]:
    """Of keys, as an order keeps them."""
    import pandas as pd

    from tasks.modelling import rows

    return tuple(int(one) for one in rows.row_hashes(pd.Series(list(keys), dtype=object))) if keys else ()


def without(table: pa.Table, orders: Iterable[Erasure]) -> pa.Table:
    """The rows that no order is about."""
    for order in orders:
        chosen = order.matches(table)
        table = table.filter(~chosen) if chosen.any() else table
    return table


def read(model: str) -> tuple[Erasure, ...]:
    """Every order, oldest first."""
    return tuple(_order(line) for line in files.lines(_book(model)))


def add(model: str, order: Erasure, at: str) -> None:
    """Write an order down; the lock of the log is held."""
    files.append_line(_book(model), {"at": at, **asdict(order)})


def done(model: str) -> int:
    """How many orders no Parquet file holds a row of."""
    path = _note(model)
    return int(files.read_json(path)["orders"]) if path.exists() else 0


def are_done(model: str, orders: int) -> None:
    """So many are."""
    files.write_json(_note(model), {"orders": orders})


def _order(line: Mapping[str, Any]) -> Erasure:
    said = {name: line[name] for name in ("answered", "after", "before")}
    return Erasure(**said, ids=tuple(line["ids"]), keys=tuple(line["keys"]))


def _book(model: str) -> Path:
    return paths.erasure_orders(model)


def _note(model: str) -> Path:
    return paths.erased_files(model)
