"""Suspicions about the columns of a table: those that give the label away, that name rows, or that stand for a person.

Each is told with its figure, by a sample of rows. A suspicion is no proof: a person decides, and a column that is left
out stands in params.yaml as a comment, ready to be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.tables.conversions import SAFE

if TYPE_CHECKING:
    import pandas as pd

    from tasks.drafting.survey import Survey

ROWS = 20_000
"""Of the sample, that suspicions are computed on."""

GIVES_AWAY = 0.97
"""A column that alone takes away so much of the error is suspected."""

CODES = tuple(-(10**digits - 1) for digits in range(2, 7))
"""-99, -999, …: where nothing else is negative, they mean «missing»."""

SAME = 0.9999
"""Numbers so correlated say the same, in another unit or rounded."""

TELLS = 0.5
"""An identifier that takes away so much of the error was given out by the label."""

FAR_AHEAD, FAR_BEHIND = 0.85, 0.5
"""Of classes so much is enough, where every other column takes away less than the second number."""

MOST_PROXIES = 5
"""That are named one by one, of each personal column."""

PROXY = 0.5
"""A column that takes away so much of the error of a personal one stands for it."""

PERSONAL = re.compile(
    r"\b(sex|gender|geschlecht|race|ethnic\w*|hautfarbe|religion\w*|nationality|citizen\w*|native.country|age|alter|"
    r"disab\w*|marital\w*|zip\w*|postcode|plz)\b",
    re.IGNORECASE,
)
"""Names of columns that say of a person what a decision may not depend on, or that stand for it."""

IDENTIFIER = re.compile(
    r"(^|[_\s.-])(id|uuid|guid|key|no|nr|num|number|index|rowid|ticket|hash)([_\s.-]str)?$|Id$|ID$|^unnamed|^$",
    re.IGNORECASE,
)

GROUP = re.compile(r"(^|[_\s.-])(?i:id|uuid|guid)([_\s.-]str)?$|[a-z](Id|ID)$")
"""Names of columns whose numbers name something, and count nothing."""


@dataclass(frozen=True)
class Suspicion:
    """Why a column is left out, or is told about."""

    column: str
    why: str
    is_leak: bool = False


def identifiers(survey: Survey) -> list[str]:
    """The columns that name rows: (nearly) every row has another whole number or short text."""
    names = []
    for name, column in survey.columns.items():
        values = survey.sample[name]
        if (
            column.kind not in {"integer", "text"}
            or column.missing
            or (column.counts is not None and len(values) > 2000)
        ):
            continue
        if column.kind == "text" and values.str.len().mean() > 40:  # free text
            continue
        distinct = values.nunique() / len(values)
        dense = column.kind == "integer" and column.high - column.low < 3 * survey.rows and _is_counter(values)
        named = IDENTIFIER.search(name) is not None
        if (len(values) > 20 and (distinct > 0.999 and (named or dense or column.kind == "text"))) or (
            distinct > 0.9 and named and len(values) > 20
        ):
            names.append(name)
    return names


def of_identifiers(survey: Survey, names: list[str], label: str | None, *, classes: bool) -> list[Suspicion]:
    """Why columns that name rows are left out; one by whose order the label can be told is a leak."""
    if label is None:
        return [Suspicion(name, "names rows (nearly) one by one") for name in names]
    frame, target = _with_label(survey, label, classes=classes)
    suspicions = []
    for name in names:
        ranks = frame[name] if frame[name].dtype.kind in "iuf" else frame[name].rank(method="dense")
        score = alone(ranks, target, classes=classes)
        tells = f", and tells {score:.0%} of the {_error(classes=classes)} of {label}" if score > TELLS else ""
        suspicions.append(Suspicion(name, f"names rows (nearly) one by one{tells}", is_leak=bool(tells)))
    return suspicions


def groups(survey: Survey, columns: list[str], most: int) -> list[Suspicion]:
    """The columns that name what several rows are of, as a customer, by a number: so many that nothing is learned."""
    suspicions = []
    for name in columns:
        column, values = survey.columns[name], survey.sample[name].dropna()
        count, is_number = values.nunique(), column.kind in {"integer", "number"}
        if is_number and GROUP.search(name) and count > most and (values % 1 == 0).all():
            why = f"names what rows are of ({count:,} different): a model would learn it by heart"
            suspicions.append(Suspicion(name, why))
        elif column.kind == "integer" and len(values) and max(abs(column.low), abs(column.high)) >= SAFE:
            suspicions.append(Suspicion(name, "has whole numbers of 16 digits: they name something, and count nothing"))
    return suspicions


def _is_counter(values: pd.Series[Any]) -> bool:
    """Whether it goes up (or down) by steps from row to row, as what a database counts."""
    steps = np.diff(values.to_numpy(dtype="float64"))
    return bool((steps > 0).all() or (steps < 0).all())


def of_label(survey: Survey, columns: list[str], label: str, *, classes: bool, time: str | None) -> list[Suspicion]:
    """The columns that smell of a leak: known only afterwards, or the label in other clothes.

    Args:
        survey: of the table.
        columns: those that would be features.
        label: the column that is predicted.
        classes: whether it is one of few classes; else it is a number.
        time: the column that says when a row's prediction is asked.
    """
    frame, target = _with_label(survey, label, classes=classes)
    suspicions = [
        *_afterwards(frame, columns, time),
        *_filled_by_label(frame, columns, label, target, classes=classes),
    ]
    known = {suspicion.column for suspicion in suspicions}
    scores = {c: alone(frame[c], target, classes=classes) for c in columns if c not in known}
    suspicions += _give_away(scores, label, classes=classes)
    if not classes:
        parts = list(_sums(survey, frame, columns, target, label))
        suspicions = [*parts, *(each for each in suspicions if each.column not in {part.column for part in parts})]
    return suspicions


def _with_label(survey: Survey, label: str, *, classes: bool) -> tuple[pd.DataFrame, npt.NDArray[Any]]:
    """Rows of the sample that have a label, and their labels as codes or numbers."""
    frame = survey.sample[survey.sample[label].notna()]
    frame = frame.sample(min(len(frame), ROWS), random_state=0).sort_index()
    return frame, _codes(frame[label]) if classes else frame[label].to_numpy(dtype="float64")


def _error(*, classes: bool) -> str:
    return "errors" if classes else "variation"


def _afterwards(frame: pd.DataFrame, columns: list[str], time: str | None) -> Iterator[Suspicion]:
    if time is None or frame[time].dtype.kind != "M":
        return
    for name in columns:
        if frame[name].dtype.kind == "M" and name != time:
            both = frame[[name, time]].dropna()
            later = float((_local(both[name]) > _local(both[time])).mean()) if len(both) else 0.0
            if later > 0.9:
                yield Suspicion(name, f"is after {time} in {later:.0%} of the rows: it is known only afterwards", True)
                yield from _spans(frame, columns, time, name)


def _local(times: pd.Series[Any]) -> pd.Series[Any]:
    """Times without a zone: one column may have one, and another none."""
    return times.dt.tz_localize(None) if times.dt.tz is not None else times


def _spans(frame: pd.DataFrame, columns: list[str], time: str, later: str) -> Iterator[Suspicion]:
    """Numbers that say how long after a row's time a later one is, in whatever unit."""
    span = (_local(frame[later]) - _local(frame[time])).dt.total_seconds()
    for name in columns:
        both = span.notna() & frame[name].notna()
        if frame[name].dtype.kind in "iuf" and both.sum() >= 20 and _are_same(span[both], frame[name][both]):
            yield Suspicion(name, f"says how long after {time} {later} is, which is known only afterwards", True)


