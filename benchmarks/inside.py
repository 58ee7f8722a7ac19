"""Runs flows in this process, as a worker does, and tells where the time went.

    python -m benchmarks.inside ingest train:flight_delay …

BENCH_BEGIN is when the process was started (seconds since 1970), BENCH_MARKS the JSON file that is written. Every
moment belongs to exactly one part, the innermost that was entered, so that the parts add up to the whole.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

HEAVY = ("great_expectations", "mlflow", "sklearn", "bentoml", "skops", "matplotlib", "pandas")
"""What a run with nothing to do must not import (the last is no promise, and told for information)."""

TOLD = {
    "prefect": "import Prefect",
    "dvc": "import DVC",
    "great_expectations": "import Great Expectations",
    "mlflow": "import MLflow",
    "sklearn": "import scikit-learn",
    "pandas": "import pandas",
    "skops": "import skops",
    "matplotlib": "import matplotlib",
    "pyarrow": "import pyarrow",
}


class Clock:
    """Where each moment went."""

    def __init__(self, begin: float, first: str) -> None:
        self.parts: dict[str, float] = {}
        self.total: dict[str, float] = {}
        self._stack = [first]
        self._last = begin
        self._thread = threading.get_ident()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """While this lasts, time belongs to `name` (in this thread; others are beside it)."""
        if threading.get_ident() != self._thread:
            yield
            return
        self.charge()
        self._stack.append(name)
        begin = time.time()
        try:
            yield
        finally:
            self.charge()
            self._stack.pop()
            self.total[name] = self.total.get(name, 0.0) + time.time() - begin

    def charge(self) -> None:
        """Give what has passed to the innermost part."""
        now = time.time()
        self.parts[self._stack[-1]] = self.parts.get(self._stack[-1], 0.0) + now - self._last
        self._last = now

    def around(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The same function, its time told."""

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return call(*args, **kwargs)

        return timed

    def imports(self) -> None:
        """Tell the outermost import of each package of TOLD apart."""
        original, inside = builtins.__import__, False

        def told(name: str, *args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            part = TOLD.get(name.partition(".")[0])
            if inside or part is None or threading.get_ident() != self._thread or (name in sys.modules and not args):
                return original(name, *args, **kwargs)
            inside = True
            try:
                with self.part(part):
                    return original(name, *args, **kwargs)
            finally:
                inside = False

        builtins.__import__ = told


PREFECT, BOOKS = "Prefect: engine, API calls", "DVC: keep the books"


def main(jobs: list[str]) -> int:
    """Run the flows that the arguments name, one after the other."""
    clock = Clock(float(os.environ.get("BENCH_BEGIN", time.time())), "start the interpreter")
    clock.charge()
    clock.imports()
    states: list[dict[str, Any]] = []
    with clock.part("import Evergreen's own modules"):
        from flows.prefect_support import run_local

        _tell_flows(clock)
        _tell_tasks(clock, jobs)
    with clock.part(PREFECT):
        for job in jobs:
            name, _, model = job.partition(":")
            with clock.part("import Evergreen's own modules"):
                import_module(f"flows.{name}")
            state = run_local.run(name, *([model] if model else []))
            states.append({"job": job, "state": state.name, "message": str(state.message or "")})
    clock.charge()
    heavy = [name for name in HEAVY if name in sys.modules]
    told = {"parts": clock.parts, "total": clock.total, "states": states, "heavy": heavy}
    if path := os.environ.get("BENCH_MARKS"):
        Path(path).write_text(json.dumps(told))
    return 0 if all(state["state"] == "Completed" for state in states) else 1


def _tell_flows(clock: Clock) -> None:
    """Put a clock around every step that a flow makes a task of, before the flows are imported."""
    module = import_module("flows.prefect_support.as_task")
    make = module.as_task

    def as_task(step: Callable[..., Any], name: str, **options: Any) -> Callable[..., Any]:
        stage = "@" in name or name.endswith(".dvc")
        made = make(clock.around(step, BOOKS if stage else name.partition(" of ")[0]), name, **options)

        def call(*args: Any, **kwargs: Any) -> Any:
            with clock.part(PREFECT):
                return made(*args, **kwargs)

        return call

    module.as_task = as_task  # type: ignore[attr-defined]


def _tell_tasks(clock: Clock, jobs: list[str]) -> None:
    """Put a clock around what the flows call themselves."""
    from tasks import steps
    from tasks.ground import params

    params.load = clock.around(params.load, "read params.yaml")
    if jobs == ["ingest"]:
        return
    from tasks.training import dvc_graph

    dvc_graph.pending = clock.around(dvc_graph.pending, "DVC: is anything to do?")
    dvc_graph.reproduce = clock.around(dvc_graph.reproduce, BOOKS)
    run = steps.run

    def step(name: str, arguments: list[str]) -> None:
        if name == "package":
            _tell_package(clock)
        with clock.part(f"stage {name}"):
            run(name, arguments)

    steps.run = step


def _tell_package(clock: Clock) -> None:
    """Inside of `package`: building the Bento and asking it, both in processes of their own."""
    from tasks.release.package import package

    for name, part in (("_build_bento", "Bento: build"), ("_measure", "Bento: ask it")):
        if (function := getattr(package, name, None)) and not hasattr(function, "__wrapped__"):
            setattr(package, name, clock.around(function, part))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
