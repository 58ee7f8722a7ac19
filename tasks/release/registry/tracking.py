"""Experiment tracking: one MLflow run per candidate, found by its identity or made, never twice."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tasks.ground import files, params, settings, yaml_reader
from tasks.ground.git import Clone
from tasks.journal import journal
from tasks.release.package import package
from tasks.release.registry.mlflow_store import Tolerating, artifact_root, connect, uri, with_retries

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Param
    from mlflow.entities import Run as MlflowRun

CANDIDATE, DATA_VERSION, MODEL_ID = "evergreen.candidate", "evergreen.data_version", "evergreen.logged_model"
BEGUN_AT = "evergreen.begun_at"
FORGOTTEN = "evergreen.files_removed"
"""A tag of a run, and of its version, whose files `retention` removed."""

EXPERIMENT = "evergreen.experiment"
"""A tag of the experiment: its name when it was made. A person may give it another one."""

_log = logging.getLogger("evergreen")


@dataclass(frozen=True)
class TrackedRun:
    """The MLflow run of a candidate."""

    id: str
    candidate: str
    made: bool

    def __str__(self) -> str:
        return f"run {self.id} of candidate {self.candidate}{'' if self.made else ', was there already'}"


@with_retries
def track(model_name: str, release: Path, build: Path, measured: dict[str, float]) -> TrackedRun:
    """The one finished MLflow run of the candidate in a release folder: found, or made.

    Runs that a kill left unfinished on this machine are deleted, those of other candidates as well. `build` is the
    model's folder below build/; `measured` is latency_ms, size_mb, … of the packaged release.

    Raises:
        ModelFileRefused: the release folder is not what its candidate.json names.
        RegistryUnavailable: the store is locked or gone.
    """
    candidate = package.identity_of(release)
    with connect(alone_for=model_name) as client:
        experiment = experiment_of(client, model_name)
        for run in client.search_runs([experiment], "attributes.status != 'FINISHED'"):
            if run.data.tags.get(CANDIDATE) == candidate or run.data.tags.get(BEGUN_AT) == _here():
                for model in client.search_logged_models([experiment], f"source_run_id = '{run.info.run_id}'"):
                    client.delete_logged_model(model.model_id)
                client.delete_run(run.info.run_id)
        if existing := finished(client, model_name, candidate):
            _note(model_name, candidate, existing.info.run_id, existing.data.tags)
            return TrackedRun(existing.info.run_id, candidate, made=False)
        tags = _run_tags(model_name, candidate, release, build)
        run = client.create_run(experiment, tags=tags, run_name=f"{model_name}:{candidate}")
        _fill(client, run.info.run_id, model_name, release, build, measured)
        _note(model_name, candidate, run.info.run_id, tags)
        return TrackedRun(run.info.run_id, candidate, made=True)


def _note(model: str, candidate: str, run_id: str, tags: Mapping[str, str]) -> None:
    """Have the journal say of what a candidate was made; once."""
    if candidate not in {line.what["candidate"] for line in journal.lines(model, "training")}:
        made_of = {"data": DATA_VERSION, "commit": "git.commit", "dirty": "git.dirty", "lock": "lock"}
        what = {name: tags.get(tag, "") for name, tag in made_of.items()}
        journal.append(model, "training", {"candidate": candidate, "mlflow_run": run_id, **what})


@with_retries
def measured(model_name: str, candidate: str) -> dict[str, float]:
    """The measurements that `track` recorded of a candidate; empty where it was not tracked."""
    with connect() as client:
        run = finished(client, model_name, candidate)
        values: dict[str, float] = run.data.metrics if run else {}
    return {name.removeprefix("measured/"): x for name, x in sorted(values.items()) if name.startswith("measured/")}


@with_retries
def tags(run_id: str) -> dict[str, str]:
    """The tags of a candidate's run: of what it was made."""
    with connect() as client:
        own: dict[str, str] = client.get_run(run_id).data.tags
        return own


def experiment_of(client: MlflowClient, name: str) -> str:
    """The id of the experiment: made when it is missing, restored when a person has deleted it."""
    experiment = _experiment(client, name)
    if experiment is None:
        location = None if urlsplit(uri()).scheme in {"http", "https"} else f"{artifact_root()}/{name}"
        with Tolerating("RESOURCE_ALREADY_EXISTS"):  # another machine was faster
            return str(client.create_experiment(name, artifact_location=location, tags={EXPERIMENT: name}))
        experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
        _log.warning("the experiment %s was deleted in MLflow, with its runs: restored", experiment.name)
    if EXPERIMENT not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, EXPERIMENT, name)
    return str(experiment.experiment_id)


def _experiment(client: MlflowClient, name: str) -> Experiment | None:
    """The experiment, deleted or not, whatever a person calls it now; the oldest, where there are several."""
    from mlflow.entities import ViewType

    tagged = client.search_experiments(ViewType.ALL, filter_string=f"tags.`{EXPERIMENT}` = '{name}'")
    oldest = min(tagged, key=lambda experiment: int(experiment.experiment_id), default=None)
    return oldest or client.get_experiment_by_name(name)


