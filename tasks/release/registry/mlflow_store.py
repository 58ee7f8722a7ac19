"""Connection to the MLflow store: probed before MLflow opens it, retried, and its failures as errors of Evergreen."""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from urllib.parse import quote, unquote, urlsplit

from tasks.ground import addresses, files, leases, paths, settings
from tasks.ground.errors import RegistryDamaged, RegistryUnavailable
from tasks.ground.words import one_line
from tasks.release.registry import fencing

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAUSES = (0.5, 2.0)
"""Seconds before the second and the third try."""

PATIENCE = 5.0
"""Seconds that one try waits for a store that is locked or does not answer."""

P = ParamSpec("P")
T = TypeVar("T")


def with_retries(function: Callable[P, T]) -> Callable[P, T]:
    """Retry a function, which may be called again, while the store is locked or does not answer."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause in (*PAUSES, None):
            try:
                with _outages():
                    return function(*args, **kwargs)
            except _Unreachable as error:
                if pause is None or error.final:
                    raise RegistryUnavailable(_unavailable(str(error))) from error
                time.sleep(pause)
            except Exception as error:
                if type(error).__name__ != "MlflowException" and not type(error).__module__.startswith("mlflow."):
                    raise
                raise RegistryDamaged(
                    f"MLflow refuses what is needed ({function.__name__} of {', '.join(map(str, args[:2]))}): "
                    f"{' '.join(str(error).split())[:300]}. Was something deleted, renamed or edited in its UI? "
                    f"docs/how-to/mlflow-ui.md says what becomes of that, and the way back"
                ) from error
        raise AssertionError("unreachable")

    return call


class _Unreachable(Exception):
    """The store did not answer. Final: trying again will not help."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@contextmanager
def _outages() -> Iterator[None]:
    """Raise `_Unreachable` for a store that is locked or gone; a defect of this project stays what it is."""
    try:
        yield
    except sqlite3.Error as error:
        raise _Unreachable(str(error), final="locked" not in str(error) and "busy" not in str(error)) from error
    except OSError as error:
        is_local = error.errno in {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EDQUOT}
        if not is_local and not isinstance(error, ConnectionError | TimeoutError):
            raise
        raise _Unreachable(str(error), final=is_local) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"mlflow", "sqlalchemy"} or not _is_outage(error):
            raise
        raise _Unreachable(one_line(error, 500), final="out-of-date" in str(error)) from error


def _is_outage(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import InterfaceError, OperationalError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return True
    if not isinstance(error, MlflowException):
        return False
    if error.error_code in {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"} or "out-of-date" in str(error):
        return True
    return error.error_code == "INTERNAL_ERROR" and _sqlite_path() is None  # a server's 5xx, or none that answers


def _unavailable(what: str) -> str:
    address = uri()
    what = addresses.masked(what, address)
    if _sqlite_path() is not None:
        todo = "Find out who holds it (`mlflow ui`, a backup, a stopped process: lsof names it), or whether the disk "
        todo += "is full (a store of an older MLflow wants `mlflow db upgrade`)"
    else:
        todo = "Start the server, or name another one in MLFLOW_TRACKING_URI"
    cannot = f"the MLflow store {addresses.masked(address)} cannot be used: {what}. Without it nothing is promoted"
    return f"{cannot}. {todo}, then run again."


class Tolerating:
    """Block that passes over MLflow's refusal with this error code."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        return getattr(error, "error_code", None) == self.code


def write_artifacts(client: MlflowClient, run_id: str, contents: Mapping[str, bytes], to: str | None = None) -> None:
    """Store files with a run: name → content, one after the other, in its folder `to`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            path = Path(folder) / name
            path.write_bytes(content)
            client.log_artifact(run_id, str(path), to)


def read_artifact(client: MlflowClient, run_id: str, path: str) -> str | None:
    """The text of a run's file; None where there is none."""
    if path not in {file.path for file in client.list_artifacts(run_id, path.rpartition("/")[0] or None)}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, path, folder)).read_text(encoding="utf-8")


def uri() -> str:
    """The store's address, with any secret in it: not to be shown."""
    return os.environ.get("MLFLOW_TRACKING_URI") or settings.environment()["MLFLOW_TRACKING_URI"]


def artifact_root() -> str:
    """Where files of new experiments go: what MLflow's own variable names, else a folder of this machine."""
    return os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or paths.mlflow_artifacts().as_uri()


def _sqlite_path() -> Path | None:
    address = uri()
    return Path(address.removeprefix("sqlite:///").partition("?")[0]) if address.startswith("sqlite:///") else None


@contextmanager
def connect(alone_for: str | None = None) -> Iterator[MlflowClient]:
    """The client of a store that answers; `alone_for` a model whose entry is to be written."""
    with _alone(alone_for) if alone_for else nullcontext():
        _probe()
        import mlflow
        from mlflow import MlflowClient

        mlflow.set_tracking_uri(uri())  # what a client does to a model's version asks the store that this names
        yield MlflowClient(tracking_uri=uri(), registry_uri=uri())


