"""The landing watcher, without a server: what it sees, and when it triggers ingest."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deployments.watching import watcher
from flows.prefect_support import triggers
from tasks.ground import params
from tests.conftest import Project


@dataclass
class World:
    """A landing zone, a clock, and whether an ingest is under way."""

    landing: Path
    now: float = 0.0
    under_way: bool = False
    triggered: int = 0
    said: list[str] = field(default_factory=list)

    def land(self, name: str, text: str = "x") -> None:
        """Put a file into the landing zone."""
        path = self.landing / "readings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def trigger(self, title: str) -> str:
        """Stands for the server."""
        assert title == "ingest/ingest"
        self.triggered += 1
        return "id"


@pytest.fixture
def world(small: Project, monkeypatch: pytest.MonkeyPatch) -> World:
    """An empty landing zone, and a server that is not there."""
    world = World(small.root / "var/landing")
    monkeypatch.setattr(watcher, "under_way", lambda _: world.under_way)
    monkeypatch.setattr(triggers, "trigger", world.trigger)
    return world


@pytest.fixture
def running(world: World) -> watcher.LandingWatch:
    """A watcher that has just started."""
    return watcher.LandingWatch(lambda: world.now)


def look(running: watcher.LandingWatch, world: World) -> int:
    """Look once; gives how often ingest was triggered so far."""
    world.said += running.look(params.load())
    return world.triggered


def test_it_triggers_ingest_for_what_lies_there_and_for_nothing_else(
    running: watcher.LandingWatch, world: World
) -> None:
    """Not for an empty zone, nor for a file that is still being written."""
    assert look(running, world) == 0
    world.land("2013-04.csv.tmp")
    assert look(running, world) == 0
    world.land("2013-04.csv")
    assert look(running, world) == 1
    assert world.said[0].startswith("readings/2013-04.csv in the landing zone: ingest is triggered, ")


def test_it_waits_for_an_ingest_that_is_under_way(running: watcher.LandingWatch, world: World) -> None:
    """That may have looked before the file came: so it looks again afterwards."""
    world.land("2013-04.csv")
    world.under_way = True
    assert look(running, world) == 0
    world.under_way = False
    assert look(running, world) == 1


def test_what_an_ingest_has_left_there_is_tried_ever_more_seldom(running: watcher.LandingWatch, world: World) -> None:
    """After 5, 15, 60 and then every 300 seconds; a new file at once."""
    world.land("2013-04.csv")
    moments = []
    for second in range(0, 1000, 5):
        world.now = float(second)
        before = world.triggered
        if look(running, world) > before:
            moments.append(second)
    assert moments == [0, 5, 20, 80, 380, 680, 980]
    world.land("2013-05.csv")
    assert look(running, world) == 8


def test_one_that_was_restarted_triggers_for_what_lies_there(running: watcher.LandingWatch, world: World) -> None:
    """What it did before it was killed is not remembered, and need not be."""
    world.land("2013-04.csv")
    assert look(running, world) == 1
    assert look(watcher.LandingWatch(lambda: world.now), world) == 2


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is mounted later: from then on its changes are seen."""
    monkeypatch.setattr(watcher, "FOLDER_SECONDS", 0.2)
    pause = watcher._on_changes(tmp_path / "mounted later")
    assert pause() is None
    (tmp_path / "mounted later").mkdir()
    assert pause() == set()  # nothing happened for a while
    (tmp_path / "mounted later" / "2013-04.csv").write_text("x")
    assert any(pause() for _ in range(100))


def test_a_look_that_a_full_disk_stops_keeps_no_other_from_its_own() -> None:
    """It is told once, and looked at again."""
    said, done = [], []

    def stopped() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    rounds = watcher.PollingLoop({"champions": (stopped, 0), "runs": (lambda: done.append("looked"), 0)}, said.append)
    rounds.poll()
    rounds.poll()
    assert said == ["OSError: [Errno 28] No space left on device"]
    assert done == ["looked", "looked"]
