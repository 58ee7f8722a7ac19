"""Reference profile: the distributions of a model's rows, kept with the model to compare later rows with.

For each feature it has what drift statistics ask of the reference side: a histogram (population stability index,
χ²), quantiles (Kolmogorov-Smirnov, Wasserstein) and the share that is missing. It holds no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.ground import numbers
from tasks.modelling import measures
from tasks.runtime import answer_columns, feature_types

Floats = npt.NDArray[np.float64]

if TYPE_CHECKING:
    import pandas as pd

    Column = pd.Series[Any]

GRID = 21
"""Quantiles of a number: minimum, 5 %, 10 %, … maximum."""

TOP = 100
"""Values of a category that are counted one by one."""


def reference_profile(
    frame: pd.DataFrame, features: Mapping[str, Mapping[str, Any]], predictions: pd.DataFrame | None
) -> dict[str, Any]:
    """The distributions of some rows, as a JSON value; equal frames give equal profiles.

    Args:
        frame: the feature columns and `label`; other columns are left alone.
        features: name → at least `type`, as in params.yaml.
        predictions: the prediction columns for the same rows, or None.

    Returns:
        {"rows": n, "features": {name: entry}, "label": entry, "predictions": {column: entry}}; of several labels,
        `labels`: {column: entry} instead. A feature that
        is neither category nor number has the entries of its measures (measures.py), each with `of`, the feature, and
        `measure`; the words of texts are, as hashes, in `vocabularies`: {feature: text}; of the texts in
        `unwatched` only hashes are logged. Every entry has `type`, `rows` and `missing` (a share). A number's has
        `mean`, `std`, `min`, `max` (null where every value is missing), `quantiles` (GRID of them), and a
        histogram: `edges` and `counts`. A category's has `distinct`, `values` (how often the TOP most frequent occur)
        and `other`. A label of few distinct numbers has both.
    """
    entries: dict[str, dict[str, Any]] = {}
    vocabularies: dict[str, str] = {}
    hashed = feature_types.hashed_texts(features)  # what is logged of them has no words
    for name, feature in features.items():
        if name in hashed:
            continue
        if feature["type"] in measures.OF_TYPE:
            own, words = measures.entries(frame, name, feature, _days(frame), {"category": category, "number": number})
            entries |= own
            vocabularies |= {} if words is None else {name: words}
        else:
            of_category = feature["type"] == "category"
            entries[name] = category(frame[name]) if of_category else number(frame[name], feature["type"])
    labels = answer_columns.labels(frame.columns)
    return {
        "rows": len(frame),
        "features": entries,
        **{name: _label(frame[name]) for name in labels if name == "label"},
        **({} if "label" in labels else {"labels": {name: _label(frame[name]) for name in labels}}),
        "predictions": {} if predictions is None else {c: number(predictions[c]) for c in predictions.columns},
        **({"vocabularies": vocabularies} if vocabularies else {}),
        **({"unwatched": hashed} if hashed else {}),
    }


def _days(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """The day of each row; the same for all where rows have no time."""
    if "time" not in frame or frame["time"].isna().all():
        return np.zeros(len(frame), dtype=np.int64)
    return np.asarray(frame["time"]).astype("datetime64[D]").astype(np.int64)


def number(values: Column, type_: str = "number") -> dict[str, Any]:
    """The entry of a column of numbers. Infinite values count as missing."""
    every = values.to_numpy(dtype=np.float64, na_value=np.nan)
    finite = np.sort(every[np.isfinite(every)])
    entry: dict[str, Any] = {"type": type_, "rows": len(every), "missing": _share(len(every) - len(finite), len(every))}
    if not len(finite):
        return {**entry, **dict.fromkeys(("mean", "std", "min", "max")), "quantiles": [], "edges": [], "counts": []}
    # a value that occurs, never one between two: so that an integer's edges are integers, and ties stay together
    quantiles = finite[np.round(np.linspace(0, 1, GRID) * (len(finite) - 1)).astype(np.int64)]
    edges = _edges(finite, quantiles)
    return {
        **entry,
        "mean": numbers.short(finite.mean()),
        "std": numbers.short(finite.std()),
        "min": float(finite[0]),
        "max": float(finite[-1]),
        "quantiles": quantiles.tolist(),
        "edges": edges,
        "counts": histogram(finite, edges),
    }


def category(values: Column) -> dict[str, Any]:
    """The entry of a column of texts."""
    counts = values.value_counts()
    ranked = sorted(zip(counts.index.astype(str), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return {
        "type": "category",
        "rows": len(values),
        "missing": _share(int(values.isna().sum()), len(values)),
        "distinct": len(ranked),
        "values": dict(ranked[:TOP]),
        "other": sum(count for _, count in ranked[TOP:]),
    }


def histogram(values: Floats, edges: list[float]) -> list[int]:
    """How many values lie in each of the `bins`; none without edges. What is missing or infinite is not counted."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return np.bincount(bins(finite, edges), minlength=len(edges) + 1).tolist() if edges else []


def bins(values: Floats, edges: Sequence[float]) -> npt.NDArray[np.uint8]:
    """The bin of each finite value: 0 below the first edge, then between two edges each, the last above the last one.

    A bin has its upper edge and not its lower one; the first has both. Of the reference itself nothing is outside, so
    that a feature that was constant shows it when it moves. A pass per edge is faster than a search per value.
    """
    at = np.zeros(len(values), dtype=np.uint8)
    for edge in edges[1:]:
        at += values > edge
    if edges:
        at += values >= edges[0]
    return at


def _edges(finite: Floats, quantiles: Floats) -> list[float]:
    """The edges of a histogram: the quantiles without repetition, or every value where there are no more than GRID.

    The first stands twice, and so makes a bin of the smallest value alone, where that value is common (no rain, no
    delay) or the values are few.
    """
    distinct = np.unique(finite)
    few = len(distinct) <= GRID
    edges: list[float] = (distinct if few else np.unique(quantiles)).tolist()
    return [edges[0], *edges] if few or quantiles[0] == quantiles[1] else edges


def _label(values: Column) -> dict[str, Any]:
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return category(values)
    entry = number(values)
    distinct = int(values.nunique())
    if distinct > TOP:
        return entry
    counts = values.value_counts().sort_index()
    texts = [numbers.text(value) for value in counts.index.tolist()]
    return {**entry, "distinct": distinct, "values": dict(zip(texts, counts.tolist(), strict=True))}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 9) if whole else 0.0
