"""Mergeable day summaries: the rows of each day, in a few numbers that can be added up.

Drift is judged by days (drift.py), so only these are kept of rows: of a million rows of a day as much as of a hundred.
Summaries of parts of a day add up to that of the whole, to the last bit and in any order: the sums are of integers (see
`ColumnLayout.scale`), which a float64 holds exactly.

The reference profile (profile.py) lays out what is counted. `train` summarises the training rows with the same function
as the monitor the predictions: that is the reference which later days are compared with.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.ground import files, numbers
from tasks.ground.errors import DataMissing, Mistake
from tasks.modelling import profile
from tasks.modelling.measures import FeatureMeasures, Vocabulary

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Days = npt.NDArray[np.datetime64]

STEPS = 1024
"""Steps per standard deviation in which numbers are summed."""

CHUNK = 1 << 15
"""Rows at a time: their intermediate arrays stay in the processor's cache, which is three times as fast."""

NAMED = 3
"""So many of a day's unknown values are kept."""

UNDATED = np.datetime64("1970-01-01", "D")
"""The day under which rows without a time are summed: one block, as if all were of one day."""

Role = Literal["feature", "prediction", "label"]


@dataclass(frozen=True)
class ColumnLayout:
    """How one column is summarised."""

    name: str
    role: Role
    type: str
    """category, integer or number, or `new`: the reference profile does not know the column."""
    values: tuple[str, ...] = ()
    """Of a category: the values that are counted one by one. Every other value is «unknown»."""
    edges: tuple[float, ...] = ()
    """Of a number: of its histogram, as in the reference profile; none where it was always missing."""
    centre: float = 0.0
    """Numbers are summed as their distance from here, in steps of `scale`: whole numbers of them, so that sums are
    exact in any order as long as they stay below 2^53."""
    scale: float = 1.0
    of: str = ""
    """The feature that it is a measure of (measures.py); of a category or a number none."""
    measure: str = ""
    length: int = 0
    """Of that feature, if it is a vector."""
    vocabulary: str = ""
    """Of that feature, if it is a text."""

    @property
    def counted(self) -> int:
        """How many counts a day has: the values and the unknown one, or the bins."""
        return len(self.values) + 1 if self.type == "category" else len(self.edges) + 1 if self.edges else 0

    @property
    def layout(self) -> str:
        """Summaries with the same layout can be added."""
        measured = [self.of, self.measure, self.length, self.vocabulary] if self.measure else []
        return files.digest([self.type, self.values, self.edges, self.centre, self.scale, *measured])[:16]


def columns(reference: Mapping[str, Any], expected: Iterable[str] = ()) -> dict[str, ColumnLayout]:
    """The columns of a reference profile: features, prediction columns and `label`.

    Args:
        reference: as profile.reference_profile gives it.
        expected: features of the model; one that the profile does not know becomes a column of type `new`.

    Raises:
        Mistake: a feature and a prediction column have the same name.
    """
    features, predictions = reference["features"], reference["predictions"]
    if both := sorted(set(features) & set(predictions)):
        raise Mistake(
            f"{', '.join(both)}: a feature may not be named as a prediction column is. Rename it in params.yaml"
        )
    labels = reference["labels"] if "labels" in reference else {"label": reference["label"]}
    words, learned = reference.get("vocabularies", {}), {entry.get("of", name) for name, entry in features.items()}
    return {
        **{name: _column(name, "feature", entry, words.get(entry.get("of"), "")) for name, entry in features.items()},
        **{name: ColumnLayout(name, "feature", "new") for name in expected if name not in learned},
        **{name: _column(name, "prediction", entry) for name, entry in predictions.items()},
        **{name: _column(name, "label", entry) for name, entry in labels.items()},
    }


def _column(name: str, role: Role, entry: Mapping[str, Any], vocabulary: str = "") -> ColumnLayout:
    measured = {key: entry[key] for key in ("of", "measure", "length") if key in entry} | {"vocabulary": vocabulary}
    if "values" in entry:  # a label of few different numbers is counted by value, as a category is
        return ColumnLayout(name, role, "category", values=tuple(sorted(entry["values"])), **measured)
    has_values = entry["mean"] is not None
    return ColumnLayout(
        name,
        role,
        entry["type"],
        edges=tuple(entry["edges"]),
        centre=entry["mean"] if has_values else 0.0,
        scale=(entry["std"] or abs(entry["mean"]) or 1.0) / STEPS if has_values else 1.0 / STEPS,
        **measured,
    )