def _finished_runs(client: MlflowClient, experiment: str, candidate: str) -> list[MlflowRun]:
    """The finished runs of a candidate that have their files, the first one first; also those a person has deleted."""
    from mlflow.entities import ViewType

    runs = client.search_runs([experiment], f"tags.`{CANDIDATE}` = '{candidate}'", run_view_type=ViewType.ALL)
    whole = [run for run in runs if run.info.status == "FINISHED" and FORGOTTEN not in run.data.tags]
    return sorted(whole, key=lambda run: (run.info.lifecycle_stage != "active", run.info.start_time, run.info.run_id))


def finished(client: MlflowClient, model_name: str, candidate: str) -> MlflowRun | None:
    """The finished run of a candidate, if it was tracked; one that a person has deleted is restored."""
    experiment = _experiment(client, model_name)
    if experiment is None:
        return None
    run = next(iter(_finished_runs(client, experiment.experiment_id, candidate)), None)
    if run and run.info.lifecycle_stage == "deleted":
        client.restore_run(run.info.run_id)
        _log.warning("the run %s of candidate %s was deleted in MLflow: restored", run.info.run_id, candidate)
    return run


def _fill(
    client: MlflowClient, run_id: str, model_name: str, release: Path, build: Path, measured: dict[str, float]
) -> None:
    """Log everything, and finish the run: the last write."""
    import mlflow

    model = params.load().model(model_name)
    with mlflow.start_run(run_id=run_id):  # leaves the run FINISHED, or FAILED when the block raises
        client.log_inputs(run_id, datasets=_datasets(build))
        for file in ("params.yaml", "dvc.lock", "data.dvc"):
            if (settings.ROOT / file).exists():
                client.log_artifact(run_id, str(settings.ROOT / file))
        client.log_artifacts(run_id, str(build / "evaluation"), "evaluation")
        for file in TRAINING_FILES:
            client.log_artifact(run_id, str(build / "model" / file), "training")
        client.log_artifacts(run_id, str(release), "release")
        model_id = _log_model(model_name, model, release, build)
        client.log_batch(run_id, _metrics(build, measured, model_id), _params(model))
        client.set_tag(run_id, MODEL_ID, model_id)


LONGEST = 250
"""So many characters may be in the name of a metric or parameter."""

TRAINING_FILES = ("training.json", "profile.json", "reference.parquet", "train_ids.npy", "train_rows.npy")
EVALUATION_FILES = ("predictions.parquet", "slices.json")
"""What is fetched with a version, and so is hashed. One that was tracked earlier may lack some of them."""


def _log_model(name: str, model: params.Model, release: Path, build: Path) -> str:
    """The fitted pipeline as MLflow's LoggedModel, in skops format: give its id."""
    from unittest import mock

    import mlflow.sklearn
    from mlflow import pyfunc
    from mlflow.models import infer_signature
    from mlflow.utils import environment

    from tasks.modelling import rows
    from tasks.runtime import families, model_file

    path = release / "model.skops"
    pipeline = model_file.load(path, files.read_json(release / "release.json")["model_sha256"], own=f"models.{name}")
    example = _without_texts(rows.read(build, "holdout", model.columns).head(5), model)
    warn = "warn_dependency_requirement_mismatches"  # asks twice what is installed of 80 packages: `environment` has
    with mock.patch.object(pyfunc, warn), mock.patch.object(environment, warn):
        logged = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            serialization_format="skops",
            skops_trusted_types=sorted(families.SKLEARN.reviewed | model_file.types(path.read_bytes())),
            pip_requirements=_requirements(release / "requirements.txt"),  # inferring them takes seven seconds
            signature=infer_signature(example, pipeline.predict(example)),
            input_example=example,
        )
    return str(logged.model_id)


def _without_texts(rows: pd.DataFrame, model: params.Model) -> pd.DataFrame:
    """Rows in which each text is the feature's example: what people wrote stays in the data."""
    return rows.assign(**{text: model.features[text].example for text in model.of_type("text")})


