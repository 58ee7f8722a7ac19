"""The look for promotions that nobody tells of."""

from __future__ import annotations

import pytest

from deployments import promotions
from deployments.promotions import Promotions
from flows import api, wakes
from tasks import params
from tests.conftest import Project


@pytest.fixture
def woken(small: Project, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is woken, instead of a Prefect server."""
    told: list[str] = []

    def wake(title: str) -> str:
        told.append(title)
        return f"run-{len(told)}"

    monkeypatch.setattr(wakes, "wake", wake)
    return told


def says(monkeypatch: pytest.MonkeyPatch, change: tuple[str, str | None] | None) -> None:
    """Who is champion, and who serves."""
    monkeypatch.setattr(promotions.champion, "change", lambda _: change)


def test_a_champion_that_does_not_serve_wakes_deploy_once(woken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its schedule tries again what a run could not do; who comes next, and who comes back, are news."""
    looking, said = Promotions(lambda _: False), params.load()
    says(monkeypatch, ("new", "old"))
    lines = [line for _ in range(3) for line in looking.look(said)]
    assert lines == [f"new is champion of tiny: deploy/tiny is woken, {api.run_url('run-1')}"]
    assert woken == ["deploy/tiny"]
    for change in (None, ("old", "new"), ("newest", "new")):
        says(monkeypatch, change)
        list(looking.look(said))
    assert len(woken) == 3


def test_a_run_that_is_under_way_is_not_joined_by_another(woken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks again itself; where it has looked already, this one does afterwards."""
    busy = [True]
    looking, said = Promotions(lambda title: busy[0] and title == "deploy/tiny"), params.load()
    says(monkeypatch, ("new", "old"))
    assert list(looking.look(said)) == []
    busy[0] = False
    assert len(list(looking.look(said))) == 1
