"""Columns of lists that are all of one length (embeddings, pixels) → a column a number: emb → emb_0, emb_1, …"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


class Uneven(ValueError):
    """A list of another length; says in which row."""


def is_of_numbers(type_: Any) -> bool:
    """Whether a column of this type holds lists of numbers."""
    import pyarrow as pa

    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    number = (pa.types.is_floating, pa.types.is_integer)
    return any(test(type_) for test in lists) and any(test(type_.value_type) for test in number)


def length(batches: Iterable[Any]) -> int | None:
    """How many numbers the lists of a column have, if it is the same everywhere."""
    import pyarrow.compute as pc

    counts: set[int] = set()
    for lists in batches:
        counts |= {count for count in pc.unique(pc.list_value_length(lists)).to_pylist() if count is not None}
    return counts.pop() if len(counts) == 1 and 0 not in counts else None


def names(column: str, count: int) -> list[str]:
    """What the numbers of a column of lists are called."""
    return [f"{column}_{i}" for i in range(count)]


def spread(table: Any, lengths: Mapping[str, int]) -> Any:
    """A table or a batch whose columns of lists are a column a number, in their place; missing where a list is.

    Raises:
        Uneven: a list has another length, or lacks a number.
    """
    if not lengths:
        return table
    columns: dict[str, Any] = {}
    for name, column in zip(table.schema.names, table.columns, strict=True):
        columns |= _numbers(column, name, lengths[name]) if name in lengths else {name: column}
    return type(table).from_arrays(list(columns.values()), names=list(columns))


def _numbers(column: Any, name: str, count: int) -> dict[str, pa.Array]:
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    counts = pc.list_value_length(lists)
    other = pc.fill_null(pc.not_equal(counts, count), fill_value=False)
    if (row := pc.index(other, value=True).as_py()) >= 0:
        raise Uneven(f"column {name}, row {row + 1}: {counts[row].as_py()} numbers, and {count} are meant")
    return {each: pc.list_element(lists, i) for i, each in enumerate(names(name, count))}
