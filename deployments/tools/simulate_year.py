"""Simulated year: the platform runs through a year in fast time, delivery by delivery.

Against a platform that is up, in a checkout without data. Before each partition is delivered, the requests that
production would have sent in its time are sent, as of its days; the delivery brings the labels, and everything that
follows is the platform's own doing: validation, the retrain policy, trainings, verdicts, rollouts, monitoring. One
partition comes cut off first, as bad deliveries do.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from deployments.tools import load
from deployments.tools.quickstart import begin_from_nothing
from flows.prefect_support import triggers
from tasks.data import delivery
from tasks.ground import files, http, params, paths, settings
from tasks.ground.errors import Mistake, WorldError
from tasks.lifecycle import backtest_history, retrain_decision
from tasks.prediction_log import prediction_log
from tasks.release.package import package
from tasks.release.registry import desired_state
from tasks.tables.partitions import period

if TYPE_CHECKING:
    import pandas as pd

QUIET_SECONDS, PATIENCE_SECONDS = 4, 600
"""How long no flow may be under way before a step is over, and how long that is waited for."""

BAD = 7  # the delivery that is cut off first: of the twelve, the one in the middle


def run(loaded: params.Params, first: int, until: int, rows: int) -> None:
    """Simulate it.

    Args:
        loaded: params.yaml.
        first: partitions that are there from the start.
        until: partitions in all.
        rows: requested of each model for each day, at most.
    """
    if loaded.upstream is None:
        raise Mistake("params.yaml names no upstream that could deliver")
    partitions = import_module(loaded.upstream).partitions()[:until]
    begin_from_nothing()
    histories = {name: backtest_history.read(name, loaded, "upstream").rows for name in loaded.models}
    _deliver(loaded, partitions[:first], f"{partitions[0]} to {partitions[first - 1]}")
    for number, partition in enumerate(partitions[first:], first + 1):
        for name, history in histories.items():
            if desired_state.read(name).live is not None:  # else the gate has promoted none so far
                request(name, loaded.models[name], of_partition(history, partition), rows)
        if number == BAD:
            _deliver_cut_off(loaded, partition)
        _deliver(loaded, [partition], partition)
    _monitor_the_last_requests(loaded)
    print(f"\nThe year is over: look at {load.address()}/status/", flush=True)


# ── the outside world ─────────────────────────────────────────────────────────────────────────────


def _deliver(loaded: params.Params, partitions: list[str], title: str) -> None:
    delivery.deliver(loaded, partitions, lambda _: None)
    _settle(loaded, title)


def _deliver_cut_off(loaded: params.Params, partition: str) -> None:
    """Every file of it ends in the middle of a line."""
    upstream = import_module(str(loaded.upstream))
    for dataset in loaded.datasets:
        name, data = upstream.deliver(dataset, partition)
        with files.replacing(settings.ROOT / loaded.landing / dataset / name) as beside:
            beside.write_bytes(data[: len(data) * 2 // 3])
    _settle(loaded, f"{partition}, cut off")


def of_partition(history: pd.DataFrame, partition: str) -> pd.DataFrame:
    """The rows of the time that a partition's name says."""
    if (of := period(partition)) is None:
        raise Mistake(f"the upstream's partition {partition!r} says no time, as 2026-03, 2026-W07 and 2026-03-14 do")
    first, after = (datetime.fromordinal(int(key[0][1])) for key in (of.begin, of.end))
    return history[(history["time"] >= first) & (history["time"] < after)]


def request(name: str, model: params.Model, rows: pd.DataFrame, most: int) -> None:
    """Send a request a day, at noon, as production would have: a sample of the day's rows, with their ids as keys."""
    for day, of_day in rows.groupby(rows["time"].dt.normalize()):
        sample = of_day.sample(min(most, len(of_day), model.serving.max_rows), random_state=0)
        noon = day.to_pydatetime().replace(hour=12, tzinfo=ZoneInfo(model.timezone))
        requested = package.request_rows(sample, model)  # without the values that are unknown
        clean = [{key: value for key, value in row.items() if value is not None} for row in requested]
        body = {"rows": clean, "keys": sample["id"].tolist(), "time": noon.isoformat()}
        _post(f"{load.address()}/{name}/predict", body)


def _post(url: str, body: dict[str, Any]) -> None:
    try:
        http.call(url, body, load.authorization(), timeout=60)
    except urllib.error.HTTPError as error:
        raise WorldError(f"{url} answers {error.code}: {error.read().decode(errors='replace')[:500]}") from None
    except OSError as error:
        raise WorldError(f"{url} does not answer: {error}. Is the platform up (`evergreen up`)?") from None


# ── until all is done, and what became of it ──────────────────────────────────────────────────────


def _settle(loaded: params.Params, title: str) -> None:
    """Wait until the platform has nothing to do any more, and print what it did."""
    begin = quiet = time.monotonic()
    time.sleep(1 + loaded.settle_seconds)
    while time.monotonic() - quiet < QUIET_SECONDS:
        if _busy(loaded):
            quiet = time.monotonic()
        if time.monotonic() - begin > PATIENCE_SECONDS:
            raise WorldError(f"after {PATIENCE_SECONDS} s the platform is still at work; see var/log and Prefect's UI")
        time.sleep(0.5)
    print(f"{title}  ({time.monotonic() - begin:.0f} s)", flush=True)
    for name in loaded.models:
        print(f"  {name:<18} {_outcome(name)}", flush=True)


def _monitor_the_last_requests(loaded: params.Params) -> None:
    """The monitor leaves requests of a moment ago to its next run: in fast time, those of the last month."""
    settling = max(prediction_log.settling(name).total_seconds() for name in loaded.models)
    print(f"until the last answers have settled ({settling:.0f} s)", flush=True)
    time.sleep(settling)
    for name in loaded.models:
        triggers.trigger(f"monitor/{name}", {"model": name})
    _settle(loaded, "the last requests")


def _busy(loaded: params.Params) -> bool:
    landing = settings.ROOT / loaded.landing
    if any(path.is_file() and not path.name.startswith(".") for path in landing.rglob("*")):
        return True
    titles = [f"{flow}/{name}" for name in loaded.models for flow in ("train", "rollout", "monitor")]
    return any(map(triggers.under_way, ["ingest/ingest", *titles]))


def _outcome(name: str) -> str:
    live, decision = desired_state.read(name).live, retrain_decision.last(name)
    parts = [f"version {live.version} is live" if live else "no version is live"]
    if decision:
        decided = datetime.fromisoformat(decision["state"]["now"])
        parts.append(f"{'trained' if decision['retrain'] else 'not trained'} on {decided:%Y-%m}: {decision['why']}")
    report = paths.monitoring_report(name)
    if report.exists():
        still = [alarm["what"] for alarm in files.read_json(report)["alarms"] if alarm["closed"] is None]
        parts.append(f"alarms: {'; '.join(still) or 'none'}")
    return " · ".join(parts)
