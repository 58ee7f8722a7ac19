"""Where a process is killed: at a boundary between two writes, whoever makes them.

Python tells an audit hook of every file that is opened for writing, made, renamed or removed, before it happens; and
SQLAlchemy's commit stands for each transaction of MLflow's store. So the boundaries need no hook in the product, and
none is forgotten. They are counted by what is written, so that one choice of a seed is as likely to fall into a
promotion as into the many small files of a cache.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

PLACES = {
    "data.dvc": "books",
    ".data.dvc.": "books",
    "dvc.lock": "books",
    ".dvc.lock.": "books",
    ".dvc/tmp/": "locks",
    "data/": "data",
    ".dvc/cache/": "cache",
    "var/remote/": "remote",
    "var/landing/": "zones",
    "var/quarantine/": "zones",
    "var/incoming/": "zones",
    "build/": "build",
    "var/bentoml/": "bento",
    "var/champions/": "champions",
    "var/mlflow/settled/": "settled",
    "var/mlflow/artifacts/": "artifacts",
    "var/memo/": "memo",
}
"""Beginning of a path in the project → the kind of boundary."""

KINDS = (*dict.fromkeys(PLACES.values()), "registry")

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

_state: dict[str, Any] = {"counts": Counter(), "kill": None}
_lock = threading.Lock()


def arm(kill: dict[str, Any] | None, say: int, root: Path, counts: str | None) -> None:
    """From now on count boundaries; at the chosen one (`kind`, `at`, `delay` in seconds, None: at once) be killed."""
    _state.update(kill=kill, say=say, root=f"{root}/", report=counts)
    sys.addaudithook(_hook)
    _hook_commits()


def report() -> None:
    """Write down how many boundaries of each kind there were."""
    if _state["report"]:
        Path(_state["report"]).write_text(json.dumps(_state["counts"]))


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if not isinstance(flags, int) or not flags & WRITES:
            return
        _boundary(path)
    elif event in {"os.rename", "os.link", "os.symlink"}:
        _boundary(arguments[1])
    elif event in {"os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}:
        _boundary(arguments[0])


def _boundary(path: Any) -> None:
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str | os.PathLike):
        return
    where = os.fspath(path)
    if not where.startswith("/"):
        where = f"{Path.cwd()}/{where}"
    if not where.startswith(_state["root"]):
        return
    inside = where[len(_state["root"]) :]
    for begins, kind in PLACES.items():
        if inside.startswith(begins):
            _pass(kind, inside)
            return


def _pass(kind: str, what: str) -> None:
    with _lock:
        _state["counts"][kind] += 1
        kill = _state["kill"]
        if kill is None or kill["kind"] != kind or _state["counts"][kind] != kill["at"]:
            return
    os.write(2, f"killed at boundary {kill['at']} of {kind}: {what}\n".encode())
    if kill["delay"] is None:
        os.kill(os.getpid(), signal.SIGKILL)
    os.write(_state["say"], str(kill["delay"]).encode())


def _hook_commits() -> None:
    from sqlalchemy.engine.default import DefaultDialect

    commit = DefaultDialect.do_commit

    def counted(self: Any, connection: Any) -> None:
        if connection.in_transaction:  # something was written
            _pass("registry", "before a commit")
            commit(self, connection)
            _pass("registry", "after a commit")
        else:
            commit(self, connection)

    DefaultDialect.do_commit = counted
