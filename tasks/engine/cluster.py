"""Workers of a Dask cluster: the scheduler gives tasks out, and does again elsewhere what a worker died of.

Names and JSON go through; Dask wraps them in its own wire format, which is pickle among machines that trust each other
(docs/decisions/engine.md). A worker is started in a checkout of the same code, in the same folder of a shared disk.
"""

from __future__ import annotations

import json
import os
from functools import cache
from types import TracebackType
from typing import Any
from uuid import uuid4

from tasks.engine.protocol import Done, Following
from tasks.engine.task import Outcome, Task, do
from tasks.ground import arithmetic, files, settings
from tasks.ground.errors import EnvironmentDiffers, Mistake, SourceUnavailable

CONNECT_S = 10


class DaskWorkers:
    """The workers of a scheduler, as many as there are now."""

    def __init__(self, address: str, most: int) -> None:
        self.address, self.most = address, most

    def __enter__(self) -> DaskWorkers:
        try:
            import distributed
        except ImportError:
            raise Mistake(
                "EVERGREEN_ENGINE names a Dask scheduler, and Dask is not installed: make setup WITH=dask"
            ) from None
        try:
            connect: Any = distributed.Client
            self.client = connect(self.address, timeout=CONNECT_S, set_as_default=False)
        except OSError as error:
            raise SourceUnavailable(
                f"EVERGREEN_ENGINE: no Dask scheduler answers at {self.address} ({error}). Start one with "
                f"`dask scheduler`, or unset EVERGREEN_ENGINE: the work is then done by this machine"
            ) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.close()  # what is queued for it is dropped by the scheduler

    @property
    def count(self) -> int:
        """How many tasks are done at once; at least one: a worker may come.

        Raises:
            Mistake: a worker does several tasks in one process.
        """
        threads = {name: worker["nthreads"] for name, worker in self._workers().items()}
        if several := [name for name, count in threads.items() if count > 1]:
            raise Mistake(
                f"EVERGREEN_ENGINE: the worker {several[0]} has several threads, and a task wants a process: start it "
                f"with `--nthreads 1 --nworkers {threads[several[0]]}`"
            )
        return max(1, min(len(threads), self.most))

    def _workers(self) -> dict[str, dict[str, int]]:
        workers: dict[str, dict[str, int]] = self.client.scheduler_info(n_workers=-1)["workers"]
        return workers

    def run(self, following: Following, done: Done) -> None:
        """Do tasks until there is none left."""
        import distributed

        given: dict[str, Task] = {}
        ended: Any = distributed.as_completed(loop=self.client.loop)  # type: ignore[no-untyped-call]
        while True:
            while len(given) < self.count and (task := following()) is not None:
                future = self.client.submit(work, json.dumps({**task, **_place()}), key=f"evergreen-{uuid4().hex}")
                given[future.key] = task
                ended.add(future)
            if not given:
                return
            future = next(ended)
            task = given.pop(future.key)
            done(task, self._outcome(future, task["function"]))

    def _outcome(self, future: Any, function: str) -> Outcome:
        from distributed.scheduler import KilledWorker

        if future.status == "finished":
            return dict(json.loads(future.result()))
        if future.status == "cancelled":
            raise SourceUnavailable(f"EVERGREEN_ENGINE: the Dask scheduler at {self.address} is gone. Run it again")
        error = future.exception()
        if isinstance(error, KilledWorker):
            why = "killed, by hand or by the system for want of memory: the log of the workers says more"
            return {"lost": f"{function}: again and again, the worker of the cluster that did it died ({why})"}
        assert error is not None
        raise error


def _place() -> dict[str, str]:
    return {"root": str(settings.ROOT), "code": _code()}


@cache
def _code() -> str:
    """The identity of the code that tasks run, and of the packages."""
    root = settings.ROOT
    return files.digest(
        [files.tree(root / "tasks"), files.tree(root / "models"), files.sha256(root / "requirements.lock")]
    )


def work(text: str) -> str:
    """Do a task on a worker: text to text, so that this function's name is all that travels of the code."""
    task = json.loads(text)
    os.environ["EVERGREEN_ENGINE"] = "local:1"
    os.environ.setdefault("EVERGREEN_FIT_THREADS", "1")
    settings.apply()
    try:
        _refuse_another(task)
    except Mistake as error:
        return json.dumps({"error": {"type": "tasks.ground.errors:EnvironmentDiffers", "text": str(error)}})
    return do(task)


def _refuse_another(task: Task) -> None:
    """A worker with another checkout, other code or other arithmetic would give other results."""
    if task["root"] != str(settings.ROOT) or task["code"] != _code():
        raise EnvironmentDiffers(
            f"a Dask worker works in {settings.ROOT}, and the task is of {task['root']}"
            + (": the code or the lock there is another" if task["root"] == str(settings.ROOT) else "")
            + ". Start it in the project's folder, which all machines share, with the same commit"
        )
    try:
        arithmetic.refuse_other()
    except EnvironmentDiffers as error:
        raise EnvironmentDiffers(f'start the Dask worker after `eval "$(evergreen env)"`: {error}') from None
