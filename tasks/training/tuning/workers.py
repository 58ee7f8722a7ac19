"""Worker processes: tasks are done by whoever is free; a worker that dies is replaced, and its task is done again."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tasks.ground import settings
from tasks.training.tuning.fits import Outcome

Task = dict[str, Any]

MOST_DEATHS = 10
"""A task that so many workers have died of is given up: it may take more memory than there is."""


def free_cores() -> int:
    """How many cores nobody uses now; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(cores * (1 - psutil.cpu_percent(interval=0.5) / 100) + 0.5))


@dataclass
class Worker:
    """A process, and what it is at."""

    process: subprocess.Popen[str]
    task: Task | None = None

    def give(self, task: Task) -> None:
        """Have it do a task. Where it is dead, its output has ended, which is noticed."""
        self.task = task
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

    def end(self) -> None:
        """Kill it, whatever it is at."""
        self.process.kill()
        self.process.communicate()


@dataclass
class Workers:
    """So many processes for the tasks of one model; ended with the block."""

    folder: Path
    name: str
    count: int
    _alive: list[Worker] = field(default_factory=list)
    _deaths: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._alive:
            worker.end()

    def run(self, following: Callable[[], Task | None], done: Callable[[Task, Outcome], None]) -> None:
        """Do tasks until there is none left.

        Args:
            following: gives the next task; None: there is none now, but perhaps after another one is done.
            done: is told the outcome of each task, in the order in which they end.
        """
        again: deque[Task] = deque()
        with selectors.DefaultSelector() as selector:
            for worker in self._alive:
                selector.register(worker.process.stdout or 0, selectors.EVENT_READ, worker)
            while True:
                self._give_out(again, following, selector)
                if not any(worker.task for worker in self._alive):
                    return
                for key, _ in selector.select():
                    self._receive(key.data, again, done, selector)

    def _give_out(
        self, again: deque[Task], following: Callable[[], Task | None], selector: selectors.BaseSelector
    ) -> None:
        """A task for each worker that has none, as far as there are any."""
        for place in range(self.count):
            if place < len(self._alive) and self._alive[place].task:
                continue
            if (task := again.popleft() if again else following()) is None:
                return
            if place >= len(self._alive):
                self._alive.append(self._start())
                selector.register(self._alive[place].process.stdout or 0, selectors.EVENT_READ, self._alive[place])
            self._alive[place].give(task)

    def _receive(
        self,
        worker: Worker,
        again: deque[Task],
        done: Callable[[Task, Outcome], None],
        selector: selectors.BaseSelector,
    ) -> None:
        outcome, task, worker.task = worker.outcome(), worker.task, None
        if outcome is None:
            selector.unregister(worker.process.stdout or 0)
            self._alive.remove(worker)
            worker.end()
            if task is None:
                return
            text = json.dumps(task, sort_keys=True)
            self._deaths[text] += 1
            if self._deaths[text] < MOST_DEATHS:
                again.append(task)
                return
            outcome = {"error": f"{MOST_DEATHS} processes died of it: is there enough memory?", "seconds": 0.0}
        if task is not None:
            done(task, outcome)

    def _start(self) -> Worker:
        pipe, log = subprocess.PIPE, self.folder / "workers.log"
        with log.open("a") as stderr:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "tasks.training.tuning.fits",
                    str(self.folder),
                    self.name,
                    str(os.getpid()),
                ],
                stdin=pipe,
                stdout=pipe,
                stderr=stderr,
                text=True,
                encoding="utf-8",
                env={**settings.environment(), **os.environ, "PYTHONPATH": str(settings.ROOT), **settings.arithmetic()},
                cwd=settings.ROOT,
            )
        return Worker(process)
