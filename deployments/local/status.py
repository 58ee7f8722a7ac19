"""`evergreen status`: each service and whether it answers; which runs go on and wait; what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil

from deployments.local.services import local_services
from deployments.orchestration import blockers
from deployments.orchestration.automations import notify_url
from deployments.orchestration.work_pool import POOL
from flows.prefect_support import api
from tasks.ground import params
from tasks.ground.errors import EvergreenError

HEARD_WITHIN = timedelta(seconds=60)
"""A worker or a watcher that was heard within this answers."""

WAITS = "AwaitingConcurrencySlot"


@dataclass
class ServiceHealth:
    """A service of the platform, now."""

    name: str
    answers: bool
    process: int | None
    address: str


@dataclass
class PlatformStatus:
    """The platform of this checkout, now."""

    is_up: bool
    services: list[ServiceHealth] = field(default_factory=list)
    processes: int = 0
    megabytes: int = 0
    notifies: bool = False
    under_way: list[str] = field(default_factory=list)
    """The runs that go on, and those that wait for them."""
    blockers: list[str] = field(default_factory=list)
    """What keeps flows from running, each with the way back."""

    @property
    def all_is_well(self) -> bool:
        """Whether every service answers, and nothing stands in the way."""
        return self.is_up and all(service.answers for service in self.services) and not self.blockers

    def lines(self) -> Iterator[str]:
        """For a person."""
        if not self.is_up:
            yield "the platform is not up. Start it: evergreen up"
            return
        for service in self.services:
            answers = "answers" if service.answers else "does not answer"
            yield f"  {service.name:<10}  {answers:<15}  process {service.process or '?':<8} {service.address}"
        yield f"  {self.processes} processes, {self.megabytes:,} MB"
        if self.notifies:
            yield "  failures are sent to EVERGREEN_NOTIFY_URL"
        else:
            yield "  nobody is notified of failures: EVERGREEN_NOTIFY_URL is not set"
        yield from (f"  {line}" for line in (*self.under_way, *self.blockers))


def read(pid: int | None, pids: dict[str, int], alive: list[psutil.Process]) -> PlatformStatus:
    """Ask each service, and Prefect.

    Args:
        pid: the process that keeps the platform up; none: it is not up.
        pids: service → its process.
        alive: every process of the platform.
    """
    if pid is None:
        return PlatformStatus(is_up=False)
    ours = [process for process in [*alive, psutil.Process(pid)] if process.is_running()]
    since = datetime.now(UTC) - HEARD_WITHIN
    asked = [ServiceHealth(one.name, one.answers(since), pids.get(one.name), one.about) for one in local_services()]
    try:
        hindered, under_way = blockers.find(params.load()), list(_under_way())
    except EvergreenError as error:
        hindered, under_way = [str(error)], []
    return PlatformStatus(True, asked, len(ours), round(_weight(ours) / 1e6), bool(notify_url()), under_way, hindered)


def _under_way() -> Iterator[str]:
    states = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}
    for run in _runs({"state": states}):
        yield f"{run['name']} is {run['state_name'].lower()} since {_clock(run['state']['timestamp'])}"
        waiting = {"deployment_id": {"any_": [run["deployment_id"]]}, "state": {"name": {"any_": [WAITS]}}}
        for other in _runs(waiting):
            yield f"{other['name']} waits for it since {_clock(other['state']['timestamp'])}"


def _runs(which: dict[str, Any]) -> list[dict[str, Any]]:
    body = {"work_pools": {"name": {"any_": [POOL]}}, "flow_runs": which}
    return list(api.call("/flow_runs/filter", body, patience=0))


def _clock(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone():%H:%M:%S}"


def _weight(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total
