"""`evergreen year`: the platform lives through a year in fast time, delivery by delivery.

Against a platform that `make up` has started, in a checkout without data. Before each month is delivered, what
production would have asked in it is asked, as of its days; with the delivery the labels come, and everything that
follows is the platform's own doing: validation, the retrain policy, trainings, verdicts, rollouts, monitoring. One
month comes cut off first, as bad deliveries do.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from deployments.tools.quickstart import begin_from_nothing
from flows.prefect_support import triggers
from flows.prefect_support.triggers import under_way
from tasks.data import delivery
from tasks.ground import files, params, paths, settings
from tasks.ground.errors import Mistake, WorldError
from tasks.lifecycle import backtest_history, retrain_facts
from tasks.prediction_log import prediction_log
from tasks.release.registry import desired_state
from tasks.release.rollout import router_client

if TYPE_CHECKING:
    import pandas as pd

QUIET_SECONDS, PATIENCE_SECONDS = 4, 600
"""So long nothing is under way before all is said to be done, and so long that is waited for."""

BAD = 7
"""This delivery is cut off first: of the twelve, the one in the middle."""


def run(said: params.Params, first: int, until: int, rows: int) -> None:
    """Live through it.

    Args:
        said: params.yaml.
        first: so many partitions are there from the start.
        until: so many in all.
        rows: asked of each model for each day, at most.
    """
    if said.upstream is None:
        raise Mistake("params.yaml names no upstream: who should deliver?")
    partitions = import_module(said.upstream).partitions()[:until]
    begin_from_nothing()
    worlds = {name: backtest_history.read(name, said, "upstream").rows for name in said.models}
    _deliver(said, partitions[:first])
    _settle(said, f"{partitions[0]} to {partitions[first - 1]}")
    for number, partition in enumerate(partitions[first:], first + 1):
        for name, world in worlds.items():
            if desired_state.read(name).live is None:  # the gate has let nobody pass so far
                continue
            _ask(name, said.models[name], world[world["time"].dt.strftime("%Y-%m") == partition], rows)
        if number == BAD:
            _deliver_cut_off(said, partition)
            _settle(said, f"{partition}, cut off")
        _deliver(said, [partition])
        _settle(said, partition)
    _look_once_more(said)
    print(f"\nThe year is over: look at {_router()}/status/", flush=True)


# ── the outside world ─────────────────────────────────────────────────────────────────────────────


def _deliver(said: params.Params, partitions: list[str]) -> None:
    delivery.deliver(said, partitions, lambda _: None)


def _deliver_cut_off(said: params.Params, partition: str) -> None:
    """Every file of it ends in the middle of a line."""
    upstream = import_module(str(said.upstream))
    for dataset in said.datasets:
        name, data = upstream.deliver(dataset, partition)
        path = settings.ROOT / said.landing / dataset / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{name}.tmp")
        beside.write_bytes(data[: len(data) * 2 // 3])
        beside.replace(path)


def _ask(name: str, model: params.Model, rows: pd.DataFrame, most: int) -> None:
    """What production asks on each day of these rows, a request a day at noon: a sample, with the ids as keys."""
    columns, zone = list(model.features), ZoneInfo(model.timezone)
    for day, of_day in rows.groupby(rows["time"].dt.normalize()):
        some = of_day.sample(min(most, len(of_day), model.serving.max_rows), random_state=0)
        asked = json.loads(some[columns].to_json(orient="records"))
        at = day.to_pydatetime().replace(hour=12, tzinfo=zone)
        body = {"rows": [_clean(row, model) for row in asked], "keys": some["id"].tolist(), "time": at.isoformat()}
        _post(f"{_router()}/{name}/predict", body)


def _clean(row: dict[str, Any], model: params.Model) -> dict[str, Any]:
    """A row as a client would send it: what is not known is left out where it may be."""
    return {key: value for key, value in row.items() if value is not None or not model.features[key].nullable}


def _post(url: str, body: dict[str, Any]) -> None:
    headers = {"content-type": "application/json", "authorization": f"Bearer {router_client.token()}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()
    except urllib.error.HTTPError as error:
        raise WorldError(f"{url} answers {error.code}: {error.read().decode(errors='replace')[:500]}") from None
    except OSError as error:
        raise WorldError(f"{url} does not answer: {error}. Is the platform up (make up)?") from None


def _router() -> str:
    return f"http://{os.environ['EVERGREEN_HOST']}:{os.environ['EVERGREEN_PORT']}"


# ── until all is done, and what became of it ──────────────────────────────────────────────────────


def _settle(said: params.Params, delivered: str) -> None:
    """Wait until the platform has nothing to do any more, and tell what it did."""
    begin = quiet = time.monotonic()
    time.sleep(1 + said.settle_seconds)
    while time.monotonic() - quiet < QUIET_SECONDS:
        if _busy(said):
            quiet = time.monotonic()
        if time.monotonic() - begin > PATIENCE_SECONDS:
            raise WorldError(f"after {PATIENCE_SECONDS} s the platform is still at work; see var/log and Prefect's UI")
        time.sleep(0.5)
    print(f"{delivered}  ({time.monotonic() - begin:.0f} s)", flush=True)
    for name in said.models:
        print(f"  {name:<18} {_told(name)}", flush=True)


def _look_once_more(said: params.Params) -> None:
    """What was asked a moment ago the monitor leaves for the next look: in fast time, that of the last month."""
    settling = max(prediction_log.settling(name).total_seconds() for name in said.models)
    print(f"until the last answers have settled ({settling:.0f} s)", flush=True)
    time.sleep(settling)
    for name in said.models:
        triggers.trigger(f"monitor/{name}", {"model": name})
    _settle(said, "what was asked last")


def _busy(said: params.Params) -> bool:
    landing = settings.ROOT / said.landing
    if any(path.is_file() and not path.name.startswith(".") for path in landing.rglob("*")):
        return True
    flows = ("train", "rollout", "monitor")
    return under_way("ingest/ingest") or any(under_way(f"{flow}/{name}") for name in said.models for flow in flows)


def _told(name: str) -> str:
    live, decision = desired_state.read(name).live, retrain_facts.last(name)
    parts = [f"version {live.version} serves" if live else "nobody serves"]
    if decision:
        known = datetime.fromisoformat(decision["state"]["now"])
        parts.append(f"{'trained' if decision['retrain'] else 'not trained'} on {known:%Y-%m}: {decision['why']}")
    report = paths.monitoring_report(name)
    if report.exists():
        still = [one["what"] for one in files.read_json(report)["alarms"] if one["closed"] is None]
        parts.append(f"alarms: {'; '.join(still) or 'none'}")
    return " · ".join(parts)
