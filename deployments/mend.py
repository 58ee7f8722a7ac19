"""What was killed is noticed, and begun again.

A flow run whose process is gone stays pending or running for the server, and keeps its place: nobody else can say how
it ended. On the machine whose worker started it, whether the process is there can be seen. Such a run is told to have
crashed; and a deployment whose last run crashed is woken, ever more seldom: what it left half done, the next one ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psutil

from deployments.services import POOL
from flows import api, wakes

GRACE_SECONDS = 30
"""A run that changed its state later than this may be just starting or ending."""

PATIENCE = (5, 30, 120)
"""Seconds until a deployment is woken after its first, second and third crash in a row; then its schedule has to."""

MARK = "PREFECT__FLOW_RUN_ID"
"""The variable by which Prefect tells a process which flow run it is."""


def mend() -> list[str]:
    """Look once; gives a line for each thing that was done.

    Raises:
        ApiSilent: the Prefect server does not answer.
    """
    return [*_release_stranded(), *_wake_crashed()]


def _release_stranded() -> Iterator[str]:
    going = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    runs = _runs({"flow_runs": going})
    old = [run for run in runs if _age(run["state"]["timestamp"]) > GRACE_SECONDS]
    there = _flow_runs_here() if old else set()
    for run in old:
        if run["id"] not in there:
            was = run["state_name"].lower()
            state = {"type": "CRASHED", "name": "Crashed", "message": f"its process is gone while it was {was}"}
            api.call(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
            yield f"{run['name']} was {was}, but its process is gone: crashed. {api.run_url(run['id'])}"


def _wake_crashed() -> Iterator[str]:
    deployments = api.call("/deployments/filter", {"work_pools": {"name": {"any_": [POOL]}}})
    for deployment in deployments:
        ended = {
            "deployment_id": {"any_": [deployment["id"]]},
            "state": {"name": {"not_any_": ["Scheduled", "Answered"]}},
        }
        last = _runs({"flow_runs": ended, "sort": "EXPECTED_START_TIME_DESC", "limit": len(PATIENCE) + 1})
        crashes = next((n for n, run in enumerate(last) if run["state_type"] != "CRASHED"), len(last))
        if 0 < crashes <= len(PATIENCE) and _age(last[0]["end_time"]) > PATIENCE[crashes - 1]:
            flow = api.call(f"/flows/{deployment['flow_id']}")["name"]
            title = f"{flow}/{deployment['name']}"
            before = api.call("/flow_runs/count", {"flow_runs": {"idempotency_key": {"any_": [_key(last[0])]}}})
            run = wakes.wake(title, last[0]["parameters"], key=_key(last[0]))
            if run and not before:
                yield f"{title} crashed: woken again, {api.run_url(run)}"


def _key(crashed: dict[str, Any]) -> str:
    return f"after {crashed['id']}"


def _runs(which: dict[str, Any]) -> list[dict[str, Any]]:
    return list(api.call("/flow_runs/filter", {"work_pools": {"name": {"any_": [POOL]}}, **which}))


def _age(moment: str | None) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds() if moment else 0.0


def _flow_runs_here() -> set[str]:
    """The flow runs that have a process on this machine."""
    found = set()
    for process in psutil.process_iter():
        try:
            found.add(process.environ().get(MARK, ""))
        except (psutil.Error, OSError):  # gone, or another user's
            continue
    return found
