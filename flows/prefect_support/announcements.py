"""Note of the data version that the trainings were last triggered for, and by which runs.

It is written when all of them have a run, and counts only as long as the server has these runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flows.prefect_support import api
from tasks.ground import files, paths


def version() -> str | None:
    """The data version that was announced last, to whichever server."""
    return _note().get("version")


def read() -> dict[str, Any]:
    """What was announced to this server; nothing, where it has lost one of the runs, as a new database has.

    Raises:
        PrefectApiError: the Prefect server does not answer.
    """
    note = _note()
    if note.get("api") != server_digest() or not all(_has_run(run) for run in note.get("runs", [])):
        return {}
    return note


def write(version: str, datasets: Mapping[str, str], runs: list[str]) -> None:
    """Note that every training that reads these datasets was triggered."""
    now = datetime.now(UTC).isoformat()
    note = {"version": version, "datasets": datasets, "runs": runs, "api": server_digest(), "at": now}
    files.write_json(paths.announced_data(), note)


def server_digest() -> str:
    """Which server: a digest of its address, which may hold a password."""
    return files.digest(os.environ["PREFECT_API_URL"])


def _has_run(run: str) -> bool:
    try:
        api.call(f"/flow_runs/{run}")
    except api.PrefectNotFound:
        return False
    return True


def _note() -> dict[str, Any]:
    return files.read_state(paths.announced_data(), dict[str, Any]())
