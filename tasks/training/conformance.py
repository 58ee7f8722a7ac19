"""Conformance of the team's rows to params.yaml: one type a column whatever the writer, faults by column and row.

What a request may not hold, a row may not either: the release would refuse it in its trial, after all that takes long.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tasks.ground import params
from tasks.ground.errors import ModelCodeError
from tasks.modelling.rows import as_feature, as_text
from tasks.runtime import request_schema
from tasks.training.consistency import NEEDED_BY_SPLIT

if TYPE_CHECKING:
    Column = pd.Series[Any]


def conform(rows: pd.DataFrame, name: str, model: params.Model, partition: str = "") -> pd.DataFrame:
    """The rows with the columns of params.yaml, in order, each of one type whatever it came in.

    category → str, integer and number → float64, time → datetime64[us], id → str; label → int64, bool or str (a class),
    int64 or float64 (a number), of an anomaly model float64: 1.0 (an anomaly), 0.0 or missing; weight, where there is
    one, → float64; other columns of evaluate.slices → str. Rows without a time get the column `time` all the same, with
    none in it. Messages name the partition, if there is one.

    Raises:
        ModelCodeError: a column is missing; a value is missing, not of its type, or such as no request may hold; an id
            stands twice.
    """
    where = f"models/{name}/rows{f', partition {partition}' if partition else ''}"
    wanted = [*model.features, "label", "time", "id", *(["weight"] if "weight" in rows else []), *model.kept]
    may_lack = {*model.kept, *(["label"] if model.task == "anomaly" else [])}  # nobody knows yet what is an anomaly
    if "time" not in rows.columns:
        rows = rows.reset_index(drop=True).assign(time=_no_time(model, where, len(rows)))
        may_lack.add("time")
    if "label" in may_lack and "label" not in rows.columns:
        rows = rows.assign(label=np.nan)
    if lacking := [column for column in wanted if column not in rows.columns]:
        raise ModelCodeError(f"{where} gives no column {', '.join(lacking)}; params.yaml and the interface ask for it")
    if twice := [column for column in wanted if list(rows.columns).count(column) > 1]:
        raise ModelCodeError(f"{where} gives column {', '.join(twice)} twice: which one counts?")
    rows = rows[wanted].reset_index(drop=True)
    for column in wanted:
        feature, at = model.features.get(column), f"{where}: {column}"
        if (missing := rows[column].isna()).any() and not (feature.nullable if feature else column in may_lack):
            todo = ", but params.yaml does not say that it is nullable" if feature else "; leave such rows out"
            raise ModelCodeError(f"{at} is missing in {_rows(missing)}{todo}")
        rows[column] = _converted(rows[column], model, at)
    for column, feature in model.features.items():
        _refuse_what_no_request_may_hold(rows[column], feature, f"{where}: {column}")
    if (repeated := rows["id"].duplicated(keep=False)).any():
        first = rows["id"][repeated].iloc[0]
        places = ", ".join(str(row + 1) for row in np.flatnonzero(rows["id"] == first)[:5])
        raise ModelCodeError(f"{where}: id {first!r} stands twice (rows {places}); it must name one row")
    return rows


def _converted(values: Column, model: params.Model, where: str) -> Column:
    conversions: dict[str, tuple[str, Callable[[Column], Column]]] = {
        **{name: (feature.type, partial(as_feature, type_=feature.type)) for name, feature in model.features.items()},
        "label": _LABELS[model.task],
        "time": ("local time", _local_time),
        "id": ("text", as_text),
        "weight": ("weight", _weight),
        **dict.fromkeys(model.kept, ("category", as_text)),
    }
    kind, convert = conversions[str(values.name)]
    try:
        return convert(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelCodeError(f"{where} is no {kind}: {error}") from None


def _refuse_what_no_request_may_hold(values: Column, feature: params.Feature, where: str) -> None:
    limits = request_schema.limits(feature.model_dump())
    missing, widen = "give another value, or None where it is missing", "widen its limits in params.yaml"
    if feature.type == "category":
        length, most = values.str.len(), limits["max_length"]
        faults = [
            (length < limits["min_length"], "is empty", missing),
            (length > most, f"is longer than {most} characters", "shorten it"),
        ]
    else:
        low, high = limits.get("ge", -np.inf), limits.get("le", np.inf)
        faults = [
            (values.abs() == np.inf, "is infinite", missing),
            ((values % 1 > 0) & (feature.type == "integer"), "is no integer", "round it"),
            (values < low, f"is below {low:g}", f"{widen}, or leave such rows out"),
            (values > high, f"is above {high:g}", f"{widen}, or leave such rows out"),
        ]
    for wrong, fault, todo in faults:
        if wrong.any():
            example = values.loc[wrong].iloc[0]
            shown = repr(example[:40]) if isinstance(example, str) else f"{example:g}"
            raise ModelCodeError(f"{where} {fault} in {_rows(wrong)}, as {shown}; {todo}")


def _rows(wrong: Column) -> str:
    """How many rows, and the first of them, counted from 1."""
    flags = wrong.fillna(False).to_numpy(dtype=bool)
    return f"{int(flags.sum())} row{'s'[: int(flags.sum() > 1)]} (first: row {int(np.argmax(flags)) + 1})"


def _no_time(model: params.Model, where: str, count: int) -> Column:
    """The column `time` of rows that have none."""
    if model.split.by == "time":
        raise ModelCodeError(f"{where}: {NEEDED_BY_SPLIT}")
    return pd.Series(pd.NaT, index=range(count), dtype="datetime64[us]")


def _local_time(values: Column) -> Column:
    if pd.api.types.is_numeric_dtype(values.dtype):
        raise TypeError("it is a number, of which nobody knows the unit; use pd.to_datetime(…, unit=…)")
    times = values.astype("datetime64[us]")
    if (beyond := times.dt.year > 9999).any():
        raise ValueError(f"its year is beyond 9999 in {_rows(beyond)}; were milliseconds taken for seconds?")
    return times


def _weight(values: Column) -> Column:
    """How often a row counts: finite, and not below 0."""
    weights = as_feature(values, "number")
    if (wrong := ~np.isfinite(weights) | (weights < 0)).any():
        raise ValueError(f"it is {weights[wrong].iloc[0]:g} in {_rows(wrong)}; a row counts 0 times, or more often")
    return weights


def _class(values: Column) -> Column:
    """Whole numbers as int64, truth values as bool, texts as str: of one kind, whatever type they came in."""
    if plain := _PLAIN_CLASSES.get(values.dtype.kind):
        return values.astype(plain)
    values = values.astype(object)
    kinds = values.map(_kind)
    if len(mixed := sorted(kinds.unique())) > 1:
        where = (f"{kind} in row {int(np.argmax(kinds.to_numpy() == kind)) + 1}" for kind in mixed)
        raise TypeError(f"{_CLASS}, the same throughout; it is {', '.join(where)}")
    kind = mixed[0] if mixed else "text"
    if kind not in _CLASS_TYPES:
        hint = "; what is to be estimated as a number is task: regression" if kind == "fraction" else ""
        raise TypeError(f"{_CLASS}; it is a {kind} in row 1, {values.iloc[0]}{hint}")
    return values.astype(_CLASS_TYPES[kind])


_CLASS = "a class is a whole number, a truth value or a text"
_PLAIN_CLASSES: dict[str, Any] = {"i": "int64", "b": "bool"}
_CLASS_TYPES: dict[str, Any] = {"whole number": "int64", "truth value": "bool", "text": "str"}


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "truth value"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Integral):
        return "whole number"
    if isinstance(value, float | np.floating | Decimal):
        return "fraction" if value % 1 else "whole number"
    return type(value).__name__


def _estimated(values: Column) -> Column:
    """Whole numbers as int64, others as float64; finite."""
    if values.map(lambda value: isinstance(value, str)).any():
        raise TypeError("it is text; a regression estimates numbers")
    if pd.api.types.is_integer_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        return values.astype("int64")
    plain = as_feature(values, "number")
    if (infinite := plain.abs() == np.inf).any():
        raise ValueError(f"it is infinite in {_rows(infinite)}")
    return plain


def _mark(values: Column) -> Column:
    """Whether a row is an anomaly, as far as that is known: 1.0, 0.0 or missing."""
    marks = values.astype(object).where(values.notna(), None).map({True: 1.0, False: 0.0}, na_action="ignore")
    if (wrong := marks.isna() & values.notna()).any():
        example = values.astype(object)[wrong].tolist()[0]
        raise ValueError(f"1 is an anomaly, 0 is none, missing is not known; it is {example!r} in {_rows(wrong)}")
    return marks.astype("float64")


_LABELS: dict[str, tuple[str, Callable[[Column], Column]]] = {
    "classification": ("class", _class),
    "regression": ("number", _estimated),
    "anomaly": ("mark of an anomaly", _mark),
}
