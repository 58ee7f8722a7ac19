"""Which data version the models were told of last: noted when all were, and told again where what was told is gone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.prefect_support import api
from tasks.ground import files, paths


def version() -> str | None:
    """The data version that was told last, to whichever server."""
    found: str | None = _note().get("version")
    return found


def read() -> dict[str, Any]:
    """What this server was told; nothing, if it has none of the runs that this made: it was begun anew.

    Raises:
        PrefectApiError: the Prefect server does not answer.
    """
    note = _note()
    if note.get("api") != whom() or not all(_is_there(run) for run in note.get("runs", [])):
        return {}
    return note


def write(told: str, datasets: Mapping[str, str], runs: list[str]) -> None:
    """Note that everybody was told."""
    now = datetime.now(UTC).isoformat()
    files.write_json(_path(), {"version": told, "datasets": datasets, "runs": runs, "api": whom(), "at": now})


def whom() -> str:
    """Which server was told: by digest, as an address may hold a password."""
    return files.digest(os.environ["PREFECT_API_URL"])


def _is_there(run: str) -> bool:
    try:
        api.call(f"/flow_runs/{run}")
    except api.PrefectNotFound:
        return False
    return True


def _note() -> dict[str, Any]:
    return files.read_state(_path(), dict[str, Any]())


def _path() -> Path:
    return paths.announced_data()