@dataclass(frozen=True)
class ColumnDays:
    """One column's days; every array has a first axis of days, oldest first."""

    column: ColumnLayout
    days: Days
    rows: Ints
    """Rows of the day. Of a label: those that have one."""
    missing: Ints
    """Of these, missing or infinite."""
    total: Floats
    """Σ steps from the centre over what is known; 0 for a category."""
    squares: Floats
    """Σ steps²."""
    counts: Ints
    """(days, column.counted): per value or bin."""
    unknown: tuple[tuple[str, ...], ...]
    """Per day, the first NAMED of a category's unknown values by alphabet."""

    @property
    def known(self) -> Ints:
        """Rows of the day that have a value."""
        return self.rows - self.missing

    def none(self) -> ColumnDays:
        """The same column without a day."""
        return self.since(np.datetime64("9999-12-31"))

    def since(self, first: np.datetime64) -> ColumnDays:
        """The days from `first` on."""
        return self._only(slice(int(np.searchsorted(self.days, first)), None))

    def until(self, last: np.datetime64) -> ColumnDays:
        """The days up to `last`, which is one of them."""
        return self._only(slice(int(np.searchsorted(self.days, last, side="right"))))

    def _only(self, part: slice) -> ColumnDays:
        return ColumnDays(self.column, *(getattr(self, field.name)[part] for field in fields(self)[1:]))


DaySummaries = dict[str, ColumnDays]
"""ColumnLayout name → its days. Columns need not have the same days: labels come later."""


# ── rows → summaries ──────────────────────────────────────────────────────────────────────────────


def summarise(rows: pd.DataFrame | pa.Table, wanted: Mapping[str, ColumnLayout], time: str = "time") -> DaySummaries:
    """The day summaries of some rows; memory beyond the rows themselves does not grow with them.

    Args:
        rows: with the column `time`. A feature that is not there counts as missing in every row; a prediction column
            or a label that is not there is left out.
        wanted: which columns, and how (`columns`).
        time: datetime64 or timestamp; its day counts, in the zone in which it stands. Where no row has a time, all of
            them count as of one day, UNDATED.

    Raises:
        DataMissing: there is no such column of times, or some of the times are missing.
    """
    dates = _dates(rows, time)
    if not len(dates):
        return {}
    first = int(dates.min())
    day = dates - first
    names = set(rows.columns if hasattr(rows, "iloc") else rows.column_names)
    summaries: DaySummaries = {}
    measured: dict[str, FeatureMeasures] = {}
    for name, column in wanted.items():
        if column.measure:
            words = Vocabulary.read(column.vocabulary) if column.vocabulary else None
            source = measured.setdefault(column.of, FeatureMeasures(column.of, rows, dates, column.length, words))
            if source.is_there:
                summaries[name] = _summarise(source.values(column.measure), column, day, first)
            else:
                summaries[name] = _presence(np.zeros(len(day), dtype=bool), column, day, first)
        elif name in names:
            summaries[name] = _summarise(rows[name], column, day, first)
        elif column.role == "feature":
            summaries[name] = _presence(np.zeros(len(day), dtype=bool), column, day, first)
    return {name: days for name, days in summaries.items() if len(days.days)}


def _dates(rows: Any, time: str) -> Ints:
    """The day of each row, counted from 1 January 1970."""
    try:
        dates = np.asarray(rows[time]).astype("datetime64[D]")
    except KeyError:
        raise DataMissing(f"the rows have no column {time!r}: without it their day is unknown") from None
    if len(dates) and np.isnat(dates).all():
        return np.full(len(dates), UNDATED.astype(np.int64))
    if np.isnat(dates).any():
        raise DataMissing(f"{int(np.isnat(dates).sum())} of {len(dates)} rows have no {time}: leave them out")
    return np.asarray(dates.astype(np.int64))


def _summarise(values: Any, column: ColumnLayout, day: Ints, first: int) -> ColumnDays:
    import pyarrow as pa

    array = pa.Array.from_pandas(values) if hasattr(values, "iloc") else values
    if column.type == "new":
        return _presence(np.asarray(array.is_valid()), column, day, first)
    if column.type == "category":
        return _category(array, column, day, first)
    return _number(array.cast("float64", safe=False).to_numpy(zero_copy_only=False), column, day, first)


