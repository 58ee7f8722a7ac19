"""A canary's checks, by what the router counts of it and of the live release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.release.rollout import canary
from tasks.release.rollout.paired_answers import Pairs
from tasks.release.rollout.router_status import Latency, ReleaseStatus
from tasks.release.rollout.served_answers import OwnAnswers
from tests.tasks.release.fake_router import EDGES_MS, MODEL, limits


def said(answered: int = 0, errors: int = 0, refused: int = 0, **more: Any) -> ReleaseStatus:
    """What /status says of a release."""
    latency = Latency(edges_ms=EDGES_MS, counts=more.pop("latency", [0] * 81))
    counts = {"answered": answered, "errors": errors, "refused": refused, "pids": [7]} | more
    return ReleaseStatus(state="ready", latency=latency, **counts)


def watched(canary_said: ReleaseStatus, live_said: ReleaseStatus) -> canary.Watch:
    """A watch that saw this of both."""
    watch = canary.Watch(OwnAnswers(MODEL, Path()), Pairs("classification"))
    for side, looked in ((watch.canary, canary_said), (watch.live, live_said)):
        side.look(said(), 1)
        side.look(looked, 1)
    return watch


def failed(watch: canary.Watch, **rules: Any) -> list[str]:
    """The names of the checks that do not hold."""
    return [check.name for check in watch.judge(limits(bake_s=20, **rules)) if not check.passed]


def test_counters_are_taken_from_the_first_look_on_and_survive_another_router() -> None:
    """What was before the canary is not its doing; a router that was killed counts from 0 again."""
    counted = canary.Counters()
    for looked, router in ((said(100, 5), 1), (said(110, 5), 1), (said(4, 1), 2), (said(6, 1), 2)):
        counted.look(looked, router)
    assert (counted.answered, counted.errors) == (10 + 4 + 2, 0 + 1)


def test_a_canary_answers_for_what_fails_with_it_alone() -> None:
    """A client whose requests are wrong may meet the canary each time; the live release fails at them as well."""
    assert not failed(watched(said(10, errors=3, refused=300), said(3000)))
    assert failed(watched(said(10, errors=3, refused=300, failed_alone=1), said(3000))) == ["errors"]
    assert not failed(watched(said(10, errors=3, refused=300, failed_alone=1), said(3000)), canary_errors=1)


@pytest.mark.parametrize(("sick", "why"), [({"late": 3, "errors": 3}, "3 of 13 requests got no answer in time")])
def test_a_machine_that_stands_still_is_not_held_against_a_canary(sick: dict[str, int], why: str) -> None:
    """Then the live release is late as well."""
    watch = watched(said(10, **sick), said(400))
    assert [check.reason for check in watch.judge(limits()) if not check.passed] == [why]
    assert not failed(watched(said(10, **sick), said(400, **sick)))


def test_a_process_that_died_beside_one_of_the_live_release_is_forgiven() -> None:
    """Somebody kills them all."""
    assert failed(watched(said(10, pids=[8]), said(400))) == ["runs"]
    assert not failed(watched(said(10, pids=[8]), said(400, pids=[9])))


def test_a_canary_that_stops_answering_is_not_done() -> None:
    """It answered well before: what it owes at the end of the bake is waited for, and is told."""
    watch = watched(said(100, waiting=0), said(900))
    assert not watch.canary.is_owing
    watch.canary.look(said(100, waiting=2), 1)
    assert watch.canary.is_owing
    watch.seconds = 26.0
    assert [check.reason for check in watch.judge(limits(bake_s=20)) if not check.passed] == [
        "it owes 2 answers at the end of its watch, after 26 s"
    ]
    watch.canary.look(said(101, waiting=2), 1)
    assert not watch.canary.is_owing


def latency(fast: int, slow: int) -> list[int]:
    """So many answers of 2 ms, and so many of a second."""
    counts = [0] * 81
    counts[10], counts[55] = fast, slow
    return counts


def test_slowness_is_more_than_chance_and_more_than_that_of_the_live_release() -> None:
    """A machine that stood still for half a second made both slow."""
    assert failed(watched(said(latency=latency(280, 20)), said(latency=latency(2700, 0)))) == ["latency p99"]
    assert not failed(watched(said(latency=latency(298, 2)), said(latency=latency(2700, 0))))
    assert not failed(watched(said(latency=latency(280, 20)), said(latency=latency(2580, 120))))
    assert not failed(watched(said(latency=latency(0, 20)), said(latency=latency(20, 0))))  # too few to judge by
