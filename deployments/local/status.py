"""`evergreen status`: each service and whether it answers; which runs go on and wait; what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil

from deployments.local.services import services
from deployments.orchestration import blockers
from deployments.orchestration.automations import notify_url
from deployments.orchestration.work_pool import POOL
from flows.prefect_support import api
from tasks.ground import params
from tasks.ground.errors import EvergreenError


def report(pid: int | None, pids: dict[str, int], alive: list[psutil.Process]) -> int:
    """Print the state of the platform; gives 0 when all is well, 1 otherwise."""
    if pid is None:
        print("the platform is not up. Start it: make up")
        return 1
    wanted = services()
    fine = True
    for service in wanted:
        answers = service.answers(datetime.now(UTC) - timedelta(seconds=60))
        fine = fine and answers
        said = "answers" if answers else "does not answer"
        print(f"  {service.name:<8}  {said:<15}  process {pids.get(service.name, '?'):<8} {service.says}")
    ours = [process for process in [*alive, psutil.Process(pid)] if process.is_running()]
    print(f"  {len(ours)} processes, {_weight(ours) / 1e6:,.0f} MB")
    told = "failures are told to EVERGREEN_NOTIFY_URL" if notify_url() else "nobody is told about failures"
    print(f"  {told}" + ("" if notify_url() else ": EVERGREEN_NOTIFY_URL is not set"))
    try:
        hindered = blockers.find(params.load())
        under_way = list(_under_way())
    except EvergreenError as error:
        hindered, under_way = [str(error)], []
    for line in (*under_way, *hindered):
        print(f"  {line}")
    return 0 if fine and not hindered else 1


def _under_way() -> Iterator[str]:
    """The runs that go on, and those that wait for them."""
    states = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}
    for run in _runs({"state": states}):
        yield f"{run['name']} is {run['state_name'].lower()} since {_clock(run['state']['timestamp'])}"
        waiting = {"deployment_id": {"any_": [run["deployment_id"]]}, "state": {"name": {"any_": [WAITS]}}}
        for other in _runs(waiting):
            yield f"{other['name']} waits for it since {_clock(other['state']['timestamp'])}"


WAITS = "AwaitingConcurrencySlot"


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
