"""Stall detector: sees from outside whether a process works; a replica that computes could not answer a ping.

A process that computes or waits for a processor works, however long its request takes. One that is stopped (SIGSTOP, a
debugger), or only waits for the disk (a swap storm), does not.
"""

from __future__ import annotations

import psutil

WORKING_SHARE = 0.1
"""Of a processor: a process that uses more than that works. A swap storm costs a little time as well."""


class StallDetector:
    """Samples one process at each call."""

    def __init__(self, pid: int) -> None:
        self.status = ""
        """Of the last sample, as psutil names it."""
        self._pid = pid
        self._process: psutil.Process | None = None
        self._worked_at, self._cpu_then = float("-inf"), 0.0
        """When it was last seen to work, and how much processor time it had used by then."""

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped at the last sample."""
        return self.status in {"stopped", "tracing-stop"}

    @property
    def waits_for_disk(self) -> bool:
        """Whether it waited for a disk at the last sample."""
        return self.status == "disk-sleep"

    def sample(self) -> float:
        """Sample its status; gives the processor time that its threads have used."""
        try:
            self._process = self._process or psutil.Process(self._pid)
            with self._process.oneshot():
                self.status, times = self._process.status(), self._process.cpu_times()
        except psutil.Error:  # it has ended, which its socket says
            self.status = "dead"
            return 0.0
        return float(times.user + times.system)

    def idle_seconds(self, now: float, since: float) -> float:
        """Sample it; gives for how long it has done nothing.

        Args:
            now: time.monotonic().
            since: from when on it owes something; what it did before does not count.
        """
        cpu = self.sample()
        if self._worked_at < since:  # the first sample since it owes something
            self._worked_at, self._cpu_then = since, cpu
        if self.status == "running" or cpu - self._cpu_then > WORKING_SHARE * (now - self._worked_at):
            self._worked_at, self._cpu_then = now, cpu
        return now - self._worked_at
