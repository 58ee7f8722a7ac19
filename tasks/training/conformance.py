"""Conformance of the team's rows to params.yaml: one type a column whatever the writer, faults by column and row.

What a request may not hold, a row may not either: the release would refuse it in its trial, after all that takes long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground import params
from tasks.ground.errors import ModelCodeError
from tasks.ground.task_kinds import OF_SEVERAL
from tasks.ground.words import listed
from tasks.modelling.rows import as_feature, as_matrix, as_text
from tasks.runtime import answer_columns, feature_types, request_schema
from tasks.training.consistency import NEEDED_BY_SPLIT

if TYPE_CHECKING:
    Column = pd.Series[Any]


def conform(rows: pd.DataFrame, name: str, model: params.Model, partition: str = "") -> pd.DataFrame:
    """The rows with the columns of params.yaml, in order, each of one type whatever it came in.

    Features as tasks/runtime/feature_types.py has them, a vector as its columns (in which it may come, too); time →
    datetime64[us], id → str; label → int64, bool or str (a class), int64 or float64 (a number), of an anomaly model
    float64: 1.0 (an anomaly), 0.0 or missing; weight, where there is one, → float64; others of evaluate.slices → str.
    Each of several labels is a column as `rain:label`, and a row may lack some of them. Rows without a time get
    the column `time` all the same, with none in it. Messages name the partition, if there is one.

    Raises:
        ModelCodeError: a column is missing; a value is missing, not of its type, or such as no request may hold; an id
            stands twice.
    """
    where = f"models/{name}/rows{f', partition {partition}' if partition else ''}"
    rows = _with_vectors(_with_labels(rows, model, where), model, where)
    labels = [answer_columns.column(label, "label") for label in model.labels] or ["label"]
    wanted = [*model.columns, *labels, "time", "id", *(["weight"] if "weight" in rows else []), *model.kept]
    # nobody knows yet what is an anomaly, and one of several labels may come later than the others
    may_lack = {*model.kept, *(labels if model.task == "anomaly" or model.labels else [])}
    if "time" not in rows.columns:
        rows = rows.reset_index(drop=True).assign(time=_no_time(model, where, len(rows)))
        may_lack.add("time")
    if lacking := [column for column in wanted if column not in rows.columns]:
        raise ModelCodeError(f"{where} gives no column {listed(lacking)}; params.yaml and the interface ask for it")
    if twice := [column for column, times in Counter(rows.columns).items() if times > 1 and column in {*wanted}]:
        raise ModelCodeError(f"{where} gives column {listed(twice)} twice: which one counts?")
    rows = rows[wanted].reset_index(drop=True)
    of_vectors = {column for name in model.of_type("vector") for column in _columns(name, model)}
    for column in wanted:
        if column not in of_vectors:
            named = f"{where}: {answer_columns.split(column)[0] or column}"
            rows[column] = _checked(rows[column], model, named, can_lack=column in may_lack)
    for column, feature in model.features.items():
        if feature.type == "vector":
            _refuse_vectors(rows[_columns(column, model)].to_numpy(), feature, f"{where}: {column}")
        else:
            _refuse_what_no_request_may_hold(rows[column], feature, f"{where}: {column}")
    if (repeated := rows["id"].duplicated(keep=False)).any():
        first = rows["id"][repeated].iloc[0]
        places = ", ".join(str(row + 1) for row in np.flatnonzero(rows["id"] == first)[:5])
        raise ModelCodeError(f"{where}: id {first!r} stands twice (rows {places}); it must name one row")
    return rows


def _with_labels(rows: pd.DataFrame, model: params.Model, where: str) -> pd.DataFrame:
    """The rows with the columns of labels as tables have them; none of the rows lacks all of several."""
    if not model.labels:
        _refuse_several_labels(rows, model, where)
        return rows.assign(label=np.nan) if model.task == "anomaly" and "label" not in rows.columns else rows
    if lacking := [label for label in model.labels if label not in rows.columns]:
        raise ModelCodeError(
            f"{where} gives no column {listed(lacking)}, and params.yaml names {', '.join(model.labels)} as the "
            f"labels: give a column for each by its name"
        )
    if (unlabelled := rows[model.labels].isna().all(axis=1)).any():
        raise ModelCodeError(f"{where}: every label is missing in {_rows(unlabelled)}; leave such rows out")
    return rows.rename(columns={label: answer_columns.column(label, "label") for label in model.labels})


def _refuse_several_labels(rows: pd.DataFrame, model: params.Model, where: str) -> None:
    """Refuse rows that have several labels, however they come: as columns, or as lists in one."""
    columns = [str(name) for name in rows.columns if name == "label"]
    if not columns and model.task != "anomaly":
        others = [str(name) for name in rows.columns if name not in {*model.features, *model.kept}]
        columns = [name for name in others if name.startswith("label")]
    fault = f"the columns {', '.join(columns)} look like several labels" if len(columns) > 1 else ""
    if columns == ["label"] and rows["label"].dtype == object:
        several = rows["label"].map(lambda value: isinstance(value, list | tuple | dict | set | np.ndarray))
        if several.any():
            first = int(np.argmax(several.to_numpy()))
            fault = f"label is a {type(rows['label'].iloc[first]).__name__} in row {first + 1}"
    if fault:
        raise ModelCodeError(f"{where}: {fault}, and a row has one, a number or a class. {_several(model, columns)}")


def _several(model: params.Model, columns: list[str]) -> str:
    names = dict.fromkeys(columns) if len({*columns}) > 1 else ["one", "other"]
    task = model.task if model.task in OF_SEVERAL else OF_SEVERAL[1]
    return params.SEVERAL_LABELS.format(task=task, labels=", ".join(names))


def _checked(values: Column, model: params.Model, where: str, *, can_lack: bool) -> Column:
    feature = model.features.get(str(values.name))
    if (missing := values.isna()).any() and not (feature.nullable if feature else can_lack):
        todo = ", but params.yaml does not say that it is nullable" if feature else "; leave such rows out"
        raise ModelCodeError(f"{where} is missing in {_rows(missing)}{todo}")
    return _converted(values, model, where)


def _columns(name: str, model: params.Model) -> list[str]:
    return feature_types.vector_columns(name, int(model.features[name].length or 0))


def _with_vectors(rows: pd.DataFrame, model: params.Model, where: str) -> pd.DataFrame:
    """The rows with the columns of each vector that comes as a column of lists or arrays."""
    blocks = []
    for name in model.of_type("vector"):
        try:
            matrix = as_matrix(rows, name, int(model.features[name].length or 0))
        except (ValueError, TypeError) as error:
            raise ModelCodeError(f"{where}: {name} is no vector: {error}") from None
        if matrix is None:
            raise ModelCodeError(f"{where} gives no column {name}, nor {name}_0, {name}_1, …; params.yaml asks for it")
        blocks.append(pd.DataFrame(matrix, columns=_columns(name, model), index=rows.index))
    taken = {column for block in blocks for column in block.columns}
    return pd.concat([rows[[c for c in rows.columns if c not in taken]], *blocks], axis=1) if blocks else rows


def _refuse_vectors(matrix: npt.NDArray[np.float64], feature: params.Feature, where: str) -> None:
    limits = request_schema.limits({**feature.model_dump(), "type": "number"})
    low, high, nan = limits.get("ge", -np.inf), limits.get("le", np.inf), np.isnan(matrix)
    faults = [
        (nan.any(axis=1) & ~nan.all(axis=1), "has numbers that are missing", "give all of them, or None for the row"),
        (nan.all(axis=1) & (not feature.nullable), "is missing", "say in params.yaml that it is nullable"),
        (np.isinf(matrix).any(axis=1), "has an infinite number", "give another one, or None for the row"),
        ((matrix < low).any(axis=1), f"has a number below {low:g}", "widen its limits in params.yaml"),
        ((matrix > high).any(axis=1), f"has a number above {high:g}", "widen its limits in params.yaml"),
    ]
    for wrong, fault, todo in faults:
        if wrong.any():
            raise ModelCodeError(f"{where} {fault} in {_rows(pd.Series(wrong))}; {todo}")


def _converted(values: Column, model: params.Model, where: str) -> Column:
    kind: str
    convert: Callable[[Column], Column]
    kind_of, of_label = _LABELS[model.task]
    conversions: dict[str, tuple[str, Callable[[Column], Column]]] = {
        "label": _LABELS[model.task],
        **{answer_columns.column(name, "label"): (kind_of, partial(_with_missing, of_label)) for name in model.labels},
        "time": ("local time", _local_time),
        "id": ("text", as_text),
        "weight": ("weight", _weight),
        **dict.fromkeys(model.kept, ("category", as_text)),
    }
    if feature := model.features.get(str(values.name)):
        kind, convert = feature.type, partial(as_feature, type_=feature.type, timezone=feature.timezone or "UTC")
    else:
        kind, convert = conversions[str(values.name)]
    try:
        return convert(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelCodeError(f"{where} is no {kind}: {error}") from None


def _refuse_what_no_request_may_hold(values: Column, feature: params.Feature, where: str) -> None:
    for wrong, fault, todo in _faults(values, feature):
        if wrong.any():
            example = values.loc[wrong].iloc[0]
            shown = f"{example:g}" if isinstance(example, float) else str(example)
            if isinstance(example, str):  # a text is shown to nobody, only its length
                shown = repr(example[:40]) if feature.type == "category" else f"one of {len(example):,}"
            raise ModelCodeError(f"{where} {fault} in {_rows(wrong)}, as {shown}; {todo}")


def _faults(values: Column, feature: params.Feature) -> list[tuple[Column, str, str]]:
    """Which rows have a fault, how it is called, and what to do."""
    limits = request_schema.limits(feature.model_dump())
    missing, widen = "give another value, or None where it is missing", "widen its limits in params.yaml"
    widen += ", or leave such rows out"
    if feature.type in ("category", "text"):
        length, most = values.str.len(), limits["max_length"]
        return [
            (length < limits.get("min_length", 0), "is empty", missing),
            (length > most, f"is longer than {most} characters", "shorten it"),
        ]
    if feature.type == "datetime":
        beyond_9999 = "were milliseconds taken for seconds?"
        faults = [(values.dt.year > 9999, "is after the year 9999", beyond_9999)]
        for limit, word in ((feature.min, "before"), (feature.max, "after")):
            if limit is not None:
                wrong = values < pd.Timestamp(limit) if word == "before" else values > pd.Timestamp(limit)
                faults.append((wrong, f"is {word} {limit}", widen))
        return faults
    low, high = limits.get("ge", -np.inf), limits.get("le", np.inf)
    return [
        (values.abs() == np.inf, "is infinite", missing),
        ((values % 1 > 0) & (feature.type == "integer"), "is no integer", "round it"),
        (values < low, f"is below {low:g}", widen),
        (values > high, f"is above {high:g}", widen),
    ]


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


def _with_missing(convert: Callable[[Column], Column], values: Column) -> Column:
    """As `convert` makes the values that are there; a missing one is missing in a type that has a word for it."""
    known = convert(values[values.notna()])
    nullable: Any = {"int64": "Int64", "bool": "boolean"}.get(str(known.dtype), known.dtype)
    return known if len(known) == len(values) else known.astype(nullable).reindex(values.index)


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
    "forecast": ("number", _estimated),
    "anomaly": ("mark of an anomaly", _mark),
}
