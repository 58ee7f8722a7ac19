"""Prefect's deployments of this project: when each runs next, and how its last run ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.orchestration import registration
from flows.prefect_support import api
from flows.prefect_support.triggers import COALESCED

Record = Mapping[str, Any]  # what Prefect's API answers of a deployment or of a run


@dataclass(frozen=True)
class LastRun:
    """How the last run ended."""

    state: str  # COMPLETED, FAILED, CRASHED or CANCELLED
    state_name: str  # in words: NotDue is not due
    message: str
    time: str
    url: str


@dataclass(frozen=True)
class Plan:
    """A deployment: when it runs next, and how its last run ended."""

    title: str  # as Prefect writes it: flow/deployment
    url: str
    cron: str | None  # the schedule; None where there is none, or it is off
    paused: bool
    next: str | None
    running: str | None  # the address of the run that is under way
    last: LastRun | None


def read(ui: str) -> dict[str, Plan]:
    """Title → plan, of each of Evergreen's deployments; `ui` is the address of Prefect's UI."""
    with api.patience(0):
        registered = registration.registered()
        ahead = _first_runs(["SCHEDULED"], "NEXT_SCHEDULED_START_TIME_ASC")
        running = _first_runs(["PENDING", "RUNNING", "CANCELLING"], "EXPECTED_START_TIME_DESC")
        ended = _first_runs(["COMPLETED", "FAILED", "CRASHED", "CANCELLED"], "END_TIME_DESC")
    return {
        title: _plan(ui, title, deployment, *(runs.get(deployment["id"]) for runs in (ahead, running, ended)))
        for title, deployment in sorted(registered.items())
    }


def _first_runs(types: list[str], sort: str) -> dict[str, Record]:
    """Deployment → its first run in this order."""
    wanted = {"state": {"type": {"any_": types}, "name": {"not_any_": [COALESCED["name"]]}}}
    body = {"deployments": registration.OURS, "flow_runs": wanted, "sort": sort, "limit": 100}
    runs = api.call("/flow_runs/filter", body)
    return {run["deployment_id"]: run for run in reversed(runs)}


def _plan(
    ui: str, title: str, deployment: Record, ahead: Record | None, running: Record | None, ended: Record | None
) -> Plan:
    active = [entry["schedule"].get("cron") for entry in deployment["schedules"] if entry["active"]]
    return Plan(
        title=title,
        url=f"{ui}/deployments/deployment/{deployment['id']}",
        cron=next(filter(None, active), None),
        paused=bool(deployment["paused"]),
        next=ahead["next_scheduled_start_time"] or ahead["expected_start_time"] if ahead else None,
        running=api.run_url(running["id"]) if running else None,
        last=_last(ended) if ended else None,
    )


def _last(run: Record) -> LastRun:
    state, message = run["state"], " ".join((run["state"]["message"] or "").split())
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", state["name"]).lower()
    return LastRun(state["type"], name, message, run["end_time"] or state["timestamp"], api.run_url(run["id"]))
