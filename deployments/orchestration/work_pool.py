"""Prefect's work pool: the deployments of all flows name it, and the worker polls it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flows.prefect_support import api

POOL = "evergreen"

WORKER = "local"  # the worker's name in that pool


def worker_answers(since: datetime) -> bool:
    """Whether the server has had a heartbeat of the worker since then."""
    try:
        with api.patience(0):
            workers = api.call(f"/work_pools/{POOL}/workers/filter", {})
    except api.PrefectApiError:
        return False
    beats = [worker["last_heartbeat_time"] for worker in workers if worker["name"] == WORKER]
    return any(datetime.fromisoformat(beat) >= since for beat in beats)


def flow_runs(which: dict[str, Any]) -> list[dict[str, Any]]:
    """The flow runs of the pool that a filter of the API selects."""
    return list(api.call("/flow_runs/filter", {"work_pools": {"name": {"any_": [POOL]}}, **which}))


def active_runs() -> list[dict[str, Any]]:
    """The flow runs that have begun and not ended."""
    states = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}
    return flow_runs({"flow_runs": {"state": states}})
