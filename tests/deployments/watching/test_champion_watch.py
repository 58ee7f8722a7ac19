"""The look for promotions that nobody tells of."""

from __future__ import annotations

import pytest

from deployments.watching import champion_watch
from deployments.watching.champion_watch import ChampionWatch
from flows.prefect_support import api, triggers
from tasks.ground import params
from tasks.ground.errors import WorldError
from tests.conftest import Project


@pytest.fixture
def triggered(small: Project, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is triggered, instead of a Prefect server."""
    told: list[str] = []

    def trigger(title: str) -> str:
        told.append(title)
        return f"run-{len(told)}"

    monkeypatch.setattr(triggers, "trigger", trigger)
    return told


def says(monkeypatch: pytest.MonkeyPatch, change: tuple[str, str | None] | None) -> None:
    """Who is champion, and who serves."""
    monkeypatch.setattr(champion_watch.champion_lookup, "pending_change", lambda _: change)


def test_a_champion_that_does_not_serve_triggers_rollout(triggered: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """At once; who comes next, and who comes back, are news."""
    looking, said = ChampionWatch(lambda _: False, lambda: 0.0), params.load()
    says(monkeypatch, ("new", "old"))
    lines = [line for _ in range(3) for line in looking.look(said)]
    assert lines == [f"new is champion of tiny and does not serve: rollout/tiny is triggered, {api.run_url('run-1')}"]
    assert triggered == ["rollout/tiny"]
    for change in (None, ("old", "new"), ("newest", "new")):
        says(monkeypatch, change)
        list(looking.look(said))
    assert len(triggered) == 3


def test_as_long_as_it_does_not_serve_rollout_is_triggered_again(
    triggered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may end without its end, as one that did not meet the router; ever more seldom, and it is said."""
    now = [0.0]
    looking, said = ChampionWatch(lambda _: False, lambda: now[0]), params.load()
    says(monkeypatch, ("new", "old"))
    moments, lines = [], []
    for second in range(0, 1000, 5):
        now[0] = float(second)
        if more := list(looking.look(said)):
            moments.append(second)
            lines += more
    assert moments == [0, 5, 20, 80, 380, 680, 980]
    again = "new is champion of tiny and does not serve: rollout/tiny is triggered again"
    assert lines[1] == f"{again}, {api.run_url('run-2')}"


@pytest.mark.usefixtures("small")
def test_a_trigger_that_nobody_received_is_no_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deployment is not registered yet: this is said, and it is triggered as soon as it is."""
    answers: list[str | None] = [None, None, "run"]
    monkeypatch.setattr(triggers, "trigger", lambda _: answers.pop(0))
    looking, said = ChampionWatch(lambda _: False, lambda: 0.0), params.load()
    says(monkeypatch, ("new", None))
    for _ in range(2):
        with pytest.raises(WorldError, match=r"^new is champion of tiny and does not serve: .* no rollout/tiny yet"):
            list(looking.look(said))
    assert list(looking.look(said)) == [
        f"new is champion of tiny and does not serve: rollout/tiny is triggered, {api.run_url('run')}"
    ]
    assert list(looking.look(said)) == []


def test_a_run_that_is_under_way_is_not_joined_by_another(
    triggered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks again itself; where it has looked already, this one does afterwards."""
    busy = [True]
    looking, said = ChampionWatch(lambda title: busy[0] and title == "rollout/tiny"), params.load()
    says(monkeypatch, ("new", "old"))
    assert list(looking.look(said)) == []
    busy[0] = False
    assert len(list(looking.look(said))) == 1
