"""Survey of a table: type, gaps, range and values of each column, over all rows; and a sample of rows.

One pass, a few rows at a time, so that memory does not grow with the table.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.drafting.source import Progress, TableSource
from tasks.ground.errors import Mistake
from tasks.tables import conversions

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SAMPLE_BYTES = 48_000_000
"""About so much of the files is kept as a sample."""

MOST_VALUES = 1000
"""Different values of a column that are counted; of more it is known that they are more."""

BECOMES = {"Int64": ("float64", "str"), "datetime64[us]": ("str",)}
"""What a column may be whose values so far are of a type, and whose next one is not; of all others, a text."""

OF_TEXT = ("Int64", "boolean", "float64", "datetime64[us]", "datetime64[us, UTC]", "str")
"""What a column of texts may be, the narrowest first."""
TIMES_OR_TEXT = ("datetime64[us]", "datetime64[us, UTC]", "str")
"""What a column of texts may be where numbers are numbers."""


@dataclass
class ColumnFacts:
    """What all rows say of one column."""

    name: str
    candidates: list[str]
    """Its type is the first; the others are tried when a value does not fit."""
    rows: int = 0
    missing: int = 0
    low: Any = None
    high: Any = None
    counts: Counter[Any] | None = field(default_factory=Counter)
    """How often each value stands there; None: there are more than MOST_VALUES."""
    longest: int = 0
    is_kept_as_text: bool = False
    """Whether a person wants it by its words, though it would be no free text."""

    @property
    def type(self) -> str:
        """As a contract declares it."""
        strict = {"Int64": "int64", "boolean": "bool"}
        type_ = self.candidates[0]
        return strict.get(type_, type_) if not self.missing else type_

    @property
    def kind(self) -> str:
        """integer, number, truth, time or text."""
        kinds = {"Int64": "integer", "float64": "number", "boolean": "truth", "str": "text"}
        return kinds.get(self.candidates[0], "time")

    @property
    def share_missing(self) -> float:
        """Of all rows."""
        return self.missing / self.rows if self.rows else 1.0

    @property
    def is_constant(self) -> bool:
        """Whether every row holds the same, or nothing."""
        return self.missing == self.rows or (self.missing == 0 and self.counts is not None and len(self.counts) == 1)

    def add(self, batch: pa.Array, source: TableSource) -> None:
        """Take in some of its values."""
        import pyarrow as pa
        import pyarrow.compute as pc

        values = self._converted(batch, source)
        self.rows += len(values)
        self.missing += values.null_count
        if pa.types.is_string(values.type):
            self.longest = max(self.longest, pc.max(pc.utf8_length(values)).as_py() or 0)
        elif not pa.types.is_boolean(values.type):
            extremes = pc.min_max(values)
            bounds = [bound.as_py() for bound in (extremes["min"], extremes["max"])]
            self.low = min((b for b in (self.low, bounds[0]) if b is not None), default=None)
            self.high = max((b for b in (self.high, bounds[1]) if b is not None), default=None)
        if self.counts is not None:
            self._count(values)

    def _converted(self, batch: pa.Array, source: TableSource) -> pa.Array:
        import pyarrow as pa

        while True:
            values, refused = conversions.convert(batch, self.candidates[0], source.nulls, source.dialect)
            if refused is None or len(self.candidates) == 1:
                return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
            if self.rows > self.missing or values.null_count < len(values):
                self._refuse_name(batch.filter(refused))
            was = self.candidates.pop(0)
            if self.rows > self.missing:  # what was seen so far must fit too
                self.candidates = [each for each in self.candidates if each in BECOMES.get(was, ("str",))]
            if self.candidates == ["str"]:  # what was counted were numbers, and texts are meant
                self.low = self.high = None
                self.counts = Counter({str(value): n for value, n in (self.counts or {}).items()}) or self.counts

    def _refuse_name(self, refused: pa.Array) -> None:
        """Where files were put one behind the other, the line of names stands there again: all else fits."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_string(refused.type) and pc.all(pc.equal(refused, self.name)).as_py():
            raise Mistake(
                f"column {self.name!r} holds its own name among its values: the line of column names stands there "
                f"more than once. Remove it, or give the files one by one"
            )

    def _count(self, values: pa.Array) -> None:
        import pyarrow.compute as pc

        assert self.counts is not None
        for each in pc.value_counts(values.drop_null()).to_pylist() if values.null_count < len(values) else []:
            self.counts[each["values"]] += each["counts"]
        if len(self.counts) > MOST_VALUES:
            self.counts = None


@dataclass(frozen=True)
class Survey:
    """What is known of a table."""

    source: TableSource
    columns: dict[str, ColumnFacts]
    rows: int
    sample: pd.DataFrame
    """Some rows with their types, from everywhere in the table, in order; and `__file__`, the place of their file."""


def survey(source: TableSource, progress: Progress) -> Survey:
    """Read all of a table once.

    Raises:
        Mistake: a column is of a type that add-model does not know.
        DataMissing: a file changed meanwhile.
    """
    import numpy as np
    import pyarrow as pa

    columns = {name: ColumnFacts(name, list(types)) for name, types in _candidates(source).items()}
    share = min(1.0, SAMPLE_BYTES / max(1, sum(path.stat().st_size for path in source.paths)))
    rng, kept, rows = np.random.default_rng(0), list[Any](), 0
    for path, batch in source.batches(progress):
        rows += len(batch)
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            columns[name].add(values, source)
        chosen = np.flatnonzero(rng.random(len(batch)) < share)
        files = pa.array(np.full(len(chosen), source.paths.index(path)))
        kept.append(batch.take(pa.array(chosen)).append_column("__file__", files))
    if rows < 2:
        raise Mistake(f"{source.paths[0]} has {rows} row{'s'[: rows != 1]}: nothing can be learned from it")
    return Survey(source, columns, rows, _typed(pa.Table.from_batches(kept), columns, source))


def _candidates(source: TableSource) -> dict[str, tuple[str, ...]]:
    if not source.is_typed:
        kinds = {**dict.fromkeys(source.fractions, OF_TEXT[2:]), **dict.fromkeys(source.codes, ("str",))}
        return {name: kinds.get(name, OF_TEXT) for name in source.columns}
    nullable = {"int64": ("Int64",), "bool": ("boolean",), "str": TIMES_OR_TEXT}
    natural = {name: conversions.NATURAL.get(kind, "str") for name, kind in source.kinds.items()}
    return {name: nullable.get(type_, (type_,)) for name, type_ in natural.items()}


def _typed(table: Any, columns: dict[str, ColumnFacts], source: TableSource) -> pd.DataFrame:
    """The sample as a contract's reader would give it."""
    import pandas as pd

    frame = {}
    for name, column in columns.items():
        values, _ = conversions.convert(table.column(name), column.candidates[0], source.nulls, source.dialect)
        frame[name] = values.to_pandas()
        if column.kind in {"integer", "number"}:
            frame[name] = frame[name].astype("float64" if column.missing or column.kind == "number" else "int64")
        elif column.kind == "text":
            frame[name] = frame[name].astype("str")
    return pd.DataFrame({**frame, "__file__": table.column("__file__").to_pandas()})
