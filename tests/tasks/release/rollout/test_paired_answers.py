"""How far answers move: beside what the gate knew, of two classes, of several, of values."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.release.gate.verdict import Moves
from tasks.release.rollout import shadow_replay
from tasks.release.rollout.paired_answers import Pairs, exceed_by_chance
from tasks.release.rollout.router_client import Reply
from tests.tasks.release.fake_router import FEATURES, limits


def moved(near: int, far: int, task: str = "classification") -> Pairs:
    """So many rows that move by 0.3, and so many by 0.8."""
    pairs = Pairs(task, FEATURES)
    for number in range(near + far):
        after = 0.4 if number < near else 0.9
        answers = [{"probability": p, "probabilities": {"0": 1 - p, "1": p}} for p in (0.1, after)]
        pairs.add_pairs([{"temp": float(number)}], answers[:1], answers[1:])
    return pairs


def test_a_better_release_moves_answers_as_the_gate_knew() -> None:
    """Nothing is a matter of the average: a client that asks only for rows that move far alarms nobody."""
    known = Moves(rows=5000, mean=0.02, most=0.31)
    check = moved(300, 0).check(known, limits(), 0.0001)
    assert check.passed
    assert "0 of 300 different rows move further than any of the 5,000 that the gate saw (0.31)" in check.reason
    assert "on average they move by 0.3, expected 0.02" in check.reason
    assert not moved(300, 0).check(None, limits(), 0.0001).passed  # which nobody knew of


def test_what_the_gate_did_not_know_alarms() -> None:
    """Beyond a share and beyond chance, of different rows: one that is asked a thousand times is one."""
    known = Moves(rows=5000, mean=0.02, most=0.31)
    assert moved(285, 15).check(known, limits(), 0.0001).passed
    assert not moved(284, 16).check(known, limits(), 0.0001).passed
    assert moved(284, 16).check(Moves(20, 0.02, 0.31), limits(), 0.0001).passed  # of 20 rows nobody knows that
    again = moved(60, 1)
    for _ in range(1000):
        again.add_pairs(again.rows[-1:], [{"probability": 0.1, "probabilities": {"1": 0.1}}], again.answers[-1:])
    assert again.check(known, limits(), 0.0001).passed
    assert "not judged: 41 different rows, from 50 on" in moved(0, 41).check(known, limits(), 0.0001).reason


def test_that_rows_lie_above_all_known_ones_is_counted_out() -> None:
    """One of n above m: n in n + m; and as often as drawn."""
    assert exceed_by_chance(0, 50, 1000) == 1
    assert exceed_by_chance(1, 50, 1000) == pytest.approx(50 / 1050)
    draw = np.random.default_rng(0)
    drawn = draw.random((4000, 60))
    above = (drawn[:, :20] > drawn[:, 20:].max(axis=1, keepdims=True)).sum(axis=1)
    assert np.mean(above >= 2) == pytest.approx(exceed_by_chance(2, 20, 40), abs=0.02)


def test_several_classes_move_by_half_the_sum_of_differences() -> None:
    """Which for two classes is the difference of either."""
    replayed = shadow_replay.Replayed(planned=1, task="classification")
    old = {"prediction": "a", "probabilities": {"a": 0.6, "b": 0.3, "c": 0.1}}
    new = {"prediction": "b", "probabilities": {"a": 0.2, "b": 0.7, "c": 0.1}}
    replayed.add([{}], Reply(200, {"predictions": [old]}, 1.0), Reply(200, {"predictions": [new]}, 1.0))
    assert replayed.moved == pytest.approx(0.4)
    assert (replayed.live, replayed.candidate) == ([0.6], [0.2])


def test_values_move_relative_to_the_champions_mean() -> None:
    """So that the limit does not depend on the unit."""
    replayed = shadow_replay.Replayed(planned=2, task="regression")
    for was, becomes in ((10.0, 12.0), (30.0, 28.0)):
        bodies = [{"predictions": [{"prediction": value}]} for value in (was, becomes)]
        replayed.add([{}], Reply(200, bodies[0], 1.0), Reply(200, bodies[1], 1.0))
    assert replayed.moved == pytest.approx(2 / 20)
