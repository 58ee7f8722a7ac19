"""What stands in the way of the loop: switched off by somebody in a UI, or not as it should be; each with the way back.

Nothing of this is an error, and nothing is undone here: who paused a flow wanted it so. But a loop that stands still
without a word is found weeks later. `evergreen status`, the status page and the log of `make up` show it.
docs/reference/ui.md has what each edit in Prefect's UI comes to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from deployments.orchestration import automations, registration
from deployments.orchestration.work_pool import POOL
from flows.prefect_support import api, triggers
from tasks.ground import params
from tasks.release.registry import champion_lookup, desired_state


def find(said: params.Params) -> list[str]:
    """A sentence for each thing that stands in the way; first of all, what stops everything.

    Raises:
        PrefectApiError: the Prefect server does not answer.
    """
    return [
        *_of_pool(),
        *_of_deployments(said),
        *_of_automations(said),
        *_unserved(said),
    ]


def _unserved(said: params.Params) -> Iterator[str]:
    """The champions that do not serve, as far as that is plain, and that no rollout is at."""
    for model in said.models:
        change = champion_lookup.pending_change(model)
        if change and not triggers.under_way(f"rollout/{model}", patience=0):
            live = desired_state.read(model).live
            now = f"{live} does" if live else "nobody does"
            yield f"{change[0]} is champion of {model} and does not serve, {now}: rollout/{model} brings it or says why"


@dataclass
class Blockers:
    """Tells each of them once, and when it is gone."""

    known: list[str] = field(default_factory=list)

    def look(self, said: params.Params) -> Iterator[str]:
        """Look once; gives a line for each thing that is new or over. A champion that does not serve is told by others.

        Raises:
            PrefectApiError: the Prefect server does not answer.
        """
        now = [*_of_pool(), *_of_deployments(said), *_of_automations(said)]
        yield from (text for text in now if text not in self.known)
        yield from (f"no longer: {text}" for text in self.known if text not in now)
        self.known = now


def _of_pool() -> Iterator[str]:
    try:
        pool = api.call(f"/work_pools/{POOL}", patience=0)
    except api.PrefectNotFound:
        yield f"there is no work pool {POOL}, so no flow runs: `make up` registers it, and so does `evergreen register`"
        return
    if pool["is_paused"]:
        yield f"the work pool {POOL} is paused, so no flow runs: prefect work-pool resume {POOL}"
    if pool["concurrency_limit"] == 0:
        yield f"the work pool {POOL} may run 0 flows at once: prefect work-pool clear-concurrency-limit {POOL}"
    for queue in api.call(f"/work_pools/{POOL}/queues/filter", {}, patience=0):
        if queue["is_paused"] and not pool["is_paused"]:
            name = queue["name"]
            yield f"the work queue {name} is paused, so no flow of it runs: prefect work-queue resume {name} -p {POOL}"
        if queue["concurrency_limit"] == 0:
            name = queue["name"]
            yield f"the work queue {name} may run 0 flows: prefect work-queue clear-concurrency-limit {name} -p {POOL}"


def _of_deployments(said: params.Params) -> Iterator[str]:
    tagged = {"deployments": {"tags": {"all_": [registration.TAG]}}}
    there = {one["id"]: one for one in api.call("/deployments/filter", tagged, patience=0)}
    flows = {one["id"]: one["name"] for one in api.call("/flows/filter", {}, patience=0)}
    by_title = {f"{flows.get(one['flow_id'])}/{one['name']}": one for one in there.values()}
    for wanted in registration.deployments(said):
        title = wanted.title
        if title not in by_title:
            yield f"the server knows no {title}: `make up` registers it, and so does `evergreen register`"
        else:
            yield from _of_deployment(title, by_title[title], has_schedule=wanted.cron is not None)


def _of_deployment(title: str, there: dict[str, Any], *, has_schedule: bool) -> Iterator[str]:
    limit = there.get("global_concurrency_limit")
    if there["paused"]:
        yield f"{title} is paused, so only a person starts it: its switch in the UI resumes it"
    elif has_schedule and not there["schedules"]:
        yield (
            f"{title} has no schedule any more, so a wake that gets lost is not caught: give it one in the UI, "
            "or delete the deployment, which is made anew"
        )
    elif has_schedule and not any(one["active"] for one in there["schedules"]):
        yield f"the schedule of {title} is off, so a wake that gets lost is not caught: its switch in the UI"
    if limit and limit["limit"] == 0:
        yield f"{title} may run 0 times at once, so its runs wait for ever: `evergreen register` gives it its 1 back"
    if there.get("work_pool_name") != POOL:
        where = there.get("work_pool_name") or "none"
        yield f"{title} is in the work pool {where}, which no worker of `make up` asks: evergreen register takes it back"


def _of_automations(said: params.Params) -> Iterator[str]:
    there = {one["name"]: one for one in automations.registered(patience=0)}
    for wanted in registration.deployments(said):
        name = automations.name_of(wanted.title)
        if wanted.wakes and name not in there:
            yield f"there is no automation «{name}»: `make up` registers it, and so does `evergreen register`"
    for name, one in sorted(there.items()):
        if not one["enabled"]:
            yield f"the automation «{name}» is off: its switch in the UI"
