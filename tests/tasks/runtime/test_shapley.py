"""Shapley values by sampling, held against their definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.runtime import shapley

Columns = dict[str, npt.NDArray[np.object_]]

ROW = {"a": 2.0, "b": -1.0, "c": 0.5, "d": 3.0}
CHANCE = np.random.default_rng(7)
BACKGROUND = [{name: float(CHANCE.normal()) for name in ROW} for _ in range(12)]


def numbers(columns: Columns) -> dict[str, npt.NDArray[np.float64]]:
    """The columns to calculate with."""
    return {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}


def additive(columns: Columns) -> npt.NDArray[np.float64]:
    """No feature minds another."""
    x = numbers(columns)
    return 3 * x["a"] - x["b"] ** 2 + np.sin(x["c"]) + 0 * x["d"]


def in_pairs(columns: Columns) -> npt.NDArray[np.float64]:
    """Features mind each other two by two."""
    x = numbers(columns)
    return additive(columns) + 2 * x["a"] * x["b"] - x["c"] * x["d"]


def in_threes(columns: Columns) -> npt.NDArray[np.float64]:
    """And three by three."""
    x = numbers(columns)
    return in_pairs(columns) + x["a"] * x["b"] * x["c"]


def by_definition(predict: Callable[[Columns], Any], background: list[dict[str, float]]) -> dict[str, float]:
    """All permutations of all features, against all background rows."""
    found = dict.fromkeys(ROW, 0.0)
    for usual in background:
        for order in itertools.permutations(ROW):
            known = dict(usual)
            for name in order:
                before = one(predict, known)
                known[name] = ROW[name]
                found[name] += one(predict, known) - before
    return {name: sum_ / len(background) / math.factorial(len(ROW)) for name, sum_ in found.items()}


def one(predict: Callable[[Columns], Any], row: dict[str, float]) -> float:
    """What is predicted of one row."""
    return float(predict({name: np.array([value], dtype=object) for name, value in row.items()})[0])


@pytest.mark.parametrize("predict", [additive, in_pairs])
def test_where_features_mind_each_other_at_most_two_by_two_it_is_exact(predict: Any) -> None:
    """A permutation and its reverse together see each pair in both orders."""
    found = shapley.explain(predict, ROW, BACKGROUND)
    assert found.contributions == pytest.approx(by_definition(predict, BACKGROUND), abs=1e-12)


def test_elsewhere_it_is_right_within_the_error_that_it_states() -> None:
    """On an often repeated background, so that the error is of the permutations; and it is none to hide behind."""
    exact = by_definition(in_threes, BACKGROUND)
    found = shapley.explain(in_threes, ROW, BACKGROUND * 200)
    assert found.contributions.keys() == exact.keys()
    for name, value in exact.items():
        assert abs(found.contributions[name] - value) < 4 * found.errors[name] + 1e-12
        assert found.errors[name] < 0.1


def test_more_background_makes_the_error_smaller() -> None:
    """As the root of the number of permutations."""
    few, many = (shapley.explain(in_threes, ROW, BACKGROUND * times).errors for times in (4, 64))
    assert all(many[name] < few[name] / 3 for name in ("a", "b", "c"))


def test_a_feature_that_the_model_ignores_moved_nothing() -> None:
    """Exactly nothing, without an error."""
    found = shapley.explain(additive, ROW, BACKGROUND)
    assert found.contributions["d"] == 0
    assert found.errors["d"] == 0


def test_the_base_is_what_the_background_gets_and_everything_adds_up() -> None:
    """Whoever sums the bars ends at the prediction."""
    found = shapley.explain(in_threes, ROW, BACKGROUND)
    assert found.base == pytest.approx(np.mean([one(in_threes, usual) for usual in BACKGROUND]))
    assert found.prediction == one(in_threes, ROW)
    assert found.base + sum(found.contributions.values()) == pytest.approx(found.prediction, rel=1e-12)


def test_the_same_row_gets_the_same_answer_and_another_seed_another() -> None:
    """An explanation that changes from look to look explains nothing."""
    assert shapley.explain(in_threes, ROW, BACKGROUND) == shapley.explain(in_threes, ROW, BACKGROUND)
    assert shapley.explain(in_threes, ROW, BACKGROUND) != shapley.explain(in_threes, ROW, BACKGROUND, seed=1)


def test_one_background_row_gives_no_error_and_says_so() -> None:
    """One permutation tells nothing of the spread."""
    found = shapley.explain(in_threes, ROW, BACKGROUND[:1])
    assert all(math.isnan(error) for error in found.errors.values())
    assert found.base + sum(found.contributions.values()) == pytest.approx(found.prediction)


def test_text_and_missing_values_go_to_the_model_as_they_are() -> None:
    """Nothing is converted on the way."""
    seen: list[Any] = []

    def predict(columns: Columns) -> npt.NDArray[np.float64]:
        seen.extend(columns["carrier"])
        return np.array([len(value or "") for value in columns["carrier"]], dtype=np.float64)

    found = shapley.explain(predict, {"carrier": "UA", "wind": None}, [{"carrier": None, "wind": 1.0}] * 3)
    assert set(seen) == {"UA", None}
    assert found.contributions == {"carrier": 2.0, "wind": 0.0}


def test_it_is_asked_once_for_as_many_rows_as_it_says() -> None:
    """2 · b · (k + 1): one batch."""
    asked = []

    def predict(columns: Columns) -> npt.NDArray[np.float64]:
        asked.append({len(column) for column in columns.values()})
        return additive(columns)

    shapley.explain(predict, ROW, BACKGROUND)
    assert asked == [{2 * 12 * 5}]


@settings(max_examples=60, deadline=None)
@given(
    row=st.fixed_dictionaries({name: st.floats(-100, 100) for name in "abcd"}),
    weights=st.lists(st.floats(-5, 5), min_size=16, max_size=16),
    seed=st.integers(0, 2**31),
)
def test_whatever_the_model_it_adds_up_and_nothing_gets_what_it_did_not_do(row: Any, weights: Any, seed: int) -> None:
    """Any function of three of four features, with every interaction between them."""

    def predict(columns: Columns) -> npt.NDArray[np.float64]:
        x = numbers(columns)
        said = np.zeros(len(x["a"]))
        for weight, (i, j, k) in zip(weights, itertools.product([0, 1], repeat=3), strict=False):
            said += weight * x["a"] ** i * x["b"] ** j * x["c"] ** k
        return said

    found = shapley.explain(predict, row, BACKGROUND, seed)
    scale = 1 + max(abs(one(predict, row)), abs(found.base), *(abs(moved) for moved in found.contributions.values()))
    assert abs(found.base + sum(found.contributions.values()) - found.prediction) <= 1e-9 * scale
    assert abs(found.contributions["d"]) <= 1e-9 * scale


def test_a_wide_row_is_explained_in_chunks_and_by_its_players() -> None:
    """784 columns of two players; no more than CELLS values are asked for at once, and nothing else changes."""
    names = [f"p{i}" for i in range(784)]
    row, background = dict.fromkeys(names, 1.0), [dict.fromkeys(names, float(i % 3)) for i in range(64)]
    players = {"left": names[:300], "right": names[300:]}
    asked: list[int] = []

    def predict(columns: Columns) -> npt.NDArray[np.float64]:
        asked.append(len(columns) * len(columns["p0"]))
        return np.asarray(3 * columns["p0"] + columns["p783"] * columns["p0"], dtype=np.float64)

    found = shapley.explain(predict, row, background, players=players)
    assert list(found.contributions) == ["left", "right"]
    assert max(asked) <= shapley.CELLS
    assert found.base + sum(found.contributions.values()) == pytest.approx(found.prediction)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapley, "CELLS", 10_000)
        assert shapley.explain(predict, row, background, players=players) == found
    assert len(asked) > 10


def test_a_very_wide_row_is_explained_by_fewer_background_rows() -> None:
    """So that the time has a limit; what is explained still adds up."""
    names = [f"p{i}" for i in range(20_000)]
    row, background = dict.fromkeys(names, 1.0), [dict.fromkeys(names, float(i % 3)) for i in range(64)]
    asked: list[int] = []

    def predict(columns: Columns) -> npt.NDArray[np.float64]:
        asked.append(len(columns) * len(columns["p0"]))
        return np.asarray(3.0 * columns["p0"], dtype=np.float64)

    players = {str(part): names[part::50] for part in range(50)}
    found = shapley.explain(predict, row, background, players=players)
    assert sum(asked) <= shapley.WIDEST
    assert found.base + sum(found.contributions.values()) == pytest.approx(found.prediction)
