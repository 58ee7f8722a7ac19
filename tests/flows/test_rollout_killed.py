"""The flow rollout killed before and after each of its writes, beside a fake router; without Prefect around it.

A process that is dead writes nothing more: from the kill on, every write dies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from flows import rollout
from flows.prefect_support import events
from tasks.ground import files, http, paths, settings
from tasks.journal import journal
from tasks.release.package import package
from tasks.release.registry import champion_lookup, desired_state, promotions, verdict_records
from tasks.release.registry.desired_state import DesiredState, ReleaseRef
from tasks.release.rollout import report, router_client, stages
from tests.conftest import Project
from tests.tasks.release.fake_router import NEW, OLD, Behaviour, FakeRouter, running

MODEL = "tiny"

WRITES = [
    (desired_state, "write"),
    (desired_state, "note"),
    (desired_state, "begin_withdrawal"),
    (desired_state, "end_withdrawal"),
    (promotions, "withdraw"),
    (events, "withdrawn"),
    (rollout, "create_markdown_artifact"),
]


class Killed(BaseException):
    """The process died here."""


class World:
    """A registry with a champion of its own, and what was told."""

    def __init__(self) -> None:
        self.champion, self.withdrawn, self.told, self.pages = NEW, dict[int, str](), list[str](), list[str]()

    def withdraw(self, _: str, version: int, reason: str, serves: str | None) -> None:
        """As promotions.withdraw, whose own kills are tried in tests/tasks/release/registry/test_registry.py."""
        self.withdrawn[version] = reason
        if self.champion == NEW:
            assert serves == OLD.candidate
            self.champion = OLD


@pytest.fixture
def world(small: Project, monkeypatch: pytest.MonkeyPatch) -> World:
    """OLD serves, NEW is champion; steps are called as they are."""
    world = World()

    def plain(step: Callable[..., Any], name: str, retries: int = 0) -> Callable[..., Any]:
        def call(*given: Any, return_state: bool = False, **named: Any) -> Any:
            return step(*given, **named)

        return call

    monkeypatch.setattr(rollout, "as_task", plain)
    monkeypatch.setattr(rollout, "exclusive", files.lock)
    monkeypatch.setattr(rollout, "get_run_logger", lambda: logging.getLogger("rollout"))
    monkeypatch.setattr(rollout, "create_markdown_artifact", lambda **said: world.pages.append(said["markdown"]))
    monkeypatch.setattr(events, "withdrawn", lambda model, failed, said: world.told.append(said))
    monkeypatch.setattr(promotions, "withdraw", world.withdraw)
    monkeypatch.setattr(verdict_records, "of_candidate", lambda *_: [])
    monkeypatch.setattr(stages, "RETRY_PAUSE_S", 0.1)
    monkeypatch.setattr(report, "picture", lambda _: None)  # which takes longer than all the rest
    monkeypatch.setattr(champion_lookup, "champion", lambda _: world.champion)
    monkeypatch.setattr(stages, "champion_in_registry", lambda _: world.champion)
    monkeypatch.setattr(package, "stored", lambda *_: Path("there"))
    small.edit("params.yaml", "\n    serving:", "\n    rollout: {start_s: 1, bake_s: 0.2}\n    serving:")
    release = settings.VAR / "bentoml" / "bentos" / MODEL / NEW.candidate / "src"
    features = {"temp": {"type": "number"}}
    files.write_json(release / "release.json", {"name": MODEL, "task": "classification", "features": features})
    files.write_json(release / "candidate.json", {"candidate": NEW.candidate})
    rows = [{"id": "1", "row": {"temp": 20.0}, "predicted": {"p_0": 0.8, "p_1": 0.2}}]
    files.write_json(release / "golden.json", rows)
    return world


@contextmanager
def killed_at(k: int, after: bool) -> Iterator[list[str]]:
    """Die before, or after, the write with the number k, and at every one from then on; gives those that were begun."""
    begun: list[str] = []

    def dying(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def write(*given: Any, **named: Any) -> Any:
            begun.append(name)
            if len(begun) - 1 > k or (len(begun) - 1 == k and not after):
                raise Killed
            real(*given, **named)
            if len(begun) - 1 == k:
                raise Killed

        return write

    with pytest.MonkeyPatch.context() as patch:
        for where, name in WRITES:
            patch.setattr(where, name, dying(getattr(where, name), name))
        yield begun


def run(fake: FakeRouter, monkeypatch: pytest.MonkeyPatch) -> State[Any]:
    """The flow, as a new process would run it."""
    with running(fake) as port:
        monkeypatch.setenv("EVERGREEN_PORT", str(port))
        return rollout.rollout.fn(MODEL)


def deaths(fake: FakeRouter, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """From the same beginning, die before and after each write; at last live."""
    k, died = 0, True
    while died:
        for after in (False, True):
            world.__init__()  # type: ignore[misc]
            files.remove(settings.VAR / "journal")
            desired_state.write(MODEL, DesiredState(OLD))
            desired_state.note(MODEL, OLD, "live")
            with killed_at(k, after) as begun:
                try:
                    run(fake, monkeypatch)
                except Killed:
                    died = True
                else:
                    died = False
            now = desired_state.read(MODEL)
            assert now.live is not None  # whenever it is killed, somebody serves
            yield f"{'after' if after else 'before'} write {k}, {begun[min(k, len(begun) - 1)]}"
        k += 1


def test_a_rollout_killed_at_any_write_ends_right(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run brings the release to everything; it goes live once, and the former one is kept."""
    fake = FakeRouter(200, MODEL, old=Behaviour(), new=Behaviour())
    seen = []
    for where in deaths(fake, world, monkeypatch):
        seen.append(where)
        state = run(fake, monkeypatch)
        assert state.is_completed(), where
        now = desired_state.read(MODEL)
        assert now.live is not None
        assert now.previous is not None
        assert (now.live.candidate, now.previous.candidate, now.canary) == (NEW.candidate, OLD.candidate, None), where
        lives = [line["version"] for line in desired_state.history(MODEL) if line["outcome"] == "live"]
        assert lives == [1, 2], where
        assert not world.told
        assert run(fake, monkeypatch).message.startswith("nothing to do")
    assert len(seen) == 2 * 5 + 2  # challenger, canary, live, its line in the book, the page; and whole


