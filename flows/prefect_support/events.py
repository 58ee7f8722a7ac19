"""Events for the outside: a refused partition, a new data version, a new champion, a withdrawn release, an alarm.

An event only triggers: its receiver looks itself at what is there. Each has an identity made of its content, so that
the same event sent again (after a kill, by a second machine) is known to be the same.
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
"""Sent from outside: a partition lies in the landing zone."""

VERSION = "evergreen.data.version"
"""There is a new data version. About DATA, it triggers training: that is for others to send. About the version itself,
it is sent by ingest, which has triggered training already."""

DATA = "evergreen.data"
REFUSED = "evergreen.partition.refused"

CHAMPION = "evergreen.champion.changed"
"""A version was made champion: triggers the flow rollout."""

MODEL = "evergreen.model"
WITHDRAWN = "evergreen.rollout.withdrawn"
ALARM = "evergreen.alarm"
OPENED, CLOSED = f"{ALARM}.opened", f"{ALARM}.closed"

TIMES, STORED_S, PAUSE_S = 3, 20.0, 0.5
"""How often an event is sent again, after how many seconds: the server stores every five. And between two looks."""

Event = dict[str, Any]


def refused(dataset: str, partition: str, seen: str, reason: str) -> Event:
    """A partition went to quarantine."""
    payload = {"dataset": dataset, "partition": partition, "reason": reason}
    resource = _resource(partition, f"evergreen.partition.{dataset}")
    return _send(REFUSED, [dataset, partition, seen], resource, payload, [dataset])


def data_version(version: str, datasets: Iterable[str]) -> None:
    """There is a new data version, in which these datasets differ from the one announced before."""
    changed = sorted(datasets)
    payload = {"version": version, "datasets": changed}
    _send(VERSION, [version, *changed], _resource(version, DATA), payload, changed)


def champion_changed(model: str, version: int, verdict: str) -> None:
    """A version was promoted."""
    _send(CHAMPION, [model, str(version), verdict], _resource(model), {"model": model, "version": version})


def withdrawn(model: str, failed: Failed, reason: str) -> None:
    """A release failed in its rollout."""
    payload = {"model": model, "version": failed.version, "candidate": failed.candidate, "reason": reason}
    stored([_send(WITHDRAWN, [model, failed.candidate, failed.at], _resource(model), payload)])


def alarm(model: str, entry: Mapping[str, Any], what: Literal["opened", "closed"]) -> Event:
    """An alarm was opened or closed (tasks/monitoring/alarms.py): what is served is not as promised, or is again."""
    payload = {"model": model, **{name: entry[name] for name in ("key", "kind", "what", "text", "since")}}
    event = OPENED if what == "opened" else CLOSED
    return _send(event, [model, entry["key"], str(entry["times"])], _resource(model), payload)


def stored(events: list[Event]) -> None:
    """Wait until the server has stored these events; send again what it has lost, as it does when it is killed.

    It answers before it stores. A lost trigger is made up for by a schedule; a lost notice would reach nobody.

    Raises:
        PrefectApiError: it does not store them.
    """
    missing = {event["id"]: event for event in events}
    for _ in range(TIMES):
        deadline = time.monotonic() + STORED_S
        while missing and time.monotonic() < deadline:
            wanted = {"filter": {"id": {"id": list(missing)}}, "limit": 50}
            for event in api.call("/events/filter", wanted)["events"]:
                missing.pop(event["id"], None)
            if missing:
                time.sleep(PAUSE_S)
        if not missing:
            return
        api.call("/events", list(missing.values()))
    raise api.PrefectApiError(f"the Prefect server does not store the event {next(iter(missing.values()))['event']}")


def _resource(name: str, kind: str = MODEL) -> dict[str, str]:
    return {"prefect.resource.id": f"{kind}.{name}", "prefect.resource.name": name}


def _send(
    name: str, identity: list[str], resource: dict[str, str], payload: Any, datasets: Iterable[str] = ()
) -> Event:
    related = [{"prefect.resource.id": f"evergreen.dataset.{d}", "prefect.resource.role": "dataset"} for d in datasets]
    event = {
        "id": str(uuid5(NAMESPACE_URL, "/".join([name, *identity]))),
        "occurred": datetime.now(UTC).isoformat(),
        "event": name,
        "resource": resource,
        "related": related,
        "payload": payload,
    }
    api.call("/events", [event])
    return event
