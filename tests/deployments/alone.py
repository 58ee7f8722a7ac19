"""A Prefect server alone, with the small project deployed: there is no worker, so what is woken stays to be seen."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.context import refresh_global_settings_context

from deployments.local import servers, services
from flows.prefect_support import api
from tasks.ground import http
from tests.conftest import Project, work_on
from tests.deployments.conftest import _receiver as receiver
from tests.deployments.conftest import until


@dataclass(frozen=True)
class Alone:
    """The project, and what was sent to EVERGREEN_NOTIFY_URL."""

    project: Project
    told: list[dict[str, str]]

    def message(self, subject: str) -> str:
        """Wait for the message with this subject; gives its text."""
        return str(until(lambda: [one for one in self.told if one["subject"] == subject], 60, subject)[0]["text"])


@contextmanager
def server(copied: Path, root: Path, **numbers: float) -> Iterator[Alone]:
    """Work on a copy of a project beside a server of its own; these numbers of automations are others."""
    shutil.copytree(copied, root, symlinks=True)
    with pytest.MonkeyPatch.context() as patch, receiver() as (url, told):
        patch.setenv("PREFECT_SERVER_API_PORT", str(http.free_port()))
        project = work_on(root, patch)
        patch.setenv("EVERGREEN_NOTIFY_URL", url)
        for name, value in services.environment().items():
            if name.startswith("PREFECT_SERVER_"):
                patch.setenv(name, value)
        port, address = os.environ["PREFECT_SERVER_API_PORT"], os.environ["PREFECT_API_URL"]
        command = [sys.executable, "-m", "deployments.orchestration.prefect_server", "--port", port]
        with servers.process([str(word) for word in command], "prefect") as running:
            servers.wait_for(f"{address}/health", running, "prefect", seconds=120)
            given = "".join(f"automations.{name} = {value}\n" for name, value in numbers.items())
            project.python(
                f"from deployments.orchestration import automations, registration\n{given}assert registration.main() == 0"
            )
            refresh_global_settings_context()  # Prefect may have read the environment of another test
            yield Alone(project, told)


def post(event: str, resource: str, **payload: Any) -> None:
    """Tell the server of an event, now."""
    said = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": event, "payload": payload}
    api.call("/events", [{**said, "resource": {"prefect.resource.id": resource}}])
