"""What was killed is noticed, and begun again.

A flow run whose process is gone stays pending or running for the server, and keeps its place: nobody else can say how
it ended. On the machine whose worker started it, whether the process is there can be seen:

- running, and its process is gone: it crashed. A deployment whose last run crashed is woken, ever more seldom.
- pending: its process has never been there. On a busy machine it comes late; one whose worker is gone comes never,
  and the run waits for a worker again. Neither is a crash.
- to be cancelled, and its process is gone: it is cancelled.

What `make down` ends is no crash either: it is told to the server (`interrupt`), and the next `make up` begins it
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psutil

from deployments.orchestration.work_pool import POOL
from flows.prefect_support import api, triggers
from tasks.ground import process_tags, settings

GRACE_SECONDS = 30
"""A run that changed its state later than this may be just ending."""

PATIENCE = (5, 30, 120)
"""Seconds until a deployment is woken after its first, second and third crash in a row; then its schedule has to."""

MARK = "PREFECT__FLOW_RUN_ID"
"""The variable by which Prefect tells a process which flow run it is."""


@dataclass(frozen=True)
class Here:
    """What runs on this machine."""

    runs: frozenset[str]
    """The flow runs that have a process."""
    worker_since: datetime | None
    """When this checkout's worker began; None while there is none."""


@dataclass
class CrashRecovery:
    """Looks at the runs again and again: one that was not there once may have been overlooked."""

    missed: set[str] = field(default_factory=set)
    """The runs that had no process at the last look."""

    def look(self) -> list[str]:
        """Look once; gives a line for each thing that was done.

        Raises:
            PrefectApiError: the Prefect server does not answer.
        """
        return [*self._release_stranded(), *_wake_crashed()]

    def _release_stranded(self) -> Iterator[str]:
        old = [run for run in _going() if _age(run["state"]["timestamp"]) > GRACE_SECONDS]
        here = _here() if old else Here(frozenset(), None)
        gone = [run for run in old if run["id"] not in here.runs]
        for run in gone:
            if run["id"] in self.missed:
                yield from _settle(run, here)
        self.missed = {run["id"] for run in gone}


def interrupt(patience: int) -> list[str]:
    """Say of every run that its process was ended with the platform; gives their names. To be called when it was.

    Raises:
        PrefectApiError: the Prefect server does not answer; the next `make up` takes them for crashed.
    """
    names = []
    for run in _going(patience):
        cancelled = run["state_type"] == "CANCELLING"
        state = _CANCELLED if cancelled else triggers.INTERRUPTED
        why = "the platform was ended (make down)" + ("" if cancelled else ": it goes on with the next make up")
        _set_state(run, state, why, patience)
        names.append(run["name"])
    return names


_CANCELLED = {"type": "CANCELLED", "name": "Cancelled"}


def _settle(run: dict[str, Any], here: Here) -> Iterator[str]:
    """Tell the server what became of a run that has no process."""
    link = api.run_url(run["id"])
    if run["state_type"] == "CANCELLING":
        _set_state(run, _CANCELLED, "its process is gone")
        yield f"{run['name']} was to be cancelled, and its process is gone: cancelled. {link}"
    elif run["state_type"] == "RUNNING":
        _set_state(run, {"type": "CRASHED", "name": "Crashed"}, "its process is gone while it was running")
        yield f"{run['name']} was running, but its process is gone: crashed. {link}"
    elif here.worker_since and datetime.fromisoformat(run["state"]["timestamp"]) < here.worker_since:
        _set_state(run, triggers.INTERRUPTED, "its worker ended before it had begun: it waits for one again")
        yield f"{run['name']} had not begun when its worker ended: it waits for a worker again. {link}"


def _set_state(run: dict[str, Any], state: dict[str, str], message: str, patience: int = len(api.PAUSES)) -> None:
    said = {"state": {**state, "message": message}, "force": True}
    api.call(f"/flow_runs/{run['id']}/set_state", said, patience=patience)


def _wake_crashed() -> Iterator[str]:
    deployments = api.call("/deployments/filter", {"work_pools": {"name": {"any_": [POOL]}}})
    for deployment in deployments:
        if deployment["paused"]:
            continue
        ended = {
            "deployment_id": {"any_": [deployment["id"]]},
            "state": {"name": {"not_any_": ["Scheduled", "Coalesced"]}},
        }
        last = _runs({"flow_runs": ended, "sort": "EXPECTED_START_TIME_DESC", "limit": len(PATIENCE) + 1})
        crashes = next((n for n, run in enumerate(last) if run["state_type"] != "CRASHED"), len(last))
        if 0 < crashes <= len(PATIENCE) and _age(last[0]["end_time"]) > PATIENCE[crashes - 1]:
            flow = api.call(f"/flows/{deployment['flow_id']}")["name"]
            title = f"{flow}/{deployment['name']}"
            before = api.call("/flow_runs/count", {"flow_runs": {"idempotency_key": {"any_": [_key(last[0])]}}})
            run = triggers.trigger(title, last[0]["parameters"], key=_key(last[0]))
            if run and not before:
                yield f"{title} crashed: woken again, {api.run_url(run)}"


def _key(crashed: dict[str, Any]) -> str:
    return f"after {crashed['id']}"


def _going(patience: int = len(api.PAUSES)) -> list[dict[str, Any]]:
    return _runs({"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}}, patience)


def _runs(which: dict[str, Any], patience: int = len(api.PAUSES)) -> list[dict[str, Any]]:
    body = {"work_pools": {"name": {"any_": [POOL]}}, **which}
    return list(api.call("/flow_runs/filter", body, patience=patience))


def _age(moment: str | None) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds() if moment else 0.0


def _here() -> Here:
    runs, workers = set(), []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if run := environment.get(MARK):
                runs.add(run)
            elif (
                environment.get(process_tags.STACK) == str(settings.ROOT)
                and environment.get(process_tags.SERVICE) == "worker"
            ):
                workers.append(process.create_time())
        except (psutil.Error, OSError):  # gone, or another user's
            continue
    since = datetime.fromtimestamp(min(workers), UTC) if workers else None
    return Here(frozenset(runs), since)
