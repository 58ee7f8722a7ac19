"""What is told to the outside: a refused partition, a new data version, a new champion, a withdrawn release, an alarm.

An event only wakes: who hears it looks itself at what is there. Each has an identity made of what it tells, so that
telling it again (after a kill, by a second machine) is known to be the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import NAMESPACE_URL, uuid5

from flows.prefect_support import api

if TYPE_CHECKING:
    from tasks.release.registry.desired_state import Failed

LANDED = "evergreen.partition.landed"
"""Somebody outside says that a partition lies in the landing zone."""

VERSION = "evergreen.data.version"
"""There is a new data version. About DATA, it wakes training: that is for others to say. About the version itself, it
is said by ingest, which has woken training already."""

DATA = "evergreen.data"
REFUSED = "evergreen.partition.refused"

CHAMPION = "evergreen.champion.changed"
"""A version was made champion: triggers the flow rollout."""

MODEL = "evergreen.model"
WITHDRAWN = "evergreen.rollout.withdrawn"
"""A release did not stand its rollout."""

ALARM = "evergreen.alarm"
TIMES, STORED_S, PAUSE_S = 3, 20.0, 0.5
"""How often an event is told again, after how many seconds: the server stores every five. And between two looks."""

OPENED, CLOSED = f"{ALARM}.opened", f"{ALARM}.closed"
"""Something about what is served is not as it was promised, or is again."""


Event = dict[str, Any]


def refused(dataset: str, partition: str, seen: str, reason: str) -> Event:
    """A partition went to quarantine."""
    payload = {"dataset": dataset, "partition": partition, "reason": reason}
    resource = {"prefect.resource.id": f"evergreen.partition.{dataset}.{partition}", "prefect.resource.name": partition}
    return _post(REFUSED, [dataset, partition, seen], resource, [dataset], payload)


def data_version(version: str, datasets: Iterable[str]) -> None:
    """There is a new data version, in which these datasets differ from the one told before."""
    resource = {"prefect.resource.id": f"{DATA}.{version}", "prefect.resource.name": version}
    changed = sorted(datasets)
    _post(VERSION, [version, *changed], resource, changed, {"version": version, "datasets": changed})


def champion_changed(model: str, version: int, verdict: str) -> None:
    """A version was promoted."""
    _post(CHAMPION, [model, str(version), verdict], _model(model), [], {"model": model, "version": version})


def withdrawn(model: str, failed: Failed, said: str) -> None:
    """A release failed in its rollout, and what became of it."""
    payload = {"model": model, "version": failed.version, "candidate": failed.candidate, "reason": said}
    stored([_post(WITHDRAWN, [model, failed.candidate, failed.at], _model(model), [], payload)])


def alarm(model: str, one: Mapping[str, Any], what: Literal["opened", "closed"]) -> Event:
    """An alarm was opened or closed (tasks/monitoring/alarms.py)."""
    payload = {name: one[name] for name in ("key", "kind", "what", "text", "since")}
    event, times = (OPENED if what == "opened" else CLOSED), str(one["times"])
    return _post(event, [model, one["key"], times], _model(model), [], {"model": model, **payload})


def stored(told: list[Event]) -> None:
    """Wait until the server has stored what it was told; tell again what it has lost, as it does when it is killed.

    It answers before it stores. Of a wake the loss is found by a schedule; a person would never be told.

    Raises:
        PrefectApiError: it does not store it.
    """
    missing = {one["id"]: one for one in told}
    for _ in range(TIMES):
        deadline = time.monotonic() + STORED_S
        while missing and time.monotonic() < deadline:
            asked = {"filter": {"id": {"id": list(missing)}}, "limit": 50}
            for one in api.call("/events/filter", asked)["events"]:
                missing.pop(one["id"], None)
            if missing:
                time.sleep(PAUSE_S)
        if not missing:
            return
        api.call("/events", list(missing.values()))
    raise api.PrefectApiError(f"the Prefect server does not store the event {next(iter(missing.values()))['event']}")


def _model(name: str) -> dict[str, str]:
    return {"prefect.resource.id": f"{MODEL}.{name}", "prefect.resource.name": name}


def _post(event: str, identity: list[str], resource: dict[str, str], datasets: list[str], payload: Any) -> Event:
    related = [
        {"prefect.resource.id": f"evergreen.dataset.{name}", "prefect.resource.role": "dataset"} for name in datasets
    ]
    said = {
        "id": str(uuid5(NAMESPACE_URL, "/".join([event, *identity]))),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": resource,
        "related": related,
        "payload": payload,
    }
    api.call("/events", [said])
    return said
