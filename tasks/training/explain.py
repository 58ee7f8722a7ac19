"""What a fitted pipeline looks at: permutation importance and partial dependence, on a fixed sample of rows.

All rows are predicted in one call: a pipeline's cost per call is many times its cost per row. The number of predictions
is bounded, whatever the number of features or rows. Intervals resample days: `blocks` is the day of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground.task_kinds import KINDS
from tasks.modelling import metrics
from tasks.runtime import answer_columns, model_file

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PERMUTED = 40_000
"""Rows that permutation importance predicts at most."""

WIDEST = 12_000_000
"""Values of which it does so at most."""

CURVED = ("category", "boolean", "integer", "number")
"""Types of features along which a mean prediction can be drawn."""

REPEATS = 2
"""Permutations of each feature."""

VARIED = 12_000
"""Rows that partial dependence predicts at most."""

POINTS = 12
"""Values of a number at which partial dependence is computed; an integer of few values has them all."""

CATEGORIES = 10
"""Values of a category at which partial dependence is computed: the most frequent ones."""

MOST_ROWS = 2_000
FEWEST_ROWS = 50
RESAMPLES = 300


def permutation_importance(
    pipeline: Pipeline,
    task: str,
    features: pd.DataFrame,
    label: pd.Series[Any] | pd.DataFrame,
    blocks: Ints,
    confidence: float,
    players: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """How much the loss grows when one feature's values are dealt out anew among the rows (Breiman 2001).

    `players` are the features, each with its columns, of which a vector has many; without it, each column is one.

    The loss is the log loss of a classification, the absolute error of a regression; of an anomaly model, which has no
    labels, how far its score moves.

    Returns:
        Columns feature, importance, low, high (nan where there is one day), rows (of the sample); the most important
        first.
    """
    players = players or {str(name): [str(name)] for name in features.columns}
    names = list(players)
    repeats = max(1, min(REPEATS, PERMUTED // (FEWEST_ROWS * len(names))))
    rng = np.random.default_rng(0)
    cells = min(PERMUTED, WIDEST // len(features.columns))
    sample = _sample(len(features), cells // (repeats * len(names) + 1), rng)
    count, frame = len(sample), features.iloc[sample]
    orders = np.array([[rng.permutation(count) for _ in range(repeats)] for _ in names])
    position = np.tile(np.arange(count), (len(names) * repeats + 1, 1))  # the first block is left as it is
    stacked = {}
    for i, columns in enumerate(players.values()):
        taken = position.copy()
        taken[1 + i * repeats : 1 + (i + 1) * repeats] = orders[i]
        for column in columns:
            stacked[column] = frame[column].array.take(taken.ravel())
    given = model_file.predict(pipeline, pd.DataFrame({name: stacked[name] for name in features.columns}), task)
    truth = label.iloc[np.tile(sample, len(position))]
    if not KINDS[task].has_loss_by_row:
        scores = given["anomaly_score"].to_numpy().reshape(len(position), count)
        lost = np.abs(scores - scores[0])
    else:
        lost = metrics.losses(KINDS[task].losses[0], truth, given).reshape(len(position), count)
    grown = lost[1:].reshape(len(names), repeats, count).mean(axis=1) - lost[0]
    drawn = metrics.bootstrap_means(grown.T, blocks[sample], RESAMPLES, 0)
    limits = np.array([metrics.interval(column, confidence) for column in drawn.T])
    described = {"feature": names, "importance": grown.mean(axis=1), "low": limits[:, 0], "high": limits[:, 1]}
    table = pd.DataFrame({**described, "rows": count})
    return table.sort_values("importance", ascending=False, kind="stable", ignore_index=True)


@dataclass(frozen=True)
class Curve:
    """The mean prediction when a feature is set to each of some values in every row (Friedman 2001)."""

    feature: str
    points: list[float] | list[str]
    """What it is set to: numbers, rising, or texts, the most frequent first."""
    columns: list[str]
    """Which predictions: a class's column, or `prediction`."""
    mean: Floats
    """Shape (points, columns)."""
    low: Floats
    high: Floats
    """The interval of the curve's shape, its level taken as known; as `mean`."""
    rows: int
    """How many rows the means are of."""


