"""State of the platform for `evergreen status`: its services, the flow runs under way, and what blocks flows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psutil

from deployments.local import fleet, run_state, services
from deployments.local.services import HEARTBEAT, local_services
from deployments.orchestration import blockers, work_pool
from deployments.orchestration.automations import notify_url
from deployments.orchestration.work_pool import active_runs, flow_runs
from flows.prefect_support import api
from tasks.ground import files, leases, params, paths, process_tags
from tasks.ground.errors import EvergreenError
from tasks.ground.words import many
from tasks.monitoring import words
from tasks.release.registry import desired_state

WAITS = "AwaitingConcurrencySlot"


@dataclass
class ServiceHealth:
    """A service of the platform, now."""

    name: str
    answers: bool
    process: int | None
    about: str


@dataclass
class PlatformStatus:
    """The platform of this checkout, now."""

    is_up: bool
    services: list[ServiceHealth] = field(default_factory=list)
    processes: int = 0
    megabytes: int = 0
    notifies: bool = False
    models: list[str] = field(default_factory=list)  # what the monitor says of each
    fleet: list[str] = field(default_factory=list)  # its machines, leases and queue
    under_way: list[str] = field(default_factory=list)  # the runs that go on, and those that wait for them
    blockers: list[str] = field(default_factory=list)  # what keeps flows from running, each with the way back

    @property
    def all_is_well(self) -> bool:
        """Whether every service answers, and nothing is blocked."""
        return self.is_up and all(service.answers for service in self.services) and not self.blockers

    def lines(self) -> Iterator[str]:
        """For a person."""
        if not self.is_up:
            yield "the platform is not up. Start it: evergreen up"
            yield from self.blockers
            return
        for service in self.services:
            answers = "answers" if service.answers else "does not answer"
            yield f"  {service.name:<10}  {answers:<15}  process {service.process or '?':<8} {service.about}"
        yield f"  {self.processes} processes, {self.megabytes:,} MB"
        nobody = "nobody is notified of failures: EVERGREEN_NOTIFY_URL is not set"
        yield f"  {'failures are sent to EVERGREEN_NOTIFY_URL' if self.notifies else nobody}"
        yield from (f"  {line}" for line in (*self.fleet, *self.models, *self.under_way, *self.blockers))


def read() -> PlatformStatus:
    """Ask each service, and Prefect."""
    pid = run_state.find_supervisor()
    if pid is None:
        return PlatformStatus(is_up=False, blockers=_without_models())
    note, since = run_state.read_note(), datetime.now(UTC) - HEARTBEAT
    pids = note.get("services", {})
    os.environ.setdefault(services.CHOSEN, note.get("chosen", ""))
    health = [
        ServiceHealth(service.name, service.answers(since), pids.get(service.name), service.about)
        for service in local_services()
    ]
    memory = []
    for process in [*process_tags.tagged(), psutil.Process(pid)]:
        with suppress(psutil.Error):
            memory.append(process.memory_info().rss)
    try:
        with api.patience(0):
            blocked, under_way = [*_without_models(), *blockers.find(params.load())], list(_under_way())
    except EvergreenError as error:
        blocked, under_way = [str(error)], []
    models = [f"{model}: {line}" for model in params.load().models for line in _monitored(model)]
    processes = len(memory), round(sum(memory) / 1e6)
    return PlatformStatus(True, health, *processes, bool(notify_url()), models, _fleet(), under_way, blocked)


def _fleet() -> list[str]:
    """The machines that are up, who holds which lease, and how many runs are due; nothing on one machine alone."""
    if not leases.is_fleet():
        return []
    try:
        lines = [f"machine {each.name} is up: {each.services} (code {each.code})" for each in fleet.machines()]
        alive = (leases.RUN, leases.MACHINE)
        held = [lease for lease in leases.live() if not lease.name.startswith(alive)]
        lines += [f"{lease.name} is held by {lease.holder} since {lease.since[:19]}" for lease in held]
        with api.patience(0):
            lines.append(f"{many(work_pool.due(), 'run')} due and not begun")
    except EvergreenError as error:
        return [f"the fleet cannot be seen: {error}"]
    return lines


def _without_models() -> list[str]:
    return [] if params.load().models else [params.NO_MODEL]


def _monitored(model: str) -> Iterator[str]:
    """What the monitor says of the release that is live now."""
    live, report = desired_state.read(model).live, files.read_state(paths.monitoring_report(model), dict[str, Any]())
    if report and live and (report.get("release") or {}).get("candidate") != live.candidate:
        yield f"{live} is live, and the monitor has not looked since: it does every quarter of an hour"
    else:
        yield from words.lines(model)


def _under_way() -> Iterator[str]:
    for run in active_runs():
        yield f"{_title(run)} is {run['state_name'].lower()} since {_clock(run)}"
        waiting = {"deployment_id": {"any_": [run["deployment_id"]]}, "state": {"name": {"any_": [WAITS]}}}
        for other in flow_runs({"flow_runs": waiting}):
            yield f"{other['name']} waits for it since {_clock(other)}"


def _title(run: dict[str, Any]) -> str:
    """As a run names itself when it begins: Prefect invents a name for one that a schedule made."""
    if "/" in run["name"] or not (model := run["parameters"].get("model")):
        return str(run["name"])
    flow = api.call(f"/flows/{run['flow_id']}")["name"]
    return f"{flow}/{model}"


def _clock(run: dict[str, Any]) -> str:
    """When a run came into its state."""
    return f"{datetime.fromisoformat(run['state']['timestamp']).astimezone():%H:%M:%S}"
