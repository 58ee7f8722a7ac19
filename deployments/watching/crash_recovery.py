"""Crash recovery of flow runs: notices runs whose process was killed, and triggers them again.

Such a run stays pending or running for the server, and keeps its place. On one machine it can be seen whether its
process exists; in a fleet it has a lease besides, which runs out with it (tasks/ground/leases.py):

- running, without a process: it crashed. A deployment whose last run crashed is triggered again, ever more seldom.
- pending: its process has never existed. On a busy machine it comes late; where its worker is gone it never comes, and
  the run is handed back to the next worker: in a fleet after a minute. Neither is a crash.
- cancelling, without a process: it is cancelled.

What `evergreen down` ends is no crash either: the server is told so (`interrupt`), and the next `evergreen up` starts
it again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil

from deployments.orchestration.work_pool import POOL, active_runs, flow_runs
from flows.prefect_support import api, triggers
from tasks.ground import leases, process_tags, settings
from tasks.ground.errors import SourceUnavailable

GRACE_SECONDS = 30  # a run that changed its state more recently may be just ending

START_TOLERANCE = timedelta(seconds=1)
"""How much too early Linux' start time of a process may be: it counts from the boot, which is known to the second. A
worker takes longer than this until it begins its first run."""

LATEST_START = timedelta(seconds=60)
"""In a fleet: how long a worker may take to begin a run. One that comes later waits for the run's lease."""

PAUSES = (5, 30, 120)
"""Seconds before a deployment is triggered again after its first, second and third crash in a row; after that, only its
schedule starts it."""

RUN_ID = "PREFECT__FLOW_RUN_ID"  # the variable by which Prefect tells a process which flow run it is

CANCELLED = {"type": "CANCELLED", "name": "Cancelled"}
CRASHED = {"type": "CRASHED", "name": "Crashed"}


@dataclass(frozen=True)
class LocalProcesses:
    """What runs on this machine."""

    runs: frozenset[str] = frozenset()  # the flow runs that have a process
    worker_since: datetime | None = None  # when this checkout's worker started, if there is one


@dataclass
class CrashRecovery:
    """Looks at the runs again and again: a process that was missing once may have been overlooked."""

    missed: set[str] = field(default_factory=set)  # the runs that had no process at the last look
    blind_until: float = 0.0  # by the monotonic clock; after an outage of the leases' database, they are renewed late

    def look(self) -> list[str]:
        """Look once; gives a line for each thing that was done."""
        return [*self._settle_missing(), *_trigger_crashed()]

    def _settle_missing(self) -> Iterator[str]:
        old = [run for run in active_runs() if _age(run["state"]["timestamp"]) > GRACE_SECONDS]
        local = local_processes() if old else LocalProcesses()
        elsewhere = self._elsewhere() if old else set[str]()
        missing = [run for run in old if run["id"] not in local.runs | elsewhere]
        if time.monotonic() < self.blind_until:
            missing = []
        for run in missing:
            if run["id"] in self.missed:
                yield from _settle(run, local)
        self.missed = {run["id"] for run in missing}

    def _elsewhere(self) -> set[str]:
        try:
            return leases.runs()
        except SourceUnavailable:
            self.missed, self.blind_until = set(), time.monotonic() + leases.seconds()
            raise


def interrupt(here: Collection[str] | None = None) -> list[str]:
    """Report every active run as ended with the platform; gives their names. To be called when they were.

    Args:
        here: the runs that were ended, where other machines have runs too.
    """
    runs = [run for run in active_runs() if here is None or run["id"] in here]
    for run in runs:
        state = triggers.INTERRUPTED
        reason = "the platform was ended (evergreen down): it goes on with the next evergreen up"
        if run["state_type"] == "CANCELLING":
            state, reason = CANCELLED, "the platform was ended (evergreen down)"
        _set_state(run, state, reason)
    return [run["name"] for run in runs]


def _settle(run: dict[str, Any], local: LocalProcesses) -> Iterator[str]:
    name, link, since = run["name"], api.run_url(run["id"]), datetime.fromisoformat(run["state"]["timestamp"])
    if run["state_type"] == "CANCELLING":
        _set_state(run, CANCELLED, "its process is gone")
        yield f"{name} was to be cancelled, and its process is gone: cancelled. {link}"
    elif run["state_type"] == "RUNNING":
        _set_state(run, CRASHED, "its process is gone while it was running")
        yield f"{name} was running, but its process is gone: crashed. {link}"
    elif _never_comes(since, local):
        _set_state(run, triggers.INTERRUPTED, "its worker ended before it had begun: it waits for another")
        yield f"{name} had not begun when its worker ended: it waits for another. {link}"


def _never_comes(since: datetime, local: LocalProcesses) -> bool:
    """Whether a run that is pending since then waits for a worker that is gone."""
    if leases.is_fleet():
        return datetime.now(UTC) - since > LATEST_START
    return local.worker_since is not None and since < local.worker_since + START_TOLERANCE


def _set_state(run: dict[str, Any], state: dict[str, str], message: str) -> None:
    api.call(f"/flow_runs/{run['id']}/set_state", {"state": {**state, "message": message}, "force": True})


def _trigger_crashed() -> Iterator[str]:
    for deployment in api.call("/deployments/filter", {"work_pools": {"name": {"any_": [POOL]}}}):
        crashed = None if deployment["paused"] else _crashed_run(deployment)
        if crashed is None:
            continue
        flow = api.call(f"/flows/{deployment['flow_id']}")["name"]
        title, key = f"{flow}/{deployment['name']}", f"after {crashed['id']}"
        before = api.call("/flow_runs/count", {"flow_runs": {"idempotency_key": {"any_": [key]}}})
        run = triggers.trigger(title, crashed["parameters"], key)
        if run and not before:
            yield f"{title} crashed: triggered again, {api.run_url(run)}"


def _crashed_run(deployment: dict[str, Any]) -> dict[str, Any] | None:
    """The last run of a deployment, if it crashed and is due to be repeated."""
    begun = {
        "deployment_id": {"any_": [deployment["id"]]},
        "state": {"name": {"not_any_": ["Scheduled", triggers.COALESCED["name"]]}},
    }
    newest = flow_runs({"flow_runs": begun, "sort": "EXPECTED_START_TIME_DESC", "limit": len(PAUSES) + 1})
    crashes = next((n for n, run in enumerate(newest) if run["state_type"] != "CRASHED"), len(newest))
    is_due = 0 < crashes <= len(PAUSES) and _age(newest[0]["end_time"]) > PAUSES[crashes - 1]
    return newest[0] if is_due else None


def _age(moment: str | None) -> float:
    """Seconds since then; 0 for None."""
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds() if moment else 0.0


def local_processes() -> LocalProcesses:
    """Look at every process of this machine."""
    runs, workers = set(), []
    worker = {process_tags.STACK: str(settings.ROOT), process_tags.SERVICE: "worker"}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if run := environment.get(RUN_ID):
                runs.add(run)
            elif worker.items() <= environment.items():
                workers.append(process.create_time())
        except (psutil.Error, OSError):  # gone, or another user's
            continue
    return LocalProcesses(frozenset(runs), datetime.fromtimestamp(min(workers), UTC) if workers else None)
