"""Who gives way to whom."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tasks.ground import priority
from tests.deployments.sessions import are_weighed, session_nice

LEADS, FOLLOWS = True, False


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[int]:
    """One that does nothing, in a session of its own or not."""
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleeps, start_new_session=request.param) as started:
        yield started.pid
        started.kill()


@are_weighed
@pytest.mark.parametrize("process", [LEADS], indirect=True)
def test_a_session_gives_way_to_others(process: int) -> None:
    """And can be given its place again."""
    priority.lower(process)
    assert session_nice(process) == priority.NICE
    priority.set_session_nice(process, 0)
    assert session_nice(process) == 0


@are_weighed
@pytest.mark.parametrize("process", [FOLLOWS], indirect=True)
def test_who_leads_no_session_gives_way_alone(process: int) -> None:
    """The session is not its own to give away."""
    before = session_nice(os.getpid())
    priority.lower(process)
    assert os.getpriority(os.PRIO_PROCESS, process) == priority.NICE
    assert session_nice(os.getpid()) == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux keeps processes off processors")
@pytest.mark.parametrize("process", [FOLLOWS], indirect=True)
def test_a_processor_is_left_to_what_serves(process: int) -> None:
    """The first of those that it may use; where there is but one, all keep it."""
    before = os.sched_getaffinity(process)
    priority.spare_one_cpu(process)
    assert os.sched_getaffinity(process) == (before - {min(before)} or before)
    only = {max(before)}
    os.sched_setaffinity(process, only)
    priority.spare_one_cpu(process)
    assert os.sched_getaffinity(process) == only


def test_a_process_that_is_gone_is_nothing_to_anybody() -> None:
    """It may end at any moment."""
    nobody = 2**22
    priority.lower(nobody)
    priority.set_session_nice(nobody, 0)
    priority.spare_one_cpu(nobody)
