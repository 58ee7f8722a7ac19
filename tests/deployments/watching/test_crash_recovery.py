"""Runs without a process, beside a real Prefect server: what is a crash, and what is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.watching import crash_recovery
from deployments.watching.crash_recovery import CrashRecovery
from flows.prefect_support import api, triggers
from tasks.ground import leases, process_tags, settings
from tasks.ground.errors import SourceUnavailable
from tests.deployments.alone import Alone, server
from tests.deployments.conftest import PATIENCE

pytestmark = pytest.mark.timeout(180 * PATIENCE)


@pytest.fixture(scope="module")
def alone(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """The small project, deployed; there is no worker."""
    with server(small_copied, tmp_path_factory.mktemp("mend") / "project") as alone:
        yield alone


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No grace, and no patience."""
    monkeypatch.setattr(crash_recovery, "GRACE_SECONDS", -60)
    monkeypatch.setattr(crash_recovery, "PAUSES", (-60, 3600))


@pytest.fixture
def start() -> Iterator[Callable[..., None]]:
    """Starts processes with these variables, which live as long as the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(**variables: str) -> None:
        command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
        process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout
        process.stdout.readline()  # from now on its environment is its own

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def run(state: str) -> str:
    """A run of monitor/tiny in a state; gives its id."""
    for other in runs():  # the one before is over
        api.call(f"/flow_runs/{other['id']}", method="DELETE")
    made = triggers.trigger("monitor/tiny")
    assert made
    for name in ("RUNNING", "CANCELLING") if state == "CANCELLING" else (state,):
        asked = {"state": {"type": name, "name": name.capitalize()}, "force": True}
        assert api.call(f"/flow_runs/{made}/set_state", asked)["status"] == "ACCEPT"
    return made


def runs() -> list[dict[str, Any]]:
    """The runs of monitor/tiny, those of the schedule apart."""
    which = {"flows": {"name": {"any_": ["monitor"]}}}
    return [one for one in api.call("/flow_runs/filter", which) if not one["auto_scheduled"]]


def state(flow_run: str) -> tuple[str, str]:
    """Type and name of a run's state."""
    found = api.call(f"/flow_runs/{flow_run}")["state"]
    return found["type"], found["name"]


def worker(start: Callable[..., None]) -> None:
    """A worker of this checkout."""
    start(**{process_tags.STACK: str(settings.ROOT), process_tags.SERVICE: "worker"})


@pytest.mark.usefixtures("alone")
def test_what_was_running_and_has_no_process_any_more_crashed(start: Callable[..., None]) -> None:
    """Seen twice; it is triggered again, once."""
    worker(start)
    made, recovery = run("RUNNING"), CrashRecovery()
    assert recovery.look() == []
    first, second = recovery.look()
    assert first.startswith("monitor/tiny was running, but its process is gone: crashed.")
    assert second.startswith("monitor/tiny crashed: triggered again")
    assert state(made) == ("CRASHED", "Crashed")
    assert recovery.look() == []
    assert len(runs()) == 2


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", ["PENDING", "RUNNING", "CANCELLING"])
def test_what_has_a_process_is_left_alone(start: Callable[..., None], name: str) -> None:
    """However long it takes."""
    made, recovery = run(name), CrashRecovery()
    start(**{crash_recovery.RUN_ID: made})
    assert [recovery.look() for _ in range(3)] == [[], [], []]
    assert state(made)[0] == name


@pytest.mark.usefixtures("alone")
def test_what_waits_for_its_process_did_not_crash(start: Callable[..., None]) -> None:
    """On a busy machine a worker takes a minute to start one; nobody is told, and nothing is started twice."""
    worker(start)
    time.sleep(crash_recovery.START_TOLERANCE.total_seconds())
    made, recovery = run("PENDING"), CrashRecovery()
    assert [recovery.look() for _ in range(3)] == [[], [], []]
    assert state(made) == ("PENDING", "Pending")
    assert len(runs()) == 1


@pytest.mark.usefixtures("alone")
def test_what_a_worker_that_is_gone_had_not_begun_waits_for_the_next(start: Callable[..., None]) -> None:
    """It is no crash either: the run is the same."""
    made, recovery = run("PENDING"), CrashRecovery()
    assert [recovery.look() for _ in range(3)] == [[], [], []]  # whether there will be one is not known yet
    worker(start)
    (line,) = recovery.look()
    assert line.startswith("monitor/tiny had not begun when its worker ended: it waits for another.")
    assert state(made) == ("SCHEDULED", "Interrupted")
    assert recovery.look() == []


@pytest.mark.usefixtures("alone")
def test_what_was_to_be_cancelled_is_cancelled() -> None:
    """Its worker was killed before it could say so. Nobody wants it to begin again."""
    made, recovery = run("CANCELLING"), CrashRecovery()
    assert recovery.look() == []
    (line,) = recovery.look()
    assert line.startswith("monitor/tiny was to be cancelled, and its process is gone: cancelled.")
    assert state(made) == ("CANCELLED", "Cancelled")
    assert recovery.look() == []
    assert len(runs()) == 1


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("PENDING", ("SCHEDULED", "Interrupted")),
        ("RUNNING", ("SCHEDULED", "Interrupted")),
        ("CANCELLING", ("CANCELLED", "Cancelled")),
    ],
)
def test_what_make_down_ends_goes_on_with_the_next_make_up(was: str, becomes: tuple[str, str]) -> None:
    """Unless somebody was about to cancel it."""
    made = run(was)
    assert crash_recovery.interrupt() == ["monitor/tiny"]
    assert state(made) == becomes


@pytest.mark.usefixtures("alone")
def test_a_paused_flow_is_not_begun_again_after_a_crash(start: Callable[..., None]) -> None:
    """Who paused it wants it to stand still."""
    worker(start)
    run("CRASHED")
    where = f"/deployments/{api.call('/deployments/name/monitor/tiny')['id']}"
    api.call(where, {"paused": True}, method="PATCH")
    assert CrashRecovery().look() == []
    api.call(where, {"paused": False}, method="PATCH")
    assert len(CrashRecovery().look()) == 1


def test_an_outage_of_the_leases_makes_no_run_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have all run out meanwhile: once the database is back, the holders are given time to renew them."""
    running = {"id": "elsewhere", "state": {"timestamp": "2020-01-01T00:00:00+00:00"}}
    monkeypatch.setattr(crash_recovery, "active_runs", lambda: [running])
    monkeypatch.setattr(crash_recovery, "_settle", lambda run, _: [f"settled {run['id']}"])
    monkeypatch.setattr(leases, "seconds", lambda: 0.5)
    recovery = CrashRecovery()
    monkeypatch.setattr(leases, "runs", _gone)
    with pytest.raises(SourceUnavailable):
        recovery.look()
    monkeypatch.setattr(leases, "runs", set)
    assert [line for _ in range(3) for line in recovery._settle_missing()] == []
    time.sleep(0.6)
    assert [line for _ in range(2) for line in recovery._settle_missing()] == ["settled elsewhere"]


def _gone() -> set[str]:
    raise SourceUnavailable("the database of the leases cannot be used")
