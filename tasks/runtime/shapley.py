"""Shapley values: which features moved one prediction, and by how much, for anything that predicts.

Sampled over permutations of the features against background rows (Štrumbelj and Kononenko, Knowledge and Information
Systems 41, 2014), each permutation forwards and backwards (Mitchell et al., JMLR 23, 2022). The base and all
contributions add up to the prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Explanation:
    """What one prediction is made of."""

    base: float
    """The mean prediction of the background rows."""
    prediction: float
    contributions: dict[str, float]
    """By feature. base + their sum is the prediction."""
    errors: dict[str, float]
    """Standard error of each contribution: they are sampled."""


def explain(
    predict: Callable[[dict[str, npt.NDArray[np.object_]]], Floats],
    row: Mapping[str, Any],
    background: Sequence[Mapping[str, Any]],
    seed: int = 0,
) -> Explanation:
    """Explain one row; asks for 2 · b · (k + 1) predictions at once, with b background rows and k features.

    Args:
        predict: columns (k arrays of n values) → n predictions.
        row: k features.
        background: rows that stand for what is usual.
        seed: of the permutations: the same row gets the same explanation.
    """
    names = list(row)
    walks = _walks(len(names), len(background), seed)
    steps_taken = np.tril(np.ones((len(names) + 1, len(names)), dtype=bool), -1)  # after step s, the first s features
    taken = np.zeros((len(walks), len(names) + 1, len(names)), dtype=bool)
    for walk, order in enumerate(walks):
        taken[walk][:, order] = steps_taken
    columns = {}
    for i, name in enumerate(names):
        usual = np.array([background_row[name] for background_row in background], dtype=object)
        column = np.repeat(np.tile(usual, len(walks) // len(background)), len(names) + 1)
        column[taken[:, :, i].ravel()] = row[name]
        columns[name] = column
    predictions = np.asarray(predict(columns), dtype=np.float64).reshape(len(walks), len(names) + 1)
    steps = np.diff(predictions, axis=1)
    moved = np.empty_like(steps)
    for walk, order in enumerate(walks):
        moved[walk, order] = steps[walk]
    pairs = moved.reshape(2, -1, len(names)).mean(axis=0)  # forwards and backwards from the same background row
    spread = pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else np.full(len(names), np.nan)
    return Explanation(
        float(predictions[:, 0].mean()),
        float(predictions[0, -1]),
        dict(zip(names, pairs.mean(axis=0).tolist(), strict=True)),
        dict(zip(names, spread.tolist(), strict=True)),
    )


def _walks(features: int, rows: int, seed: int) -> npt.NDArray[np.intp]:
    """A permutation per background row, then the same ones backwards."""
    chance = np.random.default_rng(seed)
    forwards = np.array([chance.permutation(features) for _ in range(rows)])
    return np.concatenate([forwards, forwards[:, ::-1]])