def _are_same(first: pd.Series[Any], second: pd.Series[Any]) -> bool:
    if not (first.std() > 0 and second.std() > 0):
        return False
    return bool(np.corrcoef(first, second.astype("float64"))[0, 1] > SAME)


def _filled_by_label(
    frame: pd.DataFrame, columns: list[str], label: str, target: npt.NDArray[Any], *, classes: bool
) -> Iterator[Suspicion]:
    """Columns that hold something only where the label is of one class."""
    if not classes:
        return
    usual = np.bincount(target).max() / len(target)
    for name in columns:
        filled = frame[name].notna().to_numpy()
        for side, what in ((filled, "filled"), (~filled, "empty")):
            if 20 <= side.sum() <= len(side) - 20:
                purity = np.bincount(target[side]).max() / side.sum()
                if purity > 0.995 and purity - usual > 0.1:
                    first = np.flatnonzero(side & (target == np.bincount(target[side]).argmax()))[0]
                    yield Suspicion(name, f"is {what} only where {label} is {frame[label].iloc[first]}", True)
                    break


def alone(values: pd.Series[Any], target: npt.NDArray[Any], *, classes: bool) -> float:
    """The share of the baseline's error that a small tree of one column takes away, on rows that it did not see."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    column = _numbers(values)
    column = np.where(np.isfinite(column), column, -1.0).reshape(-1, 1).astype(np.float32)
    if classes:
        counts = np.bincount(target)
        if (counts[counts > 0] < 2).any() or len(target) < 10:
            return 0.0
        tree: Any = DecisionTreeClassifier(max_leaf_nodes=max(32, 2 * len(counts)), min_samples_leaf=2, random_state=0)
        right = float((_unseen(tree, column, target, classes=True) == target).mean())
        usual = float(counts.max()) / len(target)
        return (right - usual) / (1 - usual or 1)
    tree = DecisionTreeRegressor(max_leaf_nodes=128, min_samples_leaf=2, random_state=0)
    order = np.random.default_rng(0).permutation(len(target))
    column, target = column[order], target[order]
    answers = _unseen(tree, column, target, classes=False)
    return 1 - float(((answers - target) ** 2).mean() / (target.var() or 1))


def _unseen(tree: Any, column: npt.NDArray[Any], target: npt.NDArray[Any], *, classes: bool) -> npt.NDArray[Any]:
    """What a tree that learned from one half says of the other; scikit-learn's function takes 20 ms a column."""
    from sklearn.model_selection import KFold, StratifiedKFold

    answers = np.empty(len(target))
    for learn, rest in (StratifiedKFold(2) if classes else KFold(2)).split(column, target):
        answers[rest] = tree.fit(column[learn], target[learn], check_input=False).predict(
            column[rest], check_input=False
        )
    return answers


