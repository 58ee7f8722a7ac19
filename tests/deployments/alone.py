"""A Prefect server with the small project registered: there is no worker, so the runs that are triggered can be seen.

All tests of a process share one server, emptied for each project: to start another takes six seconds of a core. Half
of them go into an empty database: the first server of all starts with none, and later ones with a copy of its.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.context import refresh_global_settings_context

from deployments.local import servers, services
from deployments.orchestration import automations, registration
from flows.prefect_support import api
from tasks.ground import files, http, paths
from tests.conftest import REPOSITORY, Project, copy_project, work_on
from tests.deployments.conftest import _receiver as receiver
from tests.deployments.conftest import until

KEPT_TABLES = ("alembic_version", "block_type", "block_schema", "block_schema_reference", "configuration")
"""What the server writes into its database when it starts."""


MIGRATED = REPOSITORY / ".pytest_cache" / f"prefect-{version('prefect')}"
"""What a server of this version has made of an empty folder."""


@dataclass
class SharedServer:
    """The server of this process, once it was needed."""

    port: int = field(default_factory=http.free_port)
    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="prefect-")))
    process: subprocess.Popen[bytes] | None = None

    def ensure(self) -> None:
        """Have it answer, and know nothing."""
        if self.process is not None and self.process.poll() is None:
            self._empty()
            return
        is_first = not MIGRATED.exists()
        if not is_first:
            shutil.copytree(MIGRATED, self.home, dirs_exist_ok=True)
        command = [sys.executable, "-m", "deployments.orchestration.prefect_server", "--port", str(self.port)]
        log = paths.log("prefect")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            environment = {**os.environ, "PREFECT_HOME": str(self.home)}
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        atexit.register(self.end)
        servers.wait_for(f"{os.environ['PREFECT_API_URL']}/health", self.process, "prefect", seconds=120)
        if is_first:
            self._keep()

    def _keep(self) -> None:
        with files.replacing(MIGRATED) as beside:
            beside.mkdir(parents=True)
            shutil.copy(self.home / "memo_store.toml", beside)  # says that the blocks of this version are registered
            source, copy = (sqlite3.connect(folder / "prefect.db", timeout=60) for folder in (self.home, beside))
            with closing(source), closing(copy):
                source.backup(copy)

    def _empty(self) -> None:
        for automation in api.call("/automations/filter", {}):  # it holds their triggers in memory
            api.call(f"/automations/{automation['id']}", method="DELETE")
        with closing(sqlite3.connect(self.home / "prefect.db", timeout=60)) as database, database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                if table not in KEPT_TABLES and not table.startswith("sqlite_"):
                    database.execute(f'DELETE FROM "{table}"')

    def end(self) -> None:
        """With this process."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


SHARED = SharedServer()


@dataclass(frozen=True)
class Alone:
    """The project, and what was sent to EVERGREEN_NOTIFY_URL."""

    project: Project
    told: list[dict[str, str]]

    def message(self, subject: str) -> str:
        """Wait for the message with this subject; gives its text."""
        sent = until(lambda: [message for message in self.told if message["subject"] == subject], 60, subject)
        return str(sent[0]["text"])


@contextmanager
def server(copied: Path, root: Path, **numbers: float) -> Iterator[Alone]:
    """Work on a copy of a project, registered with the server; these numbers of automations are others."""
    copy_project(copied, root)
    with pytest.MonkeyPatch.context() as patch, receiver() as (url, told):
        patch.setenv("PREFECT_SERVER_API_PORT", str(SHARED.port))
        project = work_on(root, patch)
        patch.setenv("EVERGREEN_NOTIFY_URL", url)
        for name, value in services.environment().items():
            if name.startswith("PREFECT_SERVER_"):
                patch.setenv(name, value)
        SHARED.ensure()
        refresh_global_settings_context()  # Prefect may have read the environment of another test
        with pytest.MonkeyPatch.context() as changed:
            for name, value in numbers.items():
                changed.setattr(automations, name, value)
            assert registration.main() == 0
        yield Alone(project, told)


def post(event: str, resource: str, **payload: Any) -> None:
    """Send an event to the server, now."""
    message = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": event, "payload": payload}
    api.call("/events", [{**message, "resource": {"prefect.resource.id": resource}}])
