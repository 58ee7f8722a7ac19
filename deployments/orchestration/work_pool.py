"""Prefect's work pool: the deployments of all flows name it, and the worker polls it."""

from __future__ import annotations

from datetime import datetime

from flows.prefect_support import api

POOL = "evergreen"

WORKER = "local"
"""The worker's name in that pool."""


def worker_answers(since: datetime) -> bool:
    """Whether the server has had a heartbeat of the worker since then."""
    try:
        workers = api.call(f"/work_pools/{POOL}/workers/filter", {}, patience=0)
    except api.PrefectApiError:
        return False
    beats = [worker["last_heartbeat_time"] for worker in workers if worker["name"] == WORKER]
    return any(datetime.fromisoformat(beat) >= since for beat in beats)
