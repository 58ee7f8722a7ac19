"""`make status`: each service, whether it answers, what it weighs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psutil

from deployments.automations import notify_url
from deployments.services import services


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
    return 0 if fine else 1


def _weight(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total
