"""Checks for what keeps flows from running: switched off in a UI, or missing; each with the way back.

None of it is an error, and nothing is undone here: whoever paused a flow wanted that. But a loop that stands still
silently is noticed weeks later, so `evergreen status`, the status page and the log of `evergreen up` show it.
docs/reference/ui.md has the effect of each edit in Prefect's UI.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from deployments.orchestration import automations, registration
from deployments.orchestration.work_pool import POOL
from flows.prefect_support import api, triggers
from tasks.ground import params
from tasks.release.registry import champion_lookup, desired_state


def find(config: params.Params) -> list[str]:
    """A sentence for each blocker; first those that stop everything."""
    with api.patience(0):
        return [*_in_prefect(config), *_not_serving(config)]


@dataclass
class BlockerWatch:
    """Reports each blocker once, and when it is gone; not champions that do not serve, which ChampionWatch reports."""

    current: list[str] = field(default_factory=list)

    def look(self, config: params.Params) -> Iterator[str]:
        """Look once; gives a line for each blocker that is new or gone."""
        with api.patience(0):
            now = list(_in_prefect(config))
        yield from (text for text in now if text not in self.current)
        yield from (f"no longer: {text}" for text in self.current if text not in now)
        self.current = now


def _in_prefect(config: params.Params) -> Iterator[str]:
    lacking = registration.lacking(config)
    if f"work pool {POOL}" not in lacking:
        yield from _of_pool()
    yield from (
        f"the server has no {what}, which flows need: `evergreen up` registers it, as does `evergreen register`"
        for what in lacking
    )
    existing = registration.registered()
    for wanted in registration.deployments(config):
        if wanted.title in existing:
            yield from _of_deployment(wanted, existing[wanted.title])
    for automation in sorted(automations.registered(), key=itemgetter("name")):
        if not automation["enabled"]:
            yield f"the automation «{automation['name']}» is off: its switch in the UI"


def _not_serving(config: params.Params) -> Iterator[str]:
    """Champions that do not serve while no rollout is under way."""
    for model in config.models:
        change = champion_lookup.pending_change(model)
        if change and not triggers.under_way(f"rollout/{model}"):
            live = desired_state.read(model).live
            yield (
                f"{change[0]} is champion of {model} and does not serve, {f'{live} does' if live else 'nothing does'}: "
                f"rollout/{model} changes that or says why not"
            )


def _of_pool() -> Iterator[str]:
    pool = api.call(f"/work_pools/{POOL}")
    if pool["is_paused"]:
        yield f"the work pool {POOL} is paused, so no flow runs: prefect work-pool resume {POOL}"
    if pool["concurrency_limit"] == 0:
        yield f"the work pool {POOL} may run 0 flows at once: prefect work-pool clear-concurrency-limit {POOL}"
    for queue in api.call(f"/work_pools/{POOL}/queues/filter", {}):
        name = queue["name"]
        if queue["is_paused"] and not pool["is_paused"]:
            yield f"the work queue {name} is paused, so no flow of it runs: prefect work-queue resume {name} -p {POOL}"
        if queue["concurrency_limit"] == 0:
            yield f"the work queue {name} may run 0 flows: prefect work-queue clear-concurrency-limit {name} -p {POOL}"


def _of_deployment(wanted: registration.Deployment, existing: dict[str, Any]) -> Iterator[str]:
    title, schedules = wanted.title, existing["schedules"]
    limit, pool = existing.get("global_concurrency_limit"), existing.get("work_pool_name")
    if existing["paused"]:
        yield f"{title} is paused, so only a person starts it: its switch in the UI resumes it"
    elif wanted.cron and not schedules:
        yield (
            f"{title} has no schedule any more, so a lost trigger is not caught: add one in the UI, or delete the "
            "deployment, which is then made anew"
        )
    elif wanted.cron and not any(schedule["active"] for schedule in schedules):
        yield f"the schedule of {title} is off, so a lost trigger is not caught: its switch in the UI"
    if limit and limit["limit"] == 0:
        yield f"{title} may run 0 times at once, so its runs wait for ever: `evergreen register` resets the limit to 1"
    if pool != POOL:
        yield (
            f"{title} is in the work pool {pool or 'none'}, which the worker of `evergreen up` does not poll: "
            "`evergreen register` moves it back"
        )
