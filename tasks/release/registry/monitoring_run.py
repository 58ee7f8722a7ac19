"""Weekly metrics in MLflow: a monitoring run per release, linked to its version.

A run is found by its identity, never made twice. A metric's step is its week (counted from 1970), and its time the end
of that week: writing the same again changes nothing. A number that changed, as labels came late, is written once more
with a time that is later by some milliseconds, so that MLflow shows the newest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tasks.release.registry import registry
from tasks.release.registry.mlflow_store import connect, read_artifact, with_retries, write_artifacts
from tasks.release.registry.tracking import CANDIDATE, experiment_of, keys

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MONITORS, RUN = "evergreen.monitors", "evergreen.monitoring_run"
"""Tags: of the run, the release that it is about; of the version, its run."""

TIMES = "evergreen.written"
"""A tag of the run: how often numbers were written to it."""

WRITTEN = "numbers.json"
"""An artifact of the run: week → metric → the number that was written last."""

AT_ONCE = 1000
"""MLflow takes no more metrics in a call."""


@dataclass(frozen=True)
class WeeklyMetrics:
    """What was measured of a week."""

    number: int
    until: datetime
    metrics: Mapping[str, float]


@with_retries
def record(model: str, candidate: str, weeks: list[WeeklyMetrics], artifacts: Mapping[str, bytes]) -> str | None:
    """Bring the monitoring run of a release up to date; gives its id, None where the release is not registered.

    It is in the experiment `<model>-monitoring`. Of the weeks, all of them, only numbers that are new are written;
    artifacts (name → content) replace what is stored.
    """
    version = registry.find(model, candidate)
    if version is None:
        return None
    with connect(alone_for=model) as client:
        run = _run(client, model, candidate, version.number)
        run_id = str(run.info.run_id)
        _write(client, run, weeks)
        write_artifacts(client, run_id, artifacts)
        client.set_terminated(run_id)
        if version.tags.get(RUN) != run_id:
            client.set_model_version_tag(model, str(version.number), RUN, run_id)
        return run_id


def _run(client: MlflowClient, model: str, candidate: str, number: int) -> Run:
    """The run, found or made. Where two machines made one at once, the older counts."""
    experiment = experiment_of(client, f"{model}-monitoring")
    runs = client.search_runs([experiment], f"tags.`{MONITORS}` = '{candidate}'")
    if runs:
        return min(runs, key=lambda run: (run.info.start_time, run.info.run_id))
    tags = {MONITORS: candidate, CANDIDATE: candidate, "evergreen.version": str(number)}
    return client.create_run(experiment, tags=tags, run_name=f"{model}:{candidate} in production")


def _write(client: MlflowClient, run: Run, weeks: list[WeeklyMetrics]) -> None:
    """Write the numbers that are new. The note of what was written comes last: after a kill they are written again."""
    from mlflow.entities import Metric

    written, times = _written(client, run.info.run_id), int(run.data.tags.get(TIMES, "0"))
    named, metrics = keys({name for week in weeks for name in week.metrics}), []
    for week in weeks:
        before, at = written.get(str(week.number), {}), int(week.until.timestamp() * 1000) + times
        changed = {name: value for name, value in sorted(week.metrics.items()) if before.get(name) != value}
        metrics += [Metric(named[name], value, at, week.number) for name, value in changed.items()]
        written[str(week.number)] = {**before, **changed}
    for begin in range(0, len(metrics), AT_ONCE):
        client.log_batch(run.info.run_id, metrics[begin : begin + AT_ONCE])
    if metrics:
        write_artifacts(client, run.info.run_id, {WRITTEN: json.dumps(written, sort_keys=True).encode()})
        client.set_tag(run.info.run_id, TIMES, str(times + 1))


def _written(client: MlflowClient, run_id: str) -> dict[str, dict[str, float]]:
    """What was written before; nothing where that cannot be read, so that everything is written again."""
    try:
        numbers: dict[str, dict[str, float]] = json.loads(read_artifact(client, run_id, WRITTEN) or "{}")
    except ValueError:  # a kill left half of it
        return {}
    return numbers
