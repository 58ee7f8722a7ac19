"""Prefect's deployments of this project: when each runs next, and how its last run ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.prefect_support import api

Record = Mapping[str, Any]
"""What Prefect's API answers of a deployment or of a run."""


@dataclass(frozen=True)
class LastRun:
    """How the last run ended."""

    state: str
    """COMPLETED, FAILED, CRASHED or CANCELLED."""
    name: str
    message: str
    time: str
    url: str

    @property
    def state_name(self) -> str:
        """NotDue: not due."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.name).lower()


@dataclass(frozen=True)
class Plan:
    """A deployment: when it runs next, and how its last run ended."""

    title: str
    """As Prefect writes it: flow/deployment."""
    url: str
    cron: str | None
    """The schedule; None where there is none, or it is off."""
    paused: bool
    next: str | None
    running: str | None
    """The address of the run that is under way."""
    last: LastRun | None


def read(ui: str) -> dict[str, Plan]:
    """Title → plan, of each of Evergreen's deployments.

    Args:
        ui: address of Prefect's UI.

    Raises:
        PrefectApiError: the Prefect server does not answer, or refuses.
    """
    ours = {"deployments": {"tags": {"all_": ["evergreen"]}}}
    names = {flow["id"]: flow["name"] for flow in api.call("/flows/filter", {}, patience=0)}
    deployments = api.call("/deployments/filter", ours, patience=0)
    ahead = _runs(ours, ["SCHEDULED"], "NEXT_SCHEDULED_START_TIME_ASC")
    running = _runs(ours, ["PENDING", "RUNNING", "CANCELLING"], "EXPECTED_START_TIME_DESC")
    ended = _runs(ours, ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"], "END_TIME_DESC")
    plans = []
    for deployment in deployments:
        at = deployment["id"]
        title = f"{names.get(deployment['flow_id'], '?')}/{deployment['name']}"
        plans.append(
            _plan(f"{ui}/deployments/deployment/{at}", title, deployment, ahead.get(at), running.get(at), ended.get(at))
        )
    return {plan.title: plan for plan in sorted(plans, key=lambda plan: plan.title)}


def _runs(ours: dict[str, Any], types: list[str], sort: str) -> dict[str, Record]:
    """Deployment → its first run in this order."""
    wanted = {"state": {"type": {"any_": types}, "name": {"not_any_": ["Coalesced"]}}}
    runs = api.call("/flow_runs/filter", {**ours, "flow_runs": wanted, "sort": sort, "limit": 100}, patience=0)
    return {run["deployment_id"]: run for run in reversed(runs)}


def _plan(
    url: str, title: str, deployment: Record, ahead: Record | None, running: Record | None, ended: Record | None
) -> Plan:
    active = [entry["schedule"].get("cron") for entry in deployment["schedules"] if entry["active"]]
    return Plan(
        title=title,
        url=url,
        cron=next((cron for cron in active if cron), None),
        paused=bool(deployment["paused"]),
        next=ahead["next_scheduled_start_time"] or ahead["expected_start_time"] if ahead else None,
        running=api.run_url(running["id"]) if running else None,
        last=_last(ended) if ended else None,
    )


def _last(run: Record) -> LastRun:
    state, message = run["state"], " ".join((run["state"]["message"] or "").split())
    return LastRun(state["type"], state["name"], message, run["end_time"] or state["timestamp"], api.run_url(run["id"]))
