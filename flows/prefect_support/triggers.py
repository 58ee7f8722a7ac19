"""One flow wakes another; wakes that wait behind a run are answered by it, as long as it has not looked yet.

Whatever they were to tell is there to be seen: so a burst of a hundred wakes costs one run, or two where some came
while the first was at work. Nothing is lost: what comes after the look stays, and is a run of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flows.prefect_support import api
from tasks.ground.errors import WorldError

COALESCED = {"type": "COMPLETED", "name": "Coalesced"}

INTERRUPTED = {"type": "SCHEDULED", "name": "Interrupted"}
"""A run whose process was ended with the platform, or never began: it is started again (crash_recovery.py)."""


class DeploymentPaused(WorldError):
    """Somebody has paused the deployment: a person starts it, nobody else."""


def trigger(title: str, parameters: dict[str, Any] | None = None, key: str | None = None) -> str | None:
    """Have a deployment (`flow/name`) run; gives the flow run's id, or None where the server knows no such deployment.

    The same key wakes once: the second call gives the run that the first one made.

    Raises:
        DeploymentPaused: somebody has paused it.
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
    body: dict[str, Any] = {
        "name": flow if flow == name else title
    }  # as it names itself when it begins; until then Prefect invents one
    body |= {"parameters": parameters or {}, "state": {"type": "SCHEDULED"}, "idempotency_key": key}
    return str(api.call(f"/deployments/{deployment['id']}/create_flow_run", body)["id"])


def under_way(title: str, patience: int = len(api.PAUSES)) -> bool:
    """Whether a run of a deployment is due, starting or running: what it does not see is looked at afterwards."""
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    flow, name = title.split("/")
    which = {"deployments": {"name": {"any_": [name]}}, "flows": {"name": {"any_": [flow]}}}
    for runs in (
        {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}},
        {"state": {"type": {"any_": ["SCHEDULED"]}}, "next_scheduled_start_time": {"before_": soon}},
    ):
        if api.call("/flow_runs/count", {**which, "flow_runs": runs}, patience=patience):
            return True
    return False


def coalesce_waiting() -> int:
    """To be called before a flow looks at anything: ends the runs that wait to do the same. Gives how many there were.

    Only those of the same deployment with the same parameters; a run outside of any deployment has none.
    """
    from prefect.runtime import deployment, flow_run

    if not deployment.id:
        return 0
    mine = str(flow_run.id)
    answered = 0
    for other in _waiting(str(deployment.id)):
        if other["id"] != mine and other["parameters"] == flow_run.parameters:
            state = {**COALESCED, "message": f"answered by {api.run_url(mine)}, which had not looked yet"}
            answered += _end(other["id"], state)
    return answered


def _waiting(deployment_id: str) -> list[dict[str, Any]]:
    """The runs that have not begun; not those that the schedule has ahead."""
    names = {"any_": ["Scheduled", "Late", "AwaitingConcurrencySlot", INTERRUPTED["name"]]}
    which = {"deployment_id": {"any_": [deployment_id]}, "state": {"name": names}}
    there = api.call("/flow_runs/filter", {"flow_runs": which, "sort": "EXPECTED_START_TIME_ASC"})
    now = datetime.now(UTC)
    return [
        one for one in there if not one["auto_scheduled"] or datetime.fromisoformat(one["expected_start_time"]) <= now
    ]


def _end(flow_run_id: str, state: dict[str, str]) -> bool:
    """End a run that has not begun; one that has begun meanwhile goes on."""
    try:
        answer = api.call(f"/flow_runs/{flow_run_id}/set_state", {"state": state})
    except api.PrefectNotFound:
        return False
    return bool(answer["status"] == "ACCEPT")
