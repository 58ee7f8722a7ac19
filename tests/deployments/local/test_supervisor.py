"""The platform of `make up`, with its real servers. The tests go on from each other's state, in this order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from flows.prefect_support import api
from tasks.ground import priority
from tests.deployments.conftest import PATIENCE, Platform, until
from tests.deployments.sessions import are_weighed, session_nice

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400 * PATIENCE)]


def test_a_second_one_is_refused(platform: Platform) -> None:
    """It says that one is up, and what to do."""
    done = platform.project.run(sys.executable, "-m", "deployments.cli", "up", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Mistake: the platform of {platform.project.root} is up already.")


def test_status_says_that_all_is_well(platform: Platform) -> None:
    """Each service, and what all weigh when no flow runs: less than 1.5 GB."""
    done = until(lambda: _light(platform.project.run(sys.executable, "-m", "deployments.cli", "status")))
    assert [line.split()[:2] for line in done.stdout.splitlines()[:6]] == [
        [name, "answers"] for name in ("prefect", "mlflow", "router", "forkserver", "worker", "watch")
    ]
    assert "failures are sent to" in done.stdout


def _light(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str] | None:
    megabytes = int(done.stdout.split(" processes, ")[1].split(" MB")[0].replace(",", ""))
    return done if megabytes < 1500 else None


@are_weighed
def test_everything_gives_way_to_what_serves(platform: Platform) -> None:
    """To the router, and to what it has started."""
    assert session_nice(platform.service("router")) == 0
    for name in ("prefect", "mlflow", "forkserver", "worker", "watch"):
        assert session_nice(platform.service(name)) == priority.NICE


def test_a_delivery_is_trained_on_whatever_is_killed_meanwhile(platform: Platform) -> None:
    """The worker, its forkserver, both servers and the watcher are killed meanwhile: the run goes on to its verdict."""
    until(lambda: all(one["end_time"] for one in platform.runs("train")), what="the end of what the clock has begun")
    before = len(platform.runs("train"))
    platform.deliver(4)
    run = until(lambda: platform.runs("train")[: -before or None], what="a training")[0]
    for name in ("worker", "forkserver", "prefect", "mlflow", "watch"):
        os.kill(platform.service(name), signal.SIGKILL)
    until(lambda: platform.console().count("answers again") == 5, what="every service answers again")
    ended = until(lambda: [one for one in platform.runs("train") if one["id"] == run["id"] and one["end_time"]])
    assert ended[0]["state_name"] == "Completed"
    assert "challenger" in ended[0]["state"]["message"]
    artifacts = api.call("/artifacts/filter", {"artifacts": {"key": {"any_": ["verdict-tiny"]}}})
    assert "![the verdict](data:image/svg+xml;base64," in artifacts[0]["data"]
