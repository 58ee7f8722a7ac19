"""Engine: who does what is wide, chosen by one setting, with the same results in the same order whoever does it.

`EVERGREEN_ENGINE` is `local` (as many processes as cores are idle), `local:4`, or `dask://host:8786`. Little work stays
in this process, and nothing is started for it. See docs/decisions/engine.md.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tasks.engine.protocol import ThisProcess, Workers
from tasks.engine.task import Outcome, Task, result, task
from tasks.ground import settings
from tasks.ground.errors import Mistake

SETTING = "EVERGREEN_ENGINE"

RUNS, LONGEST_RUN = 16, 16
"""Of `runs`: as many as keep several workers busy to the end, and none so long that a lost worker costs much."""

T = TypeVar("T")


@dataclass(frozen=True)
class EngineProgress:
    """How far something wide is."""

    what: str
    done: int
    of: int

    def __str__(self) -> str:
        return f"{self.what}: {self.done} of {self.of}"


def _print(progress: EngineProgress) -> None:
    if sys.stderr.isatty() and progress.of > 1:
        print(f"\r{progress}", end="\n" if progress.done == progress.of else "", file=sys.stderr, flush=True)


telling: ContextVar[Callable[[EngineProgress], object]] = ContextVar("telling", default=_print)
"""Is told of each task that is done; a flow puts its own here."""


def each(function: str, items: Sequence[Sequence[Any]], what: str, *, fewest: int = 2) -> list[Any]:
    """The results of a function for some items, in their order.

    Args:
        function: `module:name`, of this project; its result is a JSON value.
        items: the arguments of each call, JSON values.
        what: is done, for whoever waits: `validate flights`.
        fewest: items that are worth a process of their own.

    Raises:
        EvergreenError: of the first item, in their order, whose call raised it.
        WorkersLost: workers died of it.
    """
    with opened(len(items) // fewest) as workers:
        return gather(workers, tasks(function, items), what)


def runs(items: Sequence[T]) -> list[Sequence[T]]:
    """Items that follow each other, together: what a worker needs of one for the next it has then.

    Their number depends on the items alone, so that the work is the same whoever does it.
    """
    run = max(1, min(LONGEST_RUN, len(items) // RUNS))
    return [items[at : at + run] for at in range(0, len(items), run)]


def tasks(function: str, items: Sequence[Sequence[Any]]) -> list[Task]:
    """A task per item, for `gather`."""
    return [task(function, *arguments, at=at) for at, arguments in enumerate(items)]


def gather(workers: Workers, tasks: Sequence[Task], what: str) -> list[Any]:
    """The results of tasks, whose `at` is their position; after a failure none is begun that comes later."""
    outcomes: dict[int, Outcome] = {}
    waiting, failed, tell = iter(tasks), list[int](), telling.get()

    def following() -> Task | None:
        return None if failed else next(waiting, None)

    def done(task: Task, outcome: Outcome) -> None:
        outcomes[task["at"]] = outcome
        if "result" not in outcome:
            failed.append(task["at"])
        tell(EngineProgress(what, len(outcomes), len(tasks)))

    workers.run(following, done)
    if failed:
        result(outcomes[min(failed)])
    return [result(outcomes[at]) for at in range(len(tasks))]


@contextmanager
def opened(
    most: int, *, processes: int | None = None, apart: bool = False, log: Path | None = None
) -> Iterator[Workers]:
    """Whoever does tasks, by the setting; ended with the block.

    Args:
        most: so many at once are of use.
        processes: so many of this machine, whatever the setting.
        apart: no task is done in this process: it may die of one.
        log: a file for what local workers write to stderr; None: it goes where this process's goes.

    Raises:
        Mistake: the setting is none; or it names an engine that is not installed.
        SourceUnavailable: the cluster cannot be reached.
    """
    url = f"local:{processes}" if processes else chosen()
    if most < 2 and not apart:
        yield ThisProcess()
    elif url.startswith("local"):
        from tasks.engine import local

        count, limit_s = _local(url)
        count = min(count or local.free_cores(), most)
        if count < 2 and not apart:
            yield ThisProcess()
        else:
            with local.LocalWorkers(max(count, 1), limit_s, log) as workers:
                yield workers
    else:
        from tasks.engine import cluster

        with cluster.DaskWorkers(url.removeprefix("dask+").replace("dask://", "tcp://"), most) as remote:
            yield remote


def chosen() -> str:
    """The setting.

    Raises:
        Mistake: it names no engine.
    """
    url = os.environ.get(SETTING) or settings.environment()[SETTING]
    parts = urlsplit(url)
    if parts.scheme in ("dask", "dask+tls") and parts.port:
        return url
    if url.partition(":")[0].partition("?")[0] == "local":
        _local(url)
        return url
    raise Mistake(
        f"{SETTING}: {url!r} is no engine: local (as many processes as cores are idle), local:4, or dask://host:8786 "
        f"(dask+tls:// with the certificates of Dask's own configuration)"
    )


def _local(url: str) -> tuple[int | None, float]:
    """`local:4?limit_s=600` → 4 processes, each task at most ten minutes."""
    count, _, query = url.removeprefix("local").removeprefix(":").partition("?")
    limit = query.removeprefix("limit_s=") if query else "inf"
    if not re.fullmatch("([1-9][0-9]*)?", count) or not re.fullmatch("inf|[1-9][0-9]*", limit):
        raise Mistake(f"{SETTING}: {url!r}: as local, local:4, or local:4?limit_s=600 (seconds of a task)")
    return int(count) if count else None, float(limit)
