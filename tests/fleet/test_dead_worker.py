"""A worker of another machine dies: whoever watches sees it by the lease of the run, and the run goes on elsewhere."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.watching import crash_recovery
from deployments.watching.crash_recovery import CrashRecovery
from flows.prefect_support import api, triggers
from tasks.ground import leases
from tests.conftest import REPOSITORY
from tests.deployments.alone import Alone, server
from tests.fleet.conftest import Database

pytestmark = [pytest.mark.slow, pytest.mark.group("team", "psycopg")]

ALIVE = """
import sys, time
from tasks.ground import leases
with leases.alive(sys.argv[1]):
    print(flush=True)
    time.sleep(99)
"""


@pytest.fixture(scope="module")
def alone(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """The small project, deployed; there is no worker here."""
    with server(small_copied, tmp_path_factory.mktemp("dead") / "project") as alone:
        yield alone


def state_of(run: str) -> str:
    """The state's name of a run."""
    return str(api.call(f"/flow_runs/{run}")["state"]["name"])


def test_a_run_lives_as_long_as_its_lease(alone: Alone, fleet: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is renewed the run is let alone; once its worker is dead it has crashed, and is triggered again."""
    monkeypatch.setattr(crash_recovery, "GRACE_SECONDS", -60)
    monkeypatch.setattr(crash_recovery, "PAUSES", (-60, 3600))
    run = triggers.require("monitor/tiny")
    api.call(f"/flow_runs/{run}/set_state", {"state": {"type": "RUNNING", "name": "Running"}, "force": True})
    with subprocess.Popen([sys.executable, "-c", ALIVE, run], cwd=REPOSITORY, stdout=subprocess.PIPE) as worker:
        assert worker.stdout
        worker.stdout.readline()
        assert leases.runs() == {run}
        recovery = CrashRecovery()
        assert [recovery.look() for _ in range(3)] == [[], [], []]
        worker.kill()
    time.sleep(leases.seconds() + 0.5)
    lines = [line for _ in range(2) for line in recovery.look()]
    assert "its process is gone: crashed" in lines[0]
    assert "triggered again" in lines[1]
    assert state_of(run) == "Crashed"


def test_a_run_that_no_worker_began_goes_to_another(
    alone: Alone, fleet: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was handed to a worker that is gone: after a while it is scheduled again."""
    monkeypatch.setattr(crash_recovery, "GRACE_SECONDS", -60)
    run = triggers.require("rollout/tiny")
    api.call(f"/flow_runs/{run}/set_state", {"state": {"type": "PENDING", "name": "Pending"}, "force": True})
    recovery = CrashRecovery()
    assert [recovery.look() for _ in range(2)] == [[], []]
    monkeypatch.setattr(crash_recovery, "LATEST_START", crash_recovery.timedelta(seconds=-60))
    assert "it waits for another" in recovery.look()[0]
    assert state_of(run) == "Interrupted"
