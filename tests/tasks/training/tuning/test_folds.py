"""Folds of training rows: whole days, whole groups, or drawn by the row's id."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.ground.errors import ModelCodeError
from tasks.ground.params import TuneFolds
from tasks.training.origins import Asked
from tasks.training.tuning import folds


def table(count: int = 600) -> pd.DataFrame:
    """Rows over sixty days, of thirty groups."""
    draw = np.random.default_rng(0)
    time = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.sort(draw.integers(0, 60 * 24, count)), unit="h")
    return pd.DataFrame(
        {"time": time, "label": (draw.random(count) < 0.1).astype(int), "id": [f"r{n}" for n in range(count)],
         "shop": draw.integers(0, 30, count).astype(str)}
    )  # fmt: skip


ROWS = table()


def test_by_time_days_are_answered_by_what_came_before() -> None:
    """Expanding; no day is on both sides."""
    made = folds.make(ROWS, TuneFolds(count=4), split_by_time=True, labels=2)
    assert len(made) == 4
    for fold in made:
        assert ROWS["time"].iloc[fold.learn].max().normalize() < ROWS["time"].iloc[fold.answer].min().normalize()
    assert [len(fold.learn) for fold in made] == sorted(len(fold.learn) for fold in made)


def test_a_forecast_learns_what_was_known_when_it_was_asked() -> None:
    """Seven days ahead: seven days less are learned."""
    asked = Asked(horizon=7, season=7, step="1D", series=[], known_ahead=[])
    for fold in folds.make(ROWS, TuneFolds(), split_by_time=True, labels=2, asked=asked):
        gap = ROWS["time"].iloc[fold.answer].min() - ROWS["time"].iloc[fold.learn].max()
        assert gap >= pd.Timedelta("7D")


def test_a_group_is_on_one_side() -> None:
    """And folds are of about the same size."""
    made = folds.make(ROWS, TuneFolds(by="group", column="shop"), split_by_time=True, labels=2)
    for fold in made:
        assert not {*ROWS["shop"].iloc[fold.learn]} & {*ROWS["shop"].iloc[fold.answer]}
    sizes = [len(fold.answer) for fold in made]
    assert sum(sizes) == len(ROWS)
    assert max(sizes) < 1.2 * min(sizes)


def test_at_random_each_fold_has_as_many_of_each_class_whatever_the_order_of_rows() -> None:
    """By the row's id."""
    made = folds.make(ROWS, TuneFolds(count=5), split_by_time=False, labels=2)
    positives = [int(ROWS["label"].iloc[fold.answer].sum()) for fold in made]
    assert max(positives) - min(positives) <= 1
    turned = ROWS.iloc[::-1].reset_index(drop=True)
    again = folds.make(turned, TuneFolds(count=5), split_by_time=False, labels=2)
    for fold, other in zip(made, again, strict=True):
        assert {*ROWS["id"].iloc[fold.answer]} == {*turned["id"].iloc[other.answer]}


@pytest.mark.parametrize(
    ("rows", "wanted", "says"),
    [
        (ROWS.assign(time=pd.NaT), TuneFolds(by="time"), "write by: random"),
        (ROWS.assign(shop="one"), TuneFolds(by="group", column="shop"), "of 1 folds by group, 0 can be learned"),
        (ROWS.assign(label=0), TuneFolds(), r"0 can be learned from \(2 different labels"),
    ],
)
def test_rows_that_cannot_be_divided_are_refused(rows: pd.DataFrame, wanted: TuneFolds, says: str) -> None:
    """With what to write instead."""
    with pytest.raises(ModelCodeError, match=says):
        folds.make(rows, wanted, split_by_time=True, labels=2)
