"""The work pool of the flows' deployments, and the worker that asks it."""

from __future__ import annotations

from datetime import datetime

from flows.prefect_support import api

POOL = "evergreen"
"""The work pool that the flows' deployments name and the worker asks."""

WORKER = "local"
"""The worker's name in that pool."""


def worker_answers(since: datetime) -> bool:
    """Whether the server has heard the worker's heartbeat since then."""
    try:
        workers = api.call(f"/work_pools/{POOL}/workers/filter", {}, patience=0)
    except api.PrefectApiError:
        return False
    return any(one["name"] == WORKER and datetime.fromisoformat(one["last_heartbeat_time"]) >= since for one in workers)