def partial_dependence(
    pipeline: Pipeline, task: str, features: pd.DataFrame, chosen: Mapping[str, str], blocks: Ints, confidence: float
) -> list[Curve]:
    """The curve of each chosen feature that has any value; `chosen` names features with their types, in order."""
    grids = {name: grid for name, type_ in chosen.items() if (grid := _grid(features[name], type_))}
    points = sum(map(len, grids.values()))
    if not points:
        return []
    sample = _sample(len(features), max(VARIED // points, FEWEST_ROWS), np.random.default_rng(1))
    frame, count = features.iloc[sample], len(sample)
    everywhere = np.tile(np.arange(count), points)
    stacked = pd.DataFrame({name: frame[name].array.take(everywhere) for name in features.columns})
    ends = np.cumsum([len(grid) for grid in grids.values()])
    parts = {name: slice(end - len(grid), end) for (name, grid), end in zip(grids.items(), ends, strict=True)}
    for name, part in parts.items():
        values = np.array(grids[name], dtype=object if chosen[name] == "category" else float)
        stacked.loc[part.start * count : part.stop * count - 1, name] = np.repeat(values, count)
    given = model_file.predict(pipeline, stacked, task)
    columns = _drawn(metrics.scores_of(given))
    predicted = given[columns].to_numpy(dtype=np.float64).reshape(points, count, len(columns))
    return [
        _curve(name, grids[name], columns, predicted[part], blocks[sample], confidence) for name, part in parts.items()
    ]


def _drawn(scores: pd.DataFrame) -> list[str]:
    """Of two classes the positive one, of an anomaly its score, of a number the number; of several labels each."""
    by_output: dict[str, list[str]] = {}
    for column in scores:
        by_output.setdefault(answer_columns.split(str(column))[0], []).append(str(column))
    drawn = []
    for output, columns in by_output.items():
        of_classes = [column for column in columns if answer_columns.split(column)[1].startswith("p_")]
        numbers = [answer_columns.column(output, name) if output else name for name in ("anomaly_score", "prediction")]
        drawn += of_classes[len(of_classes) == 2 :] or [next(name for name in numbers if name in columns)]
    return drawn


def _curve(name: str, grid: list[Any], columns: list[str], predicted: Floats, blocks: Ints, confidence: float) -> Curve:
    """`predicted` of shape (values, rows, columns) → means, and the interval of each about the curve's own level."""
    mean = predicted.mean(axis=1)
    level = mean.mean(axis=0)
    centred = predicted - predicted.mean(axis=0)
    shape = centred.transpose(1, 0, 2).reshape(len(blocks), -1)  # rows × (values · columns)
    drawn = metrics.bootstrap_means(shape, blocks, RESAMPLES, 0)
    limits = np.array([metrics.interval(column, confidence) for column in drawn.T]).reshape(*mean.shape, 2)
    return Curve(name, grid, columns, mean, limits[..., 0] + level, limits[..., 1] + level, len(blocks))


def _grid(values: pd.Series[Any], type_: str) -> list[Any]:
    present = values.dropna()
    if type_ == "category":
        counts = present.value_counts()
        ranked = sorted(zip(counts.index, counts, strict=True), key=lambda pair: (-pair[1], str(pair[0])))
        return [value for value, _ in ranked[:CATEGORIES]]
    distinct = np.unique(present.to_numpy(dtype=np.float64))
    if type_ == "integer" and len(distinct) <= 2 * POINTS:
        return [float(v) for v in distinct]
    if not len(distinct):
        return []
    # the outer hundredths are left out: a curve is drawn where there are rows
    steps = np.linspace(0.01, 0.99, POINTS)
    grid = np.unique(np.quantile(present, steps, method="inverted_cdf"))
    if len(grid) < POINTS / 2:  # nearly always the same value: then the others, each once
        grid = np.unique(np.append(grid, np.quantile(distinct[distinct <= grid[-1]], steps, method="inverted_cdf")))
    return [float(v) for v in grid]


def _sample(rows: int, wanted: int, rng: np.random.Generator) -> Ints:
    """Positions of some rows, in order."""
    size = min(rows, MOST_ROWS, max(wanted, FEWEST_ROWS))
    return np.sort(rng.choice(rows, size=size, replace=False))
