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


CELLS = 1_000_000
"""Values of which predictions are asked at once: so much memory times eight, and what the pipeline makes of it."""

WIDEST, FEWEST = 8_000_000, 2
"""Of so many values predictions are asked altogether: with 64 players and more than 960 columns of fewer background
rows, spread evenly, but of so many at least. The error that is stated grows."""


@dataclass(frozen=True)
class Explanation:
    """What one prediction is made of."""

    base: float
    """The mean prediction of the background rows."""
    prediction: float
    contributions: dict[str, float]
    """By player. base + their sum is the prediction."""
    errors: dict[str, float]
    """Standard error of each contribution: they are sampled."""


def explain(
    predict: Callable[[dict[str, Any]], Floats],
    row: Mapping[str, Any],
    background: Sequence[Mapping[str, Any]],
    seed: int = 0,
    players: Mapping[str, Sequence[str]] | None = None,
) -> Explanation:
    """Explain one row; asks for 2 · b · (k + 1) predictions, with b background rows and k players.

    Args:
        predict: columns (arrays of n values) → n predictions. It is asked for no more than CELLS values at once.
        row: column → value.
        background: rows that stand for what is usual.
        seed: of the permutations: the same row gets the same explanation.
        players: what contributes, with its columns; without it, each column by itself.
    """
    players = players or {name: [name] for name in row}
    names = list(players)
    most = max(FEWEST, WIDEST // (2 * (len(names) + 1) * len(row)))
    background = background[:: -(-len(background) // most)]
    walks = _walks(len(names), len(background), seed)
    values = {name: _typed([usual[name] for usual in background], row[name]) for name in row}
    at_once = max(1, CELLS // ((len(names) + 1) * len(row)))
    predictions = np.concatenate(
        [
            _predictions(predict, players, values, walks[begin : begin + at_once], begin)
            for begin in range(0, len(walks), at_once)
        ]
    )
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


def _predictions(
    predict: Callable[[dict[str, Any]], Floats],
    players: Mapping[str, Sequence[str]],
    values: Mapping[str, npt.NDArray[Any]],
    walks: npt.NDArray[np.intp],
    first: int,
) -> Floats:
    """The predictions along some walks, of which one is the `first` of all: shape (walks, players + 1)."""
    count = len(players)
    steps_taken = np.tril(np.ones((count + 1, count), dtype=bool), -1)  # after step s, the first s players
    taken = np.zeros((len(walks), count + 1, count), dtype=bool)
    for walk, order in enumerate(walks):
        taken[walk][:, order] = steps_taken
    columns = {}
    for i, names in enumerate(players.values()):
        is_taken = taken[:, :, i].ravel()
        for name in names:
            usual, own = values[name][:-1], values[name][-1]
            column = np.repeat(usual[np.arange(first, first + len(walks)) % len(usual)], count + 1)
            column[is_taken] = own
            columns[name] = column
    return np.asarray(predict({name: columns[name] for name in values}), dtype=np.float64).reshape(len(walks), -1)


def _typed(usual: list[Any], own: Any) -> npt.NDArray[Any]:
    """The background's values and the row's own: as float64 where all are numbers, or else as they are."""
    every = [*usual, own]
    kinds = {type(value) for value in every} - {type(None)}
    if kinds and kinds <= {int, float, bool}:
        return np.array(every, dtype=np.float64)
    values = np.empty(len(every), dtype=object)
    values[:] = every
    return values


def _walks(features: int, rows: int, seed: int) -> npt.NDArray[np.intp]:
    """A permutation per background row, then the same ones backwards."""
    chance = np.random.default_rng(seed)
    forwards = np.array([chance.permutation(features) for _ in range(rows)])
    return np.concatenate([forwards, forwards[:, ::-1]])
