"""What the flow train does, without Prefect and DVC: a candidate of the project that settings name, and its verdict."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pandas as pd

from tasks.ground import files, model_environment, params, paths, settings
from tasks.monitoring.intake import intake
from tasks.release import comparison
from tasks.release.gate.verdict import Verdict
from tasks.release.package import package
from tasks.release.registry import desired_state, promotions, registry, tracking, verdict_records
from tasks.runtime.predictor import Predictor
from tasks.training import evaluate, prepare, train


def learn(model: str, dataset: str) -> None:
    """The stages up to the evaluation, on every partition of a dataset in data/."""
    model_environment.environment(model)
    make_rows(model, dataset)
    for stage in (train.train, evaluate.evaluate):
        stage(model)


def make_rows(model: str, dataset: str) -> None:
    """The rows of every partition of a dataset in data/."""
    hashes = {path.name: files.md5(path) for path in sorted((settings.ROOT / "data" / dataset).iterdir())}
    files.write_json(settings.BUILD / model / "partitions.json", {dataset: hashes})
    prepare.prepare(model)


def release(model: str) -> Verdict:
    """Package, track, register and judge what was learned; promote it, if the gate does."""
    package.package(model)
    build = settings.BUILD / model
    run = tracking.track(model, build / "release", build, package.measured(model))
    version = registry.register(model, run.candidate)
    verdict = comparison.judge_candidate(model)
    verdict_records.record(model, version.number, verdict)
    if verdict.promoted:
        promotions.promote(model, version.number, verdict.id)
    return verdict


def ask(model: str, rows: pd.DataFrame, answered: datetime, a_request: int = 30) -> None:
    """Production asks the release in build/, and its answers are logged as a replica does; `rows` has id and time."""
    predictor = Predictor(settings.BUILD / model / "release")
    candidate = predictor.release.candidate
    path = paths.incoming_predictions(model) / answered.date().isoformat() / f"{candidate}.4000000.170000.0.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    features = list(predictor.features)
    for begin in range(0, len(rows), a_request):
        part = rows.iloc[begin : begin + a_request]
        at = part["time"].iloc[0].isoformat() + "Z"
        asked = {"rows": part[features].to_dict("records"), "keys": part["id"].tolist(), "time": at}
        (answer,) = predictor.predict([json.dumps(asked).encode()])
        assert answer.status == 200, answer.body
        head = {"request": f"r{begin}", "time": at, "ms": 2.0, "version": "1", "release": candidate, "key": None}
        with path.open("ab") as stream:
            stream.write(json.dumps(head).encode()[:-1] + b"," + answer.logged + b"}\n")
    desired = desired_state.read(model)
    live = desired_state.ReleaseRef(candidate, 1, "2013-01-01T06:00:00.000Z")
    desired_state.write(model, desired.gone_live(live))


def look(model: str) -> dict[str, Any]:
    """A run of the monitor, without Prefect; gives its report."""
    from flows import monitor

    now = datetime.now(UTC) + timedelta(hours=1)
    config, releases = params.load().model(model), monitor.Releases(model)
    options = intake.IntakeOptions(config.task, tuple(config.evaluate.slices), 36_500)
    state = intake.ingest(model, options, releases.layout, now)
    run = monitor._MonitorRun(model, config, releases, state, monitor._live(model), now.date())
    with mock.patch.multiple(
        monitor,
        _step=lambda _, go, retries=0: go(),
        get_run_logger=lambda: logging.getLogger("monitor"),
        events=mock.Mock(),
    ):
        return run.execute()