def _presence(has_value: npt.NDArray[np.bool_], column: ColumnLayout, day: Ints, first: int) -> ColumnDays:
    """The days of a feature of which only the presence counts; no count of a value or bin."""
    rows = np.bincount(day)
    known = np.bincount(day[has_value], minlength=len(rows))
    return _with_rows(column, first, rows - known, np.zeros((len(rows), column.counted)), rows)


def _number(values: Floats, column: ColumnLayout, day: Ints, first: int) -> ColumnDays:
    span, bins, inverse = int(day.max()) + 1, max(column.counted, 1), 1 / column.scale
    total, squares = np.zeros(span), np.zeros(span)
    counts = np.zeros(span * bins, dtype=np.int64)
    for begin in range(0, len(values), CHUNK):
        x, at = values[begin : begin + CHUNK], day[begin : begin + CHUNK]
        is_finite = np.isfinite(x)
        if not is_finite.all():
            x, at = x[is_finite], at[is_finite]
        if not len(x):
            continue
        low = int(at.min())  # rows come nearly in order of time: few days are in a chunk
        at = at - low
        steps = np.rint((x - column.centre) * inverse)
        summed, squared = np.bincount(at, steps), np.bincount(at, steps * steps)
        total[low : low + len(summed)] += summed
        squares[low : low + len(squared)] += squared
        cells = np.bincount(at * bins + profile.bins(x, column.edges))
        counts[low * bins : low * bins + len(cells)] += cells
    table, rows = counts.reshape(span, bins), np.bincount(day, minlength=span)
    missing = rows - table.sum(axis=1)
    return _with_rows(column, first, missing, table if column.edges else table[:, :0], rows, total, squares)


def _category(array: Any, column: ColumnLayout, day: Ints, first: int) -> ColumnDays:
    missing, at, texts = _dictionary(array)
    position = {value: i for i, value in enumerate(column.values)}
    is_unknown = len(position)
    codes = np.array([position.get(text, is_unknown) for text in texts] or [0], dtype=np.int64)[at]
    span, cells = int(day.max()) + 1, column.counted + 1
    counts = np.bincount(day * cells + np.where(missing, cells - 1, codes), minlength=span * cells)
    table = counts.reshape(span, cells)
    is_new = (codes == is_unknown) & ~missing
    unknown = _first_named(day[is_new], at[is_new], texts)
    return _with_rows(column, first, table[:, -1], table[:, :-1], table.sum(axis=1), unknown=unknown)


def _first_named(day: Ints, at: Ints, texts: list[str]) -> dict[int, tuple[str, ...]]:
    """Day → the first NAMED of its texts by alphabet; `at`: the position of each row's text."""
    ranked = sorted(set(texts))
    rank = {text: i for i, text in enumerate(ranked)}
    ranks = np.array([rank[text] for text in texts], dtype=np.int64)
    pairs = np.unique(day * max(len(ranked), 1) + ranks[at])
    days, of_pair = np.divmod(pairs, max(len(ranked), 1))
    begins = np.searchsorted(days, days)
    kept = np.arange(len(pairs)) - begins < NAMED
    named: dict[int, tuple[str, ...]] = {}
    for of_day, place in zip(days[kept].tolist(), of_pair[kept].tolist(), strict=True):
        named[of_day] = (*named.get(of_day, ()), ranked[place])
    return named


