"""What a process of the harness does: a flow, as `evergreen train tiny` runs it; or what a person does by hand."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any


def act(what: str, arguments: list[str], trials: str | None, *, drawn: bool = False) -> int:
    """Do it; gives the exit code. Without `drawn` every picture is a point, which saves a second."""
    if not drawn:
        _draw_nothing()
    if trials:
        from tasks.release.package import package

        package._interpreter = _warm(trials)
    return {"flows": flows, "add": add, "dvc": dvc, "template": template, "reproduce": reproduce}[what](arguments)


def flows(arguments: list[str]) -> int:
    """`evergreen …`; with `*N` as the last argument N times one after the other."""
    from prefect import flow_engine
    from prefect.events.clients import NullEventsClient
    from prefect.events.worker import EventsWorker

    from deployments.cli import main

    flow_engine._send_heartbeats = lambda *_, **__: nullcontext()  # a flow would wait a second for it
    EventsWorker.set_client_override(NullEventsClient)  # the story of each task is not looked at here
    times = int(arguments.pop()[1:]) if arguments[-1].startswith("*") else 1
    return max(main(list(arguments)) for _ in range(times))


def _draw_nothing() -> None:
    from matplotlib.figure import Figure
    from mlflow.utils import environment

    Figure.savefig = lambda _, path, **__: _picture(path)
    environment.warn_dependency_requirement_mismatches = lambda *_, **__: None


def _picture(path: Any) -> None:
    """A point, in place of a drawing."""
    point = b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    )
    path.write(point) if hasattr(path, "write") else Path(path).write_bytes(point)


def add(_: list[str]) -> int:
    """`dvc add data`, as a person types it."""
    from dvc.cli import main

    return int(main(["--wait-for-lock", "add", "-q", "data"]))


def template(_: list[str]) -> int:
    """What costs seconds and is the same for everybody: an empty MLflow store, and the first stage."""
    from dvc.cli import main

    from tasks.release.registry import registry

    registry.champion("tiny")
    return int(main(["repro", "-q", "environment@tiny"]))


def reproduce(arguments: list[str]) -> int:
    """The graph alone, without a registry."""
    from tasks import steps
    from tasks.training import dvc_graph

    for outcome in dvc_graph.reproduce(arguments[0], steps.run):
        print(outcome)
    return 0


def dvc(arguments: list[str]) -> int:
    """`dvc …`; the stages that it starts are processes of their own.

    DVC waits for its lock, but not for a stage that another process runs: it says whose, and ends. It is typed again.
    """
    from dvc.cli import main

    heard = _Busy()
    logging.getLogger("dvc").addHandler(heard)
    while code := int(main(list(arguments))):
        if not heard.taken():
            return code
        time.sleep(0.5)
    return 0


class _Busy(logging.Handler):
    """Hears DVC say that another process is at work."""

    said = False

    def emit(self, record: logging.LogRecord) -> None:
        from dvc.lock import LockError

        error = record.exc_info[1] if record.exc_info else None
        while error is not None:
            self.said |= isinstance(error, LockError)
            error = error.__cause__

    def taken(self) -> bool:
        """Whether it did since it was asked last."""
        said, self.said = self.said, False
        return said


# ── an interpreter for the packaged service, already warm ─────────────────────────────────────────


class Interpreter:
    """Stands for package.TrialProcess: forked from a parent that imported BentoML and none of this project."""

    python = Path()

    def __init__(self, path: str, command: str, environment: dict[str, str]) -> None:
        self.printed = Path(os.environ["BENTOML_HOME"]).parent / "log" / f"trial-{os.getpid()}.log"
        self.printed.parent.mkdir(parents=True, exist_ok=True)
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(path)
        head = {"command": command, "environment": environment, "log": str(self.printed)}
        self.connection.sendall(json.dumps(head).encode() + b"\n")
        self.tasks = self.connection.makefile("w", encoding="utf-8")
        self.answers = self.connection.makefile(encoding="utf-8")

    @property
    def log(self) -> IO[str]:
        """What it printed."""
        return self.printed.open(encoding="utf-8")

    def kill(self) -> None:
        """Let go of it: without its task it ends."""
        for opened in (self.tasks, self.answers, self.connection):
            opened.close()
        self.printed.unlink(missing_ok=True)


def _warm(path: str) -> Any:
    @contextmanager
    def interpreter(command: str, _: Path | None = None) -> Iterator[Interpreter]:
        from tasks.release.package import package

        started = Interpreter(path, command, package._environment())
        try:
            yield started
        finally:
            started.kill()

    return interpreter
