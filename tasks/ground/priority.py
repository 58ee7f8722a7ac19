"""Who goes first where processes share the processors: what serves.

Linux weighs sessions against each other before it weighs the processes of one (`autogroup` in sched(7)). Services, flow
runs and replicas each lead a session, so that the nice value of one says nothing to the others; a session has its own.
What is at work while a release changes leaves a processor to what serves besides. Measured with two processes beside a
load that do nothing but begin others: its p99 is 1.5 times as long, 1.3 where they give way by twice as much, 1.2 where
they leave a processor. (SCHED_IDLE changes nothing: it counts within a session.)
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

NICE = 5
"""What gives way gets a quarter of the time where all of it is wanted: a server that got less would seem to be dead."""

TRIES, PAUSE_S = 20, 0.05
"""Of all processes without privileges, one may set a session's value each tenth of a second."""


def lower(process: int) -> None:
    """Let a process and all that it starts give way to what serves, for good. Nothing happens, if it is gone."""
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, process, max(NICE, os.getpriority(os.PRIO_PROCESS, process)))
        if os.getsid(process) == process:
            set_session_nice(process, NICE)


def spare_one_cpu(process: int) -> None:
    """Keep a process, and all that it starts later, off the first of its processors. Of one, nothing can be left."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        with suppress(ProcessLookupError):
            allowed = os.sched_getaffinity(process)
            os.sched_setaffinity(process, allowed - {min(allowed)} or allowed)


def set_session_nice(leader: int, nice: int) -> None:
    """Give the session that a process leads a nice value, from 0 to 19: one that can be lowered again.

    Where sessions are not weighed, or there is no such process any more, nothing happens.
    """
    for _ in range(TRIES):
        try:
            Path(f"/proc/{leader}/autogroup").write_text(str(nice), encoding="ascii")
        except BlockingIOError:
            time.sleep(PAUSE_S)
        except OSError:
            return
        else:
            return
