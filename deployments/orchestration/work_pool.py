"""Prefect's work pool: the deployments of all flows name it, and the worker polls it."""

from __future__ import annotations

import socket
import zlib
from datetime import UTC, datetime
from typing import Any

from flows.prefect_support import api
from tasks.ground import leases, settings

POOL = "evergreen"

SERVING = "serving"
"""The queue of what has to run beside a router: other workers of a fleet do not ask for it."""


def worker() -> str:
    """The worker's name in that pool; in a fleet each machine and checkout has one of its own."""
    if not leases.is_fleet():
        return "local"
    return f"{socket.gethostname()}-{zlib.crc32(str(settings.ROOT).encode()):08x}"


def worker_answers(since: datetime) -> bool:
    """Whether the server has had a heartbeat of the worker since then."""
    try:
        with api.patience(0):
            workers = api.call(f"/work_pools/{POOL}/workers/filter", {})
    except api.PrefectApiError:
        return False
    name = worker()
    beats = [each["last_heartbeat_time"] for each in workers if each["name"] == name]
    return any(datetime.fromisoformat(beat) >= since for beat in beats)


def flow_runs(which: dict[str, Any]) -> list[dict[str, Any]]:
    """The flow runs of the pool that a filter of the API selects."""
    return list(api.call("/flow_runs/filter", {"work_pools": {"name": {"any_": [POOL]}}, **which}))


def due() -> int:
    """How many runs of the pool should have begun by now."""
    now = datetime.now(UTC).isoformat()
    which = {"state": {"type": {"any_": ["SCHEDULED"]}}, "next_scheduled_start_time": {"before_": now}}
    return int(api.call("/flow_runs/count", {"work_pools": {"name": {"any_": [POOL]}}, "flow_runs": which}))


def active_runs() -> list[dict[str, Any]]:
    """The flow runs that have begun and not ended."""
    states = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}
    return flow_runs({"flow_runs": {"state": states}})
