"""What an engine is asked: do tasks until none is left. Three do it: this process, its own workers, a cluster's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tasks.engine.task import Outcome, Task, call

Following = Callable[[], Task | None]
"""Gives the next task; None: there is none now, but perhaps after another one is done."""

Done = Callable[[Task, Outcome], None]
"""Is told the outcome of each task, in the order in which they end."""


class Workers(Protocol):
    """Whoever does tasks."""

    @property
    def count(self) -> int:
        """How many are done at once."""

    def run(self, following: Following, done: Done) -> None:
        """Do tasks until there is none left."""


class ThisProcess:
    """Does one after the other, here: what a task raises is raised."""

    count = 1

    def run(self, following: Following, done: Done) -> None:
        """As `Workers.run`."""
        while (task := following()) is not None:
            done(task, {"result": call(task)})