@pytest.mark.parametrize("what", ["golden", "canary"])
def test_a_withdrawal_killed_at_any_write_ends_right(world: World, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Who served serves and is champion, somebody is told, and nothing is left; also when the tried one gets better."""
    answer = (lambda row: row["temp"] / 100 + 0.01) if what == "golden" else (lambda row: row["temp"] / 100)
    bad = Behaviour(answer=answer, fails=lambda _: what == "canary")
    fake = FakeRouter(400, MODEL, old=Behaviour(), new=bad)
    withdrawn = 0
    for where in deaths(fake, world, monkeypatch):
        begun = desired_state.unfinished(MODEL)
        state = run(fake, monkeypatch)
        now = desired_state.read(MODEL)
        assert now.live is not None
        assert (now.live.candidate, now.canary, now.share) == (OLD.candidate, None, None), where
        assert world.champion == OLD, where
        assert list(world.withdrawn) == [2], where
        assert world.told, where
        assert desired_state.unfinished(MODEL) is None
        withdrawn += state.name == "Withdrawn"
        if begun:
            assert world.withdrawn[2] == begun.why, where
        assert run(fake, monkeypatch).message.startswith("nothing to do"), where
    assert withdrawn > 6


def test_a_release_that_was_found_bad_is_not_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A withdrawal that was killed is ended without asking the release anything."""
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW).with_share(0.1))
    failed = desired_state.Failed(NEW.candidate, NEW.version, "it is slow", journal.now(), OLD.candidate)
    desired_state.begin_withdrawal(MODEL, failed)
    fake = FakeRouter(0, MODEL, old=Behaviour(), new=Behaviour())
    state = run(fake, monkeypatch)
    assert (state.name, world.champion) == ("Withdrawn", OLD)
    assert "it is slow" in state.message
    assert fake.releases[NEW.candidate].asked == 0
    assert "The run that tried it was killed before it reported more." in world.pages[-1]