def _dictionary(array: Any) -> tuple[npt.NDArray[np.bool_], Ints, list[str]]:
    """Whether each value is missing, its position among the different ones (0 where missing), and those as texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    array = array.unify_dictionaries().combine_chunks()
    at = np.asarray(pc.fill_null(array.indices, 0)).astype(np.int64)
    return np.asarray(pc.is_null(array)), at, [numbers.text(value) for value in array.dictionary.to_pylist()]


def _with_rows(
    column: ColumnLayout,
    first: int,
    missing: Ints,
    counts: npt.NDArray[Any],
    rows: Ints,
    total: Floats | None = None,
    squares: Floats | None = None,
    unknown: Mapping[int, tuple[str, ...]] | None = None,
) -> ColumnDays:
    """Of all days of a span, those that have rows. A row without a label is not a row of the label."""
    if column.role == "label":
        rows, missing = rows - missing, np.zeros_like(missing)
    at = np.flatnonzero(rows)
    nothing = np.zeros(len(at))
    return ColumnDays(
        column,
        (at + first).astype("datetime64[D]"),
        rows[at].astype(np.int64),
        missing[at].astype(np.int64),
        nothing if total is None else total[at],
        nothing if squares is None else squares[at],
        counts[at].astype(np.int64),
        tuple((unknown or {}).get(int(i), ()) for i in at),
    )


# ── summaries ─────────────────────────────────────────────────────────────────────────────────────


def merge(parts: Iterable[DaySummaries]) -> DaySummaries:
    """The summaries of all rows, from those of parts of them. The order of the parts makes no difference.

    Raises:
        Mistake: two parts were laid out by different reference profiles.
    """
    by_name: dict[str, list[ColumnDays]] = {}
    for part in parts:
        for name, days in part.items():
            by_name.setdefault(name, []).append(days)
    return {name: _add(name, same) for name, same in by_name.items()}


def _add(name: str, parts: list[ColumnDays]) -> ColumnDays:
    if len(parts) == 1:
        return parts[0]
    column = parts[0].column
    if any(part.column.layout != column.layout for part in parts):
        raise Mistake(
            f"{name}: summaries of different reference profiles cannot be added: summarise the rows again by one"
        )
    days, at = np.unique(np.concatenate([part.days for part in parts]), return_inverse=True)

    def summed(field: str) -> npt.NDArray[Any]:
        every = np.concatenate([getattr(part, field) for part in parts])
        out = np.zeros((len(days), *every.shape[1:]), dtype=every.dtype)
        np.add.at(out, at, every)
        return out

    named: list[set[str]] = [set() for _ in days]
    for place, texts in zip(at, chain.from_iterable(part.unknown for part in parts), strict=True):
        named[place].update(texts)
    sums = {name: summed(name) for name in ("rows", "missing", "total", "squares", "counts")}
    return ColumnDays(column, days, **sums, unknown=tuple(tuple(sorted(texts)[:NAMED]) for texts in named))


# ── a file of summaries ───────────────────────────────────────────────────────────────────────────


def to_bytes(summaries: DaySummaries) -> bytes:
    """As Parquet, a row per column and day; equal summaries give equal bytes with the locked pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, whole = pa.string(), pa.int64()
    types = [texts, texts, pa.date32(), whole, whole, pa.float64(), pa.float64(), pa.list_(whole), pa.list_(texts)]
    names = ["column", "layout", "day", "rows", "missing", "total", "squares", "counts", "unknown"]
    schema = pa.schema(list(zip(names, types, strict=True)))
    tables = [schema.empty_table()]
    for _, days in sorted(summaries.items()):
        named = [[text] * len(days.days) for text in (days.column.name, days.column.layout)]
        sums = [days.days, days.rows, days.missing, days.total, days.squares, days.counts.tolist(), days.unknown]
        tables.append(pa.table([*named, *sums], schema=schema))
    stream = io.BytesIO()
    pq.write_table(pa.concat_tables(tables).combine_chunks(), stream, compression="zstd")
    return stream.getvalue()


def from_bytes(data: bytes, wanted: Mapping[str, ColumnLayout]) -> DaySummaries:
    """Summaries from Parquet, of the columns that are wanted.

    Raises:
        Mistake: they were laid out by another reference profile.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    summaries: DaySummaries = {}
    for name in (name for name in pc.unique(table["column"]).to_pylist() if name in wanted):
        column, part = wanted[name], table.filter(pc.equal(table["column"], name))
        if set(pc.unique(part["layout"]).to_pylist()) != {column.layout}:
            raise Mistake(
                f"{name}: the day summaries were laid out by another reference profile. Read them with the profile "
                f"beside them, or summarise the rows again."
            )
        rows, missing, total, squares = (part[sums].to_numpy() for sums in ("rows", "missing", "total", "squares"))
        counts = np.array(part["counts"].to_pylist(), dtype=np.int64).reshape(len(part), -1)
        unknown = tuple(map(tuple, part["unknown"].to_pylist()))
        days = part["day"].to_numpy().astype("datetime64[D]")
        summaries[name] = ColumnDays(column, days, rows, missing, total, squares, counts, unknown)
    return summaries