def _give_away(scores: dict[str, float], label: str, *, classes: bool) -> list[Suspicion]:
    suspicions = []
    for name, score in scores.items():
        others = max((other for each, other in scores.items() if each != name), default=0.0)
        if score >= GIVES_AWAY or (classes and score >= FAR_AHEAD and others < FAR_BEHIND):
            why = f"alone it explains {score:.1%} of the {_error(classes=classes)} of {label}: is it known before?"
            suspicions.append(Suspicion(name, why, is_leak=True))
    return suspicions


def _sums(
    survey: Survey, frame: pd.DataFrame, columns: list[str], target: npt.NDArray[Any], label: str
) -> Iterator[Suspicion]:
    """Numbers of which the label is a sum or a difference, to the last digit."""
    numbers = [name for name in columns if survey.columns[name].kind in {"integer", "number"}]
    matrix = frame[numbers].astype("float64")
    keep = matrix.notna().all(axis=1).to_numpy()
    if len(numbers) < 2 or keep.sum() < 5 * len(numbers) + 20:
        return
    scaled = matrix[keep].to_numpy()
    spread = scaled.std(axis=0)
    scaled = (scaled - scaled.mean(axis=0)) / np.where(spread > 0, spread, 1)
    centred = target[keep] - target[keep].mean()
    weights = np.linalg.lstsq(scaled, centred, rcond=None)[0]
    rest = float(((centred - scaled @ weights) ** 2).mean() / (centred.var() or 1))
    if rest > 1e-6:
        return
    parts = [n for n, weight in zip(numbers, weights, strict=True) if abs(weight) > 0.01 * np.abs(weights).max()]
    for name in parts:
        others = ", ".join(other for other in parts if other != name)
        yield Suspicion(
            name, f"{label} is computed from it{f' and {others}' if others else ''}, to the last digit", True
        )


def personal(survey: Survey, columns: list[str]) -> list[Suspicion]:
    """The columns that say of a person what a decision may not depend on, and those that tell it (proxies)."""
    spelled = {name: re.sub(r"[_.-]+|(?<=[a-z])(?=[A-Z])", " ", name) for name in columns}
    sensitive = [name for name in columns if PERSONAL.search(spelled[name])]
    frame = survey.sample.sample(min(len(survey.sample), ROWS), random_state=0)
    suspicions = [Suspicion(name, "is about a person: may the answer depend on it?") for name in sensitive]
    for name in sensitive:
        if not 2 <= len(survey.columns[name].counts or ()) <= 20:
            continue
        target = _codes(
            frame[name].fillna("missing") if frame[name].dtype.kind not in "iuf" else frame[name].fillna(-1)
        )
        tells = {other: alone(frame[other], target, classes=True) for other in columns if other not in sensitive}
        proxies = sorted((other for other, score in tells.items() if score > PROXY), key=tells.__getitem__)[::-1]
        suspicions += [
            Suspicion(other, f"a proxy: it tells {name} ({tells[other]:.0%} of the errors)")
            for other in proxies[:MOST_PROXIES]
        ]
        if more := proxies[MOST_PROXIES:]:
            words = f"a proxy, as {len(more) - 1} others that tell {name} ({tells[more[0]]:.0%} of the errors, or less)"
            suspicions.append(Suspicion(more[0], words))
    return suspicions


def codes_for_missing(survey: Survey, columns: list[str]) -> Iterator[tuple[str, int]]:
    """Columns with a code such as -999 where nothing else is below 0, and the code."""
    for name in columns:
        column = survey.columns[name]
        if column.kind in {"integer", "number"} and column.low is not None and column.low in CODES:
            values = survey.sample[name].dropna()
            if (values[values < 0] == column.low).all() and (values == column.low).sum() > 1 and column.high > 0:
                yield name, int(column.low)


def duplicates(survey: Survey) -> float:
    """The share of the sample's rows that stand there twice, word for word."""
    columns = [name for name in survey.sample if name != "__file__"]
    return float(survey.sample.duplicated(columns).mean())


def _numbers(values: pd.Series[Any]) -> npt.NDArray[np.float64]:
    if values.dtype.kind == "M":
        return np.asarray(values.astype("int64"), dtype=np.float64)
    return np.asarray(values if values.dtype.kind in "iuf" else _codes(values), dtype=np.float64)


def _codes(values: pd.Series[Any]) -> npt.NDArray[np.int64]:
    import pandas as pd

    return np.asarray(pd.factorize(values, sort=False)[0], dtype=np.int64)
