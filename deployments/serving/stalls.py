"""Whether a process works on what it owes, seen from outside: a replica that computes cannot answer a ping meanwhile.

Who computes, or waits for a processor, works; a long request is no reason to end it. Who is stopped (SIGSTOP, a
debugger), or waits for the disk only (a swap storm), does not.
"""

from __future__ import annotations

import psutil

SHARE = 0.1
"""Of a processor: who uses more than that works. A swap storm costs a little time as well."""


class StallDetector:
    """Samples one process, each time it is told to."""

    def __init__(self, pid: int) -> None:
        self.status = ""
        """As psutil names it."""
        self._pid = pid
        self._process: psutil.Process | None = None
        self._worked, self._spent = float("-inf"), 0.0
        """When it was seen to work last, and how much processor time it had used by then."""

    @property
    def is_stopped(self) -> bool:
        """Whether somebody had stopped it when it was sampled last."""
        return self.status in {"stopped", "tracing-stop"}

    @property
    def waits_for_disk(self) -> bool:
        """Whether it waited for a disk when it was sampled last."""
        return self.status == "disk-sleep"

    def look(self) -> float:
        """Sample its status; give the processor time that it has used, of all its threads."""
        try:
            self._process = self._process or psutil.Process(self._pid)
            with self._process.oneshot():
                self.status, times = self._process.status(), self._process.cpu_times()
        except psutil.Error:  # it has ended, which is told elsewhere
            self.status = "dead"
            return 0.0
        return float(times.user + times.system)

    def idle(self, now: float, since: float) -> float:
        """Look at the process; give for how many seconds it has done nothing.

        Args:
            now: time.monotonic().
            since: from when on it owes something; what it did before does not count.
        """
        spent = self.look()
        if self._worked < since:  # the first sample since it owes something
            self._worked, self._spent = since, spent
        if self.status == "running" or spent - self._spent > SHARE * (now - self._worked):
            self._worked, self._spent = now, spent
        return now - self._worked
