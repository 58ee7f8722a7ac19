"""A study of hyper-parameters in MLflow: one run, of which each trial is a step of the metric `loss`.

A trial is no run of its own: forty runs would cost more than they show, and the report among the artifacts has all of
them. A run is found by the study's identity, never made twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.release.registry.mlflow_store import connect, with_retries, write_artifacts
from tasks.release.registry.tracking import LONGEST, experiment_of, key

STUDY = "evergreen.study"
"""A tag of the run: the identity of the table of trials."""


@dataclass(frozen=True)
class TunedNumbers:
    """What MLflow is told of a study."""

    study: str
    losses: Mapping[int, float]
    """Number of a trial that was complete → its loss."""
    settings: Mapping[str, str]
    metrics: Mapping[str, float]


@with_retries
def record(model: str, tuned: TunedNumbers, artifacts: Mapping[str, bytes]) -> str:
    """The one run of a study in the experiment `<model>-tuning`, found or made; gives its id."""
    from mlflow.entities import Metric, Param

    with connect(alone_for=model) as client:
        experiment = experiment_of(client, f"{model}-tuning")
        runs = client.search_runs([experiment], f"tags.`{STUDY}` = '{tuned.study}' and attributes.status = 'FINISHED'")
        if runs:
            return str(runs[0].info.run_id)
        run_id = str(client.create_run(experiment, tags={STUDY: tuned.study}, run_name=f"{model}: study").info.run_id)
        now = int(time.time() * 1000)
        metrics = [Metric("loss", value, now, number) for number, value in sorted(tuned.losses.items())]
        metrics += [Metric(key(name), value, now, 0) for name, value in sorted(tuned.metrics.items())]
        for begin in range(0, len(metrics), 1000):  # MLflow takes no more at once
            client.log_batch(run_id, metrics[begin : begin + 1000])
        client.log_batch(run_id, params=[Param(key(name), text[:LONGEST]) for name, text in tuned.settings.items()])
        write_artifacts(client, run_id, artifacts)
        client.set_terminated(run_id)
        return run_id
