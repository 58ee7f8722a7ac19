"""CPU priority: whatever is not serving gives way to what serves.

Linux weighs sessions against each other before it weighs the processes of one (`autogroup` in sched(7)). Services, flow
runs and replicas each lead a session, so that the nice value of a process does not reach the others; a session has its
own. Measured with two processes beside a load that do nothing but start others: the p99 of requests is 1.5 times as
long, 1.3 where they have a higher nice value, 1.2 where they spare a CPU. (SCHED_IDLE changes nothing: it counts within
a session.)
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

NICE = 5  # a quarter of the CPU time under contention: a server that got less would seem to be dead
TRIES, PAUSE_S = 20, 0.05  # of all processes without privileges, one may set a session's value each tenth of a second


def lower(process: int) -> None:
    """Give a process, its session and all that it starts a lower priority, for good. A process that is gone is fine."""
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, process, max(NICE, os.getpriority(os.PRIO_PROCESS, process)))
        if os.getsid(process) == process:
            set_session_nice(process, NICE)


def spare_one_cpu(process: int) -> None:
    """Keep a process, and all that it starts later, off the first of its CPUs, unless it has only one."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        with suppress(ProcessLookupError):
            allowed = os.sched_getaffinity(process)
            os.sched_setaffinity(process, allowed - {min(allowed)} or allowed)


def set_session_nice(leader: int, nice: int) -> None:
    """Give the session that a process leads a nice value, from 0 to 19; it can be lowered again.

    Nothing happens where sessions are not weighed, or the process is gone.
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