def _requirements(path: Path) -> list[str]:
    """The exact pins of a release, without hashes and comments."""
    lines = (line.partition("#")[0].partition(" --hash")[0].strip(" \\\n") for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def _run_tags(name: str, candidate: str, release: Path, build: Path) -> dict[str, str]:
    import platform

    clone = Clone(settings.ROOT)
    head = clone.attempt("rev-parse", "--verify", "-q", "HEAD").stdout.strip() if clone.is_checkout() else ""
    is_dirty = str(bool(clone.run("status", "--porcelain"))).lower() if head else "unknown"
    lock = settings.ROOT / "requirements.lock"
    hashed = [build / "model" / file for file in TRAINING_FILES]
    hashed += [path for file in EVALUATION_FILES if (path := build / "evaluation" / file).exists()]
    return {sha_tag(path.name): files.sha256(path) for path in hashed} | {
        CANDIDATE: candidate,
        DATA_VERSION: _data_version(name),
        BEGUN_AT: _here(),
        "git.commit": head or "none",
        "git.dirty": is_dirty,
        "mlflow.source.git.commit": head or "none",
        "lock": files.sha256(lock) if lock.exists() else "none",
        "model_sha256": files.sha256(release / "model.skops"),
        **{f"library.{library}": version for library, version in _libraries(release).items()},
        "python": platform.python_version(),
    }


def _libraries(release: Path) -> dict[str, str]:
    libraries: dict[str, str] = files.read_json(release / "release.json").get("lineage", {}).get("libraries", {})
    return libraries


def sha_tag(file: str) -> str:
    """The run's tag that holds the SHA-256 of a file."""
    return f"evergreen.sha256.{file}"


def _here() -> str:
    """This machine and its state folder: under the lock, no other run is being made here."""
    import platform

    return files.digest([platform.node(), str(settings.VAR)])[:16]


def _data_version(model: str) -> str:
    """The data version that the model's stages read: data.dvc may name a newer one by now."""
    lock, pointer = settings.ROOT / "dvc.lock", settings.ROOT / "data.dvc"
    stages = (yaml_reader.load(lock.read_text()) or {}).get("stages", {}) if lock.exists() else {}
    for dep in stages.get(f"validate@{model}", {}).get("deps", []):
        if dep["path"] == "data":
            return str(dep["md5"])
    return str(yaml_reader.load(pointer.read_text())["outs"][0]["md5"]) if pointer.exists() else "none"


def _datasets(build: Path) -> list[Any]:
    """Each dataset as an input: named by the hashes of its partitions, so that no row is read for it."""
    import json

    from mlflow.entities import Dataset, DatasetInput, InputTag

    training = files.read_json(build / "model" / "training.json")
    profile = json.dumps({"rows": training["rows"], "from": training["from"], "until": training["until"]})
    inputs = []
    for name, partitions in sorted(files.read_json(build / "partitions.json").items()):
        source = json.dumps({"uri": f"data/{name}"})
        dataset = Dataset(name, files.digest(partitions)[:16], "local", source, schema=None, profile=profile)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", "training")]))
    return inputs


def _params(model: params.Model) -> list[Param]:
    from mlflow.entities import Param

    estimator = model.estimator.model_dump(by_alias=True)
    flat = _flat({"estimator": estimator, "options": model.options, "split": model.split.model_dump()}, ".")
    names = keys(flat)
    return [Param(names[name], str(value)) for name, value in sorted(flat.items())]


def _metrics(build: Path, measured: dict[str, float], model_id: str) -> list[Metric]:
    """The numbers of metrics.json, those of slices below slices/, and what was measured of the release."""
    from mlflow.entities import Metric

    values = _flat(files.read_json(build / "evaluation" / "metrics.json"), "/")
    values |= _flat({"measured": measured}, "/")
    values |= _slice_metrics(build / "evaluation" / "slices.json")
    now = int(time.time() * 1000)
    names = keys(values)
    numbers = {names[n]: float(v) for n, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    overall_first = sorted(numbers, key=lambda name: (name.count("/"), name))[:1000]  # MLflow takes no more at once
    return [Metric(n, numbers[n], now, 0, model_id=model_id if "/" not in n else None) for n in overall_first]


def _slice_metrics(path: Path) -> dict[str, float]:
    """slices/<column>/<value>/<metric>; their intervals are in the artifact."""
    columns = files.read_json(path)["slices"] if path.exists() else {}
    return {
        f"slices/{column}/{value}/{metric}": entry["value"]
        for column, values in columns.items()
        for value, slice_ in values.items()
        for metric, entry in slice_.get("metrics", {}).items()
    }


def _flat(value: Any, joint: str, path: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a/b": 1}."""
    if not isinstance(value, dict):
        return {path: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, joint, f"{path}{joint}{name}" if path else str(name))
    return flat


def keys(names: Iterable[str]) -> dict[str, str]:
    """Name → what MLflow calls it, another one for each: of names that differ in illegal characters only, by a hash."""
    legal = {name: key(name) for name in names}
    times = Counter(legal.values())
    told_apart = {name: f"{legal[name][: LONGEST - 9]}-{files.digest(name)[:8]}" for name in legal}
    return {name: own if times[own] == 1 else told_apart[name] for name, own in legal.items()}


def key(name: str) -> str:
    """A name of a metric or parameter as MLflow allows it: it is a path too, and must be that of no other name."""
    import re

    legal = re.sub(r"[^\w\-. :/]", "_", name)
    legal = re.sub(r"^\.\.|(?<![^/])\.{0,2}(?=/|$)", lambda part: "_" * max(len(part[0]), 1), legal)
    return legal if len(legal) <= LONGEST else f"{legal[: LONGEST - 9]}-{files.digest(name)[:8]}"
