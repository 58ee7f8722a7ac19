"""Folds of the training rows: which are learned from, and which are answered, as often as a trial is scored.

Only training rows are known here: the holdout, on which the gate judges, is none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.ground.errors import ModelCodeError
from tasks.modelling.rows import row_hashes
from tasks.runtime import answer_columns

if TYPE_CHECKING:
    import pandas as pd

    from tasks.ground.params import TuneFolds
    from tasks.training.origins import Asked

Ints = npt.NDArray[np.int64]

WHERE = "params.yaml: tune.folds"


@dataclass(frozen=True)
class Fold:
    """The places of the rows that are learned from, and of those that are answered."""

    name: str
    learn: Ints
    answer: Ints


def make(
    learn: pd.DataFrame, wanted: TuneFolds, *, split_by_time: bool, labels: int, asked: Asked | None = None
) -> list[Fold]:
    """The folds of some training rows; the same rows have the same folds, in whatever order they come.

    Args:
        learn: the training rows, with label, time, id, perhaps weight, and the column of groups.
        wanted: as params.yaml has it.
        split_by_time: whether the holdout is the newest partitions; then folds are by time too, if none are named.
        labels: how many different labels the rows that a fold learns from must have.
        asked: of a forecast: what is learned from was known when the first answered row was asked.

    Raises:
        ModelCodeError: there are not two folds of which something can be learned.
    """
    by = wanted.by or ("time" if split_by_time else "random")
    if by == "time":
        folds = list(_by_time(learn, wanted.count, asked))
    elif by == "group":
        folds = list(_by_number(_groups(learn[str(wanted.column)], wanted.count)))
    else:
        folds = list(_by_number(_drawn(learn, wanted.count)))
    usable = [fold for fold in folds if _can_be_learned(learn, fold, labels)]
    if len(usable) < 2:
        raise ModelCodeError(
            f"{WHERE}: of {len(folds)} folds by {by}, {len(usable)} can be learned from ({labels} different labels or "
            f"more, and rows to answer); two are needed. Deliver more partitions, or divide otherwise"
        )
    return usable


def _by_time(learn: pd.DataFrame, count: int, asked: Asked | None) -> Iterator[Fold]:
    """Blocks of whole days, each answered by what was learned from the earlier ones."""
    if learn["time"].isna().any():
        raise ModelCodeError(f"{WHERE}: by: time takes rows that all have a time: write by: random")
    days = learn["time"].dt.normalize()
    edges = days.quantile(np.arange(1, count + 1) / (count + 1), "lower").drop_duplicates()
    block = np.searchsorted(edges.to_numpy(), days.to_numpy(), side="left")
    for number in range(1, int(block.max(initial=0)) + 1):
        answer = block == number
        earlier = block < number
        if asked is not None and answer.any():
            earlier &= (learn["time"] <= asked.origins(learn[answer]).min()).to_numpy()
        first, last = days[answer].min(), days[answer].max()
        yield Fold(f"{first:%Y-%m-%d} to {last:%Y-%m-%d}", *map(np.flatnonzero, (earlier, answer)))


def _by_number(fold: Ints) -> Iterator[Fold]:
    for number in np.unique(fold):
        yield Fold(f"fold {number + 1}", *map(np.flatnonzero, (fold != number, fold == number)))


def _groups(column: pd.Series[Any], count: int) -> Ints:
    """Each group in one fold: the largest first, into the fold that has the fewest rows so far."""
    texts = column.astype(object).where(column.notna(), "(missing)").map(str)
    sizes = texts.value_counts()
    filled, place = np.zeros(count, dtype=np.int64), {}
    for name in sorted(sizes.index, key=lambda name: (-sizes[name], name)):
        place[name] = int(filled.argmin())
        filled[place[name]] += sizes[name]
    return texts.map(place).to_numpy(dtype=np.int64)


def _drawn(learn: pd.DataFrame, count: int) -> Ints:
    """By the rows' ids; of labels that are classes, as many of each in every fold as can be."""
    hashes = row_hashes(learn["id"])
    label = learn[answer_columns.labels(learn.columns)[0]]  # of several the first one
    strata = label.to_numpy() if label.dtype.kind != "f" else np.zeros(len(learn))
    fold = np.empty(len(learn), dtype=np.int64)
    for own in learn.groupby(strata, dropna=False).indices.values():
        fold[own[np.argsort(hashes[own], kind="stable")]] = np.arange(len(own)) % count
    return fold


def _can_be_learned(learn: pd.DataFrame, fold: Fold, labels: int) -> bool:
    weights = learn["weight"].to_numpy() if "weight" in learn else np.ones(len(learn))
    are_counted = weights[fold.learn].sum() > 0 and weights[fold.answer].sum() > 0
    columns = answer_columns.labels(learn.columns)
    return bool(are_counted and learn[columns].iloc[fold.learn].nunique().min() >= labels)
