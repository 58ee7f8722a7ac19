"""Who goes first where processes share the processor: what serves.

Linux weighs sessions against each other before it weighs the processes of one (`autogroup` in sched(7)). Services, flow
runs and replicas each lead a session, so that the nice value of one says nothing to the others; a session has its own.
(SCHED_IDLE was tried besides. A processor that only such processes use counts as free, and a request finds one sooner;
but flows and servers then crowd on one of two: a training began 5 s later.)
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

NICE = 10
"""What gives way gets a tenth of the time where all of it is wanted: a server that got less would seem to be dead."""

TRIES, PAUSE_S = 20, 0.05
"""Of all processes without privileges, one may set a session's value each tenth of a second."""


def give_way(process: int) -> None:
    """Let a process and all that it starts give way to what serves, for good. Nothing happens, if it is gone."""
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, process, max(NICE, os.getpriority(os.PRIO_PROCESS, process)))
        if os.getsid(process) == process:
            set_session(process, NICE)


def set_session(leader: int, nice: int) -> None:
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