@contextmanager
def _alone(model: str) -> Iterator[None]:
    """Nobody else writes a model's entry, and this process does only while its leases are its own."""
    with leases.hold(f"registry-{model}"), fencing.transactions() if fencing.sees_leases(uri()) else leases.fenced():
        yield


def _probe() -> None:
    """Check that the store answers before MLflow asks it, which would try for minutes and log a traceback each time."""
    path = _sqlite_path()
    if path is None:
        import socket

        address = urlsplit(uri())
        if address.scheme in {"http", "https"} and address.hostname:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname, port), timeout=PATIENCE).close()
        return
    if not path.exists() or not path.stat().st_size:
        _make_store(path)
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=PATIENCE)) as store:
        if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            raise _Unreachable("it is a database, but not MLflow's", final=True)
        store.execute("BEGIN IMMEDIATE")  # whether it can be written to
        store.rollback()
        if path == paths.mlflow_database():
            _follow_move(store)


@with_retries
def prepare() -> None:
    """Make the store if there is none, and have its addresses name this folder, before anything else opens it.

    Raises:
        RegistryUnavailable: it is locked, gone, or its artifacts are not here.
    """
    _probe()


HOME = re.compile(r"(file://.*/var/mlflow/artifacts)(/|$)")
"""Where a project's store says that its artifacts are."""


def _follow_move(store: sqlite3.Connection) -> None:
    """Rewrite MLflow's absolute addresses, which in a project that was moved or copied name the old folder.

    Only addresses of a project's own artifacts are changed, in one transaction; a bucket, or a folder that a person
    has chosen, stays.
    """
    here = paths.mlflow_artifacts().as_uri()
    elsewhere = "SELECT DISTINCT artifact_location FROM experiments WHERE substr(artifact_location, 1, ?) != ?"
    matches = (HOME.match(row[0] or "") for row in store.execute(elsewhere, (len(here) + 1, f"{here}/")))
    homes = {match[1] for match in matches if match and match[1] != here}
    for home in sorted(home for home in homes if not _is_here(home)):
        artifacts = paths.mlflow_artifacts()
        if not artifacts.is_dir() and store.execute("SELECT 1 FROM runs LIMIT 1").fetchone():
            raise _Unreachable(
                f"it was copied or moved here without its artifacts: they are named at {home}, and {artifacts} "
                f"is not there. Copy that folder too (docs/how-to/back-up-and-move.md)",
                final=True,
            )
        changed = _readdress(store, home, here)
        store.commit()
        logging.getLogger("evergreen").warning(
            "this project was moved or copied: %d addresses in MLflow's store named %s, and name %s now",
            changed,
            home,
            here,
        )


def _is_here(home: str) -> bool:
    folder = Path(unquote(urlsplit(home).path))
    return folder.exists() and paths.mlflow_artifacts().exists() and folder.samefile(paths.mlflow_artifacts())


def _readdress(store: sqlite3.Connection, home: str, here: str) -> int:
    """Rewrite the addresses in every column of text of every table; gives how many were changed."""
    columns = """SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
                 WHERE m.type = 'table' AND (c.type LIKE '%CHAR%' OR c.type LIKE '%TEXT%')"""
    changed = 0
    for table, column in store.execute(columns).fetchall():
        text = f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) WHERE substr("{column}", 1, ?) = ?'  # noqa: S608
        changed += store.execute(text, (f"{here}/", len(home) + 2, len(home) + 1, f"{home}/")).rowcount
    return changed


def _make_store(path: Path) -> None:
    """Make an empty store, whole or not at all: two processes that migrate one file break each other."""
    with files.lock("mlflow"):
        if path.exists() and path.stat().st_size:
            return
        artifacts = paths.mlflow_artifacts()
        if any(artifacts.glob("*/*")) and path == paths.mlflow_database():
            raise _Unreachable(
                f"{path} is {'empty' if path.exists() else 'gone'}, but {artifacts} is not: the registry was lost. "
                f"Restore it from a backup (docs/how-to/back-up-and-move.md); or move {artifacts} away to begin anew",
                final=True,
            )
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        for noisy in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        with files.replacing(path) as beside, _written_to_disk_in_the_end():
            made = SqlAlchemyStore(f"sqlite:///{beside}", artifacts.as_uri())  # type: ignore[no-untyped-call]  # MLflow
            made.engine.dispose()


@contextmanager
def _written_to_disk_in_the_end() -> Iterator[None]:
    """Have SQLite not wait for the disk: `files.replacing` does, once instead of for each of MLflow's 50 migrations."""
    from sqlalchemy import Engine, event

    def do_not_wait(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", do_not_wait)
    try:
        yield
    finally:
        event.remove(Engine, "connect", do_not_wait)
