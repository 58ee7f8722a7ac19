"""Who gives way to whom."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import priority

LEADS, FOLLOWS = True, False


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[int]:
    """One that does nothing, in a session of its own or not."""
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleeps, start_new_session=request.param) as started:
        yield started.pid
        started.kill()


def session_nice(pid: int) -> int:
    """The nice value of the process's session."""
    return int(Path(f"/proc/{pid}/autogroup").read_text(encoding="ascii").split()[-1])


@pytest.mark.skipif(not priority._are_sessions_weighed(), reason="sessions are not weighed here")
@pytest.mark.parametrize("process", [LEADS], indirect=True)
def test_a_session_gives_way_to_others(process: int) -> None:
    """And only the session does: in it, nobody has less than before."""
    priority.give_way(process)
    assert session_nice(process) == priority.NICE
    assert os.sched_getscheduler(process) == os.SCHED_IDLE
    priority.set_session(process, 0)
    assert session_nice(process) == 0


@pytest.mark.parametrize("process", [FOLLOWS], indirect=True)
def test_who_leads_no_session_gives_way_alone(process: int) -> None:
    """The session is not its own to give away."""
    before = session_nice(os.getpid()) if priority._are_sessions_weighed() else 0
    priority.give_way(process)
    assert os.getpriority(os.PRIO_PROCESS, process) == priority.NICE
    assert os.sched_getscheduler(process) == os.SCHED_OTHER
    assert not priority._are_sessions_weighed() or session_nice(os.getpid()) == before


@pytest.mark.parametrize("process", [LEADS], indirect=True)
def test_where_sessions_are_not_weighed_nobody_starves(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SCHED_IDLE would be next to nothing beside all others."""
    monkeypatch.setattr(priority, "_are_sessions_weighed", lambda: False)
    priority.give_way(process)
    assert os.getpriority(os.PRIO_PROCESS, process) == priority.NICE
    assert os.sched_getscheduler(process) == os.SCHED_OTHER


def test_a_process_that_is_gone_is_nothing_to_anybody() -> None:
    """It may end at any moment."""
    nobody = 2**22
    priority.give_way(nobody)
    priority.set_session(nobody, 0)
