"""Work queue of triggers: one flow triggers another, and a run that begins covers all that wait to do the same.

A run looks at the current state itself, so a burst of a hundred triggers costs one run, or two where some came while
the first was at work. Nothing is lost: what comes after the look stays, and gets a run of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flows.prefect_support import api
from tasks.ground.errors import WorldError

COALESCED = {"type": "COMPLETED", "name": "Coalesced"}

INTERRUPTED = {"type": "SCHEDULED", "name": "Interrupted"}
"""A run whose process was ended with the platform, or never began: it is started again (crash_recovery.py)."""

WAITING = ("Scheduled", "Late", "AwaitingConcurrencySlot", INTERRUPTED["name"])


class DeploymentPaused(WorldError):
    """A deployment is paused: only a person starts it."""


def trigger(title: str, parameters: dict[str, Any] | None = None, key: str | None = None) -> str | None:
    """Create a run of a deployment (`flow/name`); gives its id, or None where the server has no such deployment.

    Args:
        title: flow/name.
        parameters: instead of the deployment's own.
        key: of idempotency: a second call with it gives the run of the first.

    Raises:
        DeploymentPaused: the deployment is paused.
    """
    try:
        deployment = api.call(f"/deployments/name/{title}")
    except api.PrefectNotFound:
        return None
    if deployment["paused"]:
        raise DeploymentPaused(
            f"{title} is paused in Prefect and is not started: resume it in the UI, or start it by its button"
        )
    flow, _, name = title.partition("/")
    body = {
        "name": flow if flow == name else title,  # as the run names itself when it begins; else Prefect invents one
        "parameters": parameters or {},
        "state": {"type": "SCHEDULED"},
        "idempotency_key": key,
    }
    return str(api.call(f"/deployments/{deployment['id']}/create_flow_run", body)["id"])


def require(title: str) -> str:
    """Create a run of a deployment; gives its id.

    Raises:
        DeploymentPaused: as trigger.
        WorldError: the server has no such deployment.
    """
    run = trigger(title)
    if run is None:
        raise WorldError(
            f"the Prefect server has no {title} yet: `evergreen up` registers it, as does `evergreen register`"
        )
    return run


def under_way(title: str) -> bool:
    """Whether a run of a deployment is due, starting or running."""
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    flow, name = title.split("/")
    which = {"deployments": {"name": {"any_": [name]}}, "flows": {"name": {"any_": [flow]}}}
    active = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    due = {"state": {"type": {"any_": ["SCHEDULED"]}}, "next_scheduled_start_time": {"before_": soon}}
    return any(api.call("/flow_runs/count", {**which, "flow_runs": runs}) for runs in (active, due))


def coalesce_waiting() -> int:
    """End the runs that wait to do the same as this one; gives how many. To be called before a flow looks at anything.

    The same is: of the same deployment, with the same parameters. A run outside of any deployment covers none.
    """
    from prefect.runtime import deployment, flow_run

    if not deployment.id:
        return 0
    this_run, now = str(flow_run.id), datetime.now(UTC)
    which = {"deployment_id": {"any_": [str(deployment.id)]}, "state": {"name": {"any_": list(WAITING)}}}
    waiting = api.call("/flow_runs/filter", {"flow_runs": which, "sort": "EXPECTED_START_TIME_ASC"})
    same = [run for run in waiting if run["id"] != this_run and run["parameters"] == flow_run.parameters]
    state = {**COALESCED, "message": f"covered by {api.run_url(this_run)}, which had not looked yet"}
    return sum(_end(run["id"], state) for run in same if _is_due(run, now))


def _is_due(run: dict[str, Any], now: datetime) -> bool:
    return not run["auto_scheduled"] or datetime.fromisoformat(run["expected_start_time"]) <= now


def _end(flow_run_id: str, state: dict[str, str]) -> bool:
    """End a run that has not begun; one that has begun meanwhile goes on."""
    try:
        return bool(api.call(f"/flow_runs/{flow_run_id}/set_state", {"state": state})["status"] == "ACCEPT")
    except api.PrefectNotFound:
        return False