def test_a_first_champion_that_fails_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No release was live, so none is."""
    monkeypatch.setattr(promotions, "withdraw", lambda *_: setattr(world, "champion", None))
    state = run(FakeRouter(0, MODEL, new=Behaviour(why="no such library")), monkeypatch)
    assert state.message.endswith("it does not start: no such library; no release is live")
    assert desired_state.read(MODEL) == DesiredState()
    assert (
        run(FakeRouter(0, MODEL, new=Behaviour()), monkeypatch).message == "tiny has no champion yet: nothing to serve"
    )


def test_a_registry_without_champion_takes_nothing_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost store must not end production; a canary that nobody wants is ended."""
    world.champion = None  # type: ignore[assignment]
    desired_state.write(MODEL, DesiredState(OLD, canary=NEW).with_share(0.1))
    state = run(FakeRouter(0, MODEL, old=Behaviour(), new=Behaviour()), monkeypatch)
    assert state.message.startswith("the registry names no champion; version 1 (0000000000000000) serves since")
    assert desired_state.read(MODEL) == DesiredState(OLD)


def test_who_is_live_and_does_not_run_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is rolled out, but the run fails: somebody is told."""
    world.champion = OLD
    desired_state.write(MODEL, DesiredState(OLD))
    state = run(FakeRouter(0, MODEL, old=Behaviour(why="ImportError: numpy")), monkeypatch)
    assert state.is_failed()
    assert state.message == "version 1 (0000000000000000) is to serve, but does not run: ImportError: numpy"


def test_another_challenger_that_was_left_is_cleared_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody was champion while a run was killed, and is not any more."""
    other = ReleaseRef("2" * 16, 3)
    desired_state.write(MODEL, DesiredState(OLD, canary=other).with_share(0.5))
    fake = FakeRouter(200, MODEL, old=Behaviour(), new=Behaviour())
    fake.releases[other.candidate] = Behaviour()
    assert run(fake, monkeypatch).is_completed()
    assert not any(seen.share for seen in fake.seen if seen.canary == other)


def test_another_champion_meanwhile_ends_a_rollout(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at before everything is given away: the run goes on with who is champion then."""
    live = stages.promote
    seen = []

    def and_somebody_decides(going: stages.ReleaseRollout) -> stages.StageResult:
        seen.append(going.release)
        world.champion = OLD
        return live(going)

    monkeypatch.setattr(stages, "promote", and_somebody_decides)
    desired_state.write(MODEL, DesiredState(OLD))
    state = run(FakeRouter(200, MODEL, old=Behaviour(), new=Behaviour()), monkeypatch)
    assert state.message.startswith("nothing to do: version 1")
    assert seen == [NEW]
    assert desired_state.read(MODEL) == DesiredState(OLD)


def test_a_model_that_params_yaml_lost_is_served_no_longer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever model's run sees it."""
    world.champion = OLD
    for model in (MODEL, "gone"):
        desired_state.write(model, DesiredState(OLD))
    run(FakeRouter(0, MODEL, old=Behaviour()), monkeypatch)
    assert not paths.desired_state("gone").exists()
    assert paths.desired_state(MODEL).exists()


def test_a_router_that_is_away_fails_the_run_and_nobody_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The challenger stays champion: the next run tries again."""
    desired_state.write(MODEL, DesiredState(OLD))
    monkeypatch.setenv("EVERGREEN_PORT", str(http.free_port()))
    with pytest.raises(router_client.RouterSilent, match="does not answer on"):
        rollout.rollout.fn(MODEL)
    assert world.champion == NEW
    assert not world.withdrawn
    assert run(FakeRouter(200, MODEL, old=Behaviour(), new=Behaviour()), monkeypatch).is_completed()
