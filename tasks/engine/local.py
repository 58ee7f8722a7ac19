"""Worker processes of this machine: a task goes to whoever is free; a worker that dies is replaced, its task redone."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

from tasks.engine.protocol import Done, Following
from tasks.engine.task import Outcome, Task
from tasks.engine.worker import NO_MEMORY
from tasks.ground import settings

MOST_DEATHS = 10
"""A task that so many workers have died of is given up."""


def free_cores() -> int:
    """How many cores nobody uses now; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(cores * (1 - psutil.cpu_percent(interval=0.5) / 100) + 0.5))


@dataclass
class Worker:
    """A process, and what it is at."""

    process: subprocess.Popen[str]
    task: Task | None = None
    until: float = float("inf")
    """When its task has taken too long, by the monotonic clock."""
    late: bool = False

    def give(self, task: Task, limit_s: float) -> None:
        """Have it do a task. Where it is dead, its output has ended, which is noticed."""
        self.task, self.until = task, time.monotonic() + limit_s
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()

    def outcome(self) -> Outcome | None:
        """Of its task; None: it died."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        with suppress(ValueError):  # half a line
            return dict(json.loads(line))
        return None

    def end(self) -> str:
        """Kill it, whatever it is at; gives what it died of, where it was dead already."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0.1 if self.late else 5)  # its output has ended, so it is ending
        code = self.process.poll()
        self.kill()
        if self.late:
            return "took longer than the limit"
        if code is not None and code < 0:
            why = " (by hand, or by the system for want of memory)" if code == -signal.SIGKILL else ""
            return f"was killed by {signal.Signals(-code).name}{why}"
        return "had not enough memory" if code == NO_MEMORY else f"ended with {code}"

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.communicate()


@dataclass
class LocalWorkers:
    """So many processes; started when there are tasks for them, ended with the block."""

    count: int
    limit_s: float = float("inf")
    """Seconds that a task may take."""
    log: Path | None = None
    """Where the workers' stderr goes; None: where this process's goes."""
    _alive: list[Worker] = field(default_factory=list)
    _deaths: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._alive:
            worker.kill()

    def run(self, following: Following, done: Done) -> None:
        """Do tasks until there is none left."""
        again: deque[Task] = deque()
        with selectors.DefaultSelector() as selector:
            for worker in self._alive:
                selector.register(worker.process.stdout or 0, selectors.EVENT_READ, worker)
            while True:
                self._give_out(again, following, selector)
                if not any(worker.task for worker in self._alive):
                    return
                soonest = min(worker.until for worker in self._alive if worker.task) - time.monotonic()
                ready = selector.select(None if soonest == float("inf") else max(0.0, soonest))
                for key, _ in ready:
                    self._receive(key.data, again, done, selector)
                if not ready:
                    self._kill_late()

    def _give_out(self, again: deque[Task], following: Following, selector: selectors.BaseSelector) -> None:
        """A task for each worker that has none, as far as there are any."""
        for place in range(self.count):
            if place < len(self._alive) and self._alive[place].task:
                continue
            if (task := again.popleft() if again else following()) is None:
                return
            if place >= len(self._alive):
                self._alive.append(self._start())
                selector.register(self._alive[place].process.stdout or 0, selectors.EVENT_READ, self._alive[place])
            self._alive[place].give(task, self.limit_s)

    def _receive(self, worker: Worker, again: deque[Task], done: Done, selector: selectors.BaseSelector) -> None:
        outcome, task = worker.outcome(), worker.task
        worker.task, worker.until = None, float("inf")
        if outcome is None:
            selector.unregister(worker.process.stdout or 0)
            self._alive.remove(worker)
            why = worker.end()
            if task is None:
                return
            text = json.dumps(task, sort_keys=True)
            self._deaths[text] += 1
            if self._deaths[text] < MOST_DEATHS and not worker.late:
                again.append(task)
                return
            times = "" if worker.late else f"{MOST_DEATHS} times, "
            outcome = {"lost": f"{task['function']}: {times}the process that did it {why}"}
        if task is not None:
            done(task, outcome)

    def _kill_late(self) -> None:
        for worker in self._alive:
            if worker.task and worker.until <= time.monotonic():
                worker.late = True
                worker.process.kill()  # its output ends

    def _start(self) -> Worker:
        own = {**settings.environment(), "EVERGREEN_FIT_THREADS": "1", **os.environ}
        own |= {"PYTHONPATH": str(settings.ROOT), **settings.arithmetic()}
        stderr = self.log.open("a") if self.log else None
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.engine.worker", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                encoding="utf-8",
                env={**own, "EVERGREEN_ENGINE": "local:1"},  # what is wide within a task is done one after the other
                cwd=settings.ROOT,
            )
        finally:
            if stderr:
                stderr.close()
        return Worker(process)
