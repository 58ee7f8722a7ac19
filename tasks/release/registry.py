"""Runs, versions, verdicts and the champion, in MLflow: the one module that imports it.

Every function may be called again, after it ended or was killed between any two of its writes, and ends in the same
state. What one machine does to one model happens one after the other (`files.lock`).

The aliases of a registered model say where it stands: `champion` serves, `challenger` wants to, `former` is who a
rollback gives the place back to. MLflow has no transaction over several of them, so each change writes down first
what the next steps need, and whoever comes next reads `_Standing`, which knows the states in between:

    promote    tag new: replaces old → alias former = old → alias champion = new → note when → drop alias challenger
    rollback   (--to N: alias former = N) → tag champion: withdrawn → former replaces nobody → alias champion = former
               → note when → drop alias former
"""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import quote, urlsplit

from tasks import files, params, settings
from tasks.errors import DataMissing, Mistake, ModelFileRefused, RegistryUnavailable, WorldError
from tasks.release.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.entities import Run as MlflowRun

CANDIDATE, DATA_VERSION, MODEL_ID = "evergreen.candidate", "evergreen.data_version", "evergreen.logged_model"
VERDICT, VERDICT_ID, VERDICT_SUMMARY = "evergreen.verdict", "evergreen.verdict_id", "evergreen.verdict_summary"
REPLACES, PROMOTED_BY, WITHDRAWN = "evergreen.replaces", "evergreen.promoted_by", "evergreen.withdrawn"
SINCE = "evergreen.champion_since."
"""Tags of the registered model: this and a time → the version that became champion then."""

PAUSES = (0.5, 2.0)
"""Seconds before the second and the third try."""

PATIENCE = 5.0
"""Seconds that one try waits for a store that is locked or does not answer."""

P = ParamSpec("P")
T = TypeVar("T")


class NotPromoted(WorldError):
    """A version may not become champion: it was withdrawn, or no verdict says so about the champion of now."""


@dataclass(frozen=True)
class Run:
    """The MLflow run of a candidate."""

    id: str
    candidate: str
    made: bool

    def __str__(self) -> str:
        return f"run {self.id} of candidate {self.candidate}{'' if self.made else ', was there already'}"


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    model: str
    number: int
    candidate: str
    run_id: str
    created: str
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def withdrawn(self) -> str | None:
        """Why it was withdrawn, if it was."""
        return self.tags.get(WITHDRAWN)

    def __str__(self) -> str:
        return f"{self.model} version {self.number} (candidate {self.candidate})"


@dataclass(frozen=True)
class Rollback:
    """What a rollback did."""

    champion: Version | None
    withdrawn: Version | None
    changed: bool
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Entry:
    """A version, for the auditor."""

    version: int
    candidate: str
    data_version: str
    created: str
    verdict: str | None
    verdict_id: str | None
    summary: str | None
    promoted_by: str | None
    champion: tuple[str, ...]
    """When it was champion: `from … until …`, UTC."""
    withdrawn: str | None
    aliases: tuple[str, ...]
    run_id: str


# ── a store that may be locked, or gone ───────────────────────────────────────────────────────────


def _stubborn(function: Callable[P, T]) -> Callable[P, T]:
    """Try again when the store is locked or does not answer; then say so. Each function here may be called again."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause in (*PAUSES, None):
            try:
                with _told_apart():
                    return function(*args, **kwargs)
            except _Unreachable as error:
                if pause is None or error.final:
                    raise RegistryUnavailable(_unavailable(str(error))) from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    return call


class _Unreachable(Exception):
    """The store did not answer. Final: trying again will not help."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@contextmanager
def _told_apart() -> Iterator[None]:
    """Tell a store that is locked or gone from a defect of ours: only the first becomes `_Unreachable`."""
    try:
        yield
    except sqlite3.Error as error:
        raise _Unreachable(str(error), final="locked" not in str(error) and "busy" not in str(error)) from error
    except OSError as error:
        here = error.errno in {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EDQUOT}
        if not here and not isinstance(error, ConnectionError | TimeoutError):
            raise
        raise _Unreachable(str(error), final=here) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"mlflow", "sqlalchemy"} or not _is_outage(error):
            raise
        raise _Unreachable(" ".join(str(error).split())[:500], final="out-of-date" in str(error)) from error


def _is_outage(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import InterfaceError, OperationalError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return True
    if not isinstance(error, MlflowException):
        return False
    if error.error_code in {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"} or "out-of-date" in str(error):
        return True
    return error.error_code == "INTERNAL_ERROR" and _sqlite_path() is None  # a server's 5xx, or none that answers


def _unavailable(what: str) -> str:
    uri, path = _uri(), _sqlite_path()
    secret = urlsplit(uri).password
    what = what.replace(secret, "***") if secret else what
    if path is not None:
        todo = "Find out who holds it (`mlflow ui`, a backup, a stopped process: lsof names it), or whether the disk "
        todo += "is full (a store of an older MLflow wants `mlflow db upgrade`)"
    else:
        todo = "Start the server, or name another one in MLFLOW_TRACKING_URI"
    cannot = f"the MLflow store {_masked(uri)} cannot be used: {what}. Without it nothing is promoted"
    return f"{cannot}. {todo}, then run again."


def _uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or settings.environment()["MLFLOW_TRACKING_URI"]


def _masked(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.password is None and parts.username is None:
        return uri
    return uri.replace(parts.netloc, f"***@{parts.netloc.rpartition('@')[2]}")


def _sqlite_path() -> Path | None:
    uri = _uri()
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


@contextmanager
def _store(alone_for: str | None = None) -> Iterator[MlflowClient]:
    """The client of a store that answers; `alone_for` a model where something is to be written."""
    if alone_for is not None:
        with files.lock(f"registry-{alone_for}"), _store() as client:
            yield client
        return
    _knock()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar per file copied on this machine
    from mlflow import MlflowClient

    yield MlflowClient(tracking_uri=_uri(), registry_uri=_uri())


def _knock() -> None:
    """Ask the store whether it is there, before MLflow does: it would try for minutes and log a traceback each time."""
    path = _sqlite_path()
    if path is None:
        import socket

        address = urlsplit(_uri())
        if address.scheme in {"http", "https"} and address.hostname:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname, port), timeout=PATIENCE).close()
        return
    if not path.exists() or not path.stat().st_size:
        _make_store(path)
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=PATIENCE)) as store:
        if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            raise _Unreachable("it is a database, but not MLflow's", final=True)
        store.execute("BEGIN IMMEDIATE")  # whether it can be written to
        store.rollback()


def _make_store(path: Path) -> None:
    """Make an empty store, whole or not at all: two processes that migrate one file break each other."""
    import logging

    with files.lock("mlflow"):
        if path.exists() and path.stat().st_size:
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        for noisy in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        with files.replacing(path) as beside:
            made = SqlAlchemyStore(f"sqlite:///{beside}", _artifacts().as_uri())  # type: ignore[no-untyped-call]  # MLflow
            made.engine.dispose()


def _artifacts() -> Path:
    return settings.VAR / "mlflow" / "artifacts"


# ── runs ──────────────────────────────────────────────────────────────────────────────────────────


@_stubborn
def track(model_name: str, release: Path, build: Path, measured: dict[str, float]) -> Run:
    """The one finished MLflow run of the candidate in a release folder: found, or made.

    A run that was left unfinished by a kill is deleted and made again.

    Args:
        model_name: is the experiment's name too.
        release: the release folder, `candidate.json` in it.
        build: the model's folder below build/, with model/, evaluation/ and rows/.
        measured: what is known only of the packaged release: latency_ms, size_mb, …

    Raises:
        ModelFileRefused: the release folder is not what its candidate.json names.
        RegistryUnavailable: the store is locked or gone.
    """
    candidate = identity_of(release)
    with _store(alone_for=model_name) as client:
        experiment = _experiment(client, model_name)
        runs = _runs_of(client, experiment, candidate)
        if finished := [run for run in runs if run.info.status == "FINISHED"]:
            return Run(finished[0].info.run_id, candidate, made=False)
        for run in runs:
            _discard(client, experiment, run.info.run_id)
        name = f"{model_name}:{candidate}"
        run = client.create_run(experiment, tags=_run_tags(candidate, release, build), run_name=name)
        _fill(client, run.info.run_id, model_name, release, build, measured)
        return Run(run.info.run_id, candidate, made=True)


@_stubborn
def measured(model_name: str, candidate: str) -> dict[str, float]:
    """What `track` was told of a candidate's packaged release; empty when it was not tracked."""
    with _store() as client:
        run = _finished(client, model_name, candidate)
        values: dict[str, float] = run.data.metrics if run else {}
    return {name.removeprefix("measured/"): x for name, x in sorted(values.items()) if name.startswith("measured/")}


def _experiment(client: MlflowClient, name: str) -> str:
    """The id of the experiment, made when it is missing."""
    from mlflow.exceptions import MlflowException

    if (found := client.get_experiment_by_name(name)) is None:
        location = None if urlsplit(_uri()).scheme in {"http", "https"} else (_artifacts() / name).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another machine was faster
                raise
            found = client.get_experiment_by_name(name)
    assert found is not None
    return str(found.experiment_id)


def _runs_of(client: MlflowClient, experiment: str, candidate: str) -> list[MlflowRun]:
    """The runs of a candidate, the first one first."""
    runs = client.search_runs([experiment], f"tags.`{CANDIDATE}` = '{candidate}'")
    return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))


def _finished(client: MlflowClient, model_name: str, candidate: str) -> MlflowRun | None:
    experiment = client.get_experiment_by_name(model_name)
    runs = _runs_of(client, experiment.experiment_id, candidate) if experiment else []
    return next((run for run in runs if run.info.status == "FINISHED"), None)


def _discard(client: MlflowClient, experiment: str, run_id: str) -> None:
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        client.delete_logged_model(model.model_id)
    client.delete_run(run_id)


def _fill(
    client: MlflowClient, run_id: str, model_name: str, release: Path, build: Path, measured: dict[str, float]
) -> None:
    """Log everything, and finish the run: the last write."""
    import mlflow

    model = params.load().model(model_name)
    mlflow.set_tracking_uri(_uri())
    with mlflow.start_run(run_id=run_id):  # leaves the run FINISHED, or FAILED when the block raises
        client.log_inputs(run_id, datasets=_datasets(build))
        for file in ("params.yaml", "dvc.lock", "data.dvc"):
            if (settings.ROOT / file).exists():
                client.log_artifact(run_id, str(settings.ROOT / file))
        client.log_artifacts(run_id, str(build / "evaluation"), "evaluation")
        for file in _TRAINING:
            client.log_artifact(run_id, str(build / "model" / file), "training")
        client.log_artifacts(run_id, str(release), "release")
        model_id = _log_model(model_name, model, release, build)
        client.log_batch(run_id, _metrics(build, measured, model_id), _params(model))
        client.set_tag(run_id, MODEL_ID, model_id)


_TRAINING = ("training.json", "profile.json", "train_ids.npy")


def _log_model(name: str, model: params.Model, release: Path, build: Path) -> str:
    """The fitted pipeline as MLflow's LoggedModel, in skops format: give its id."""
    import mlflow.sklearn
    import skops.io
    from mlflow.models import infer_signature

    from tasks import model_file

    path = release / "model.skops"
    pipeline = model_file.load(path, files.read_json(release / "release.json")["model_sha256"], own=f"models.{name}")
    example = _example(build, model)
    logged = mlflow.sklearn.log_model(
        pipeline,
        name="model",
        serialization_format="skops",
        skops_trusted_types=sorted(model_file.TRUSTED | set(skops.io.get_untrusted_types(file=path))),
        pip_requirements=_requirements(release / "requirements.txt"),  # inferring them takes seven seconds
        signature=infer_signature(example, pipeline.predict(example)),
        input_example=example,
    )
    return str(logged.model_id)


def _example(build: Path, model: params.Model) -> pd.DataFrame:
    """A few holdout rows, as the pipeline gets them."""
    from tasks import rows

    return rows.read(build, "holdout", list(model.features)).head(5)


def _requirements(path: Path) -> list[str]:
    """The exact pins of a release, without hashes and comments."""
    lines = (line.partition("#")[0].partition(" --hash")[0].strip(" \\\n") for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def _run_tags(candidate: str, release: Path, build: Path) -> dict[str, str]:
    import platform

    commit = _git("rev-parse", "HEAD")
    lock = settings.ROOT / "requirements.lock"
    hashes = {f"evergreen.sha256.{file}": files.sha256(build / "model" / file) for file in _TRAINING}
    return hashes | {
        CANDIDATE: candidate,
        DATA_VERSION: _data_version(),
        "git.commit": commit or "none",
        "git.dirty": "unknown" if commit is None else str(bool(_git("status", "--porcelain"))).lower(),
        "mlflow.source.git.commit": commit or "none",
        "lock": files.sha256(lock) if lock.exists() else "none",
        "model_sha256": files.sha256(release / "model.skops"),
        "python": platform.python_version(),
    }


def _git(*arguments: str) -> str | None:
    """What git answers; None where there is no git, or no commit yet."""
    import subprocess

    try:
        done = subprocess.run(["git", *arguments], cwd=settings.ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _data_version() -> str:
    """The hash in data.dvc."""
    import yaml

    path = settings.ROOT / "data.dvc"
    return str(yaml.safe_load(path.read_text())["outs"][0]["md5"]) if path.exists() else "none"


def _datasets(build: Path) -> list[Any]:
    """Each dataset as an input: named by the hashes of its partitions, so that no row is read for it."""
    import json

    from mlflow.entities import Dataset, DatasetInput, InputTag

    training = files.read_json(build / "model" / "training.json")
    partitions = files.read_json(build / "partitions.json")
    profile = json.dumps({"rows": training["rows"], "from": training["from"], "until": training["until"]})
    inputs = []
    for name, held in sorted(partitions.items()):
        source = json.dumps({"uri": f"data/{name}"})
        dataset = Dataset(name, files.digest(held)[:16], "local", source, schema=None, profile=profile)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", "training")]))
    return inputs


def _params(model: params.Model) -> list[Param]:
    """Estimator, options and split, flat."""
    from mlflow.entities import Param

    said = {
        "estimator": model.estimator.model_dump(by_alias=True),
        "options": model.options,
        "split": model.split.model_dump(),
    }
    return [Param(_key(name), str(value)) for name, value in sorted(_flat(said, ".").items())]


def _metrics(build: Path, measured: dict[str, float], model_id: str) -> list[Metric]:
    """The numbers of metrics.json, those of slices below slices/, and what was measured of the release."""
    from mlflow.entities import Metric

    said = _flat(files.read_json(build / "evaluation" / "metrics.json"), "/")
    said |= {f"measured/{name}": value for name, value in measured.items()}
    said |= _slice_metrics(build / "evaluation" / "slices.json")
    now = int(time.time() * 1000)
    numbers = {_key(n): float(v) for n, v in said.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    overall_first = sorted(numbers, key=lambda name: (name.count("/"), name))[:1000]  # MLflow takes no more at once
    return [Metric(n, numbers[n], now, 0, model_id=model_id if "/" not in n else None) for n in overall_first]


def _slice_metrics(path: Path) -> dict[str, float]:
    """slices/<column>/<value>/<metric>; their intervals are in the artifact."""
    columns = files.read_json(path)["slices"] if path.exists() else {}
    return {
        f"slices/{column}/{value}/{metric}": entry["value"]
        for column, values in columns.items()
        for value, said in values.items()
        for metric, entry in said.get("metrics", {}).items()
    }


def _flat(value: Any, joint: str, path: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a/b": 1}."""
    if not isinstance(value, dict):
        return {path: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, joint, f"{path}{joint}{key}" if path else str(key))
    return flat


def _key(name: str) -> str:
    """A name as MLflow allows it."""
    import re

    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def identity_of(release: Path) -> str:
    """The candidate of a release folder, computed from what is in it.

    Raises:
        DataMissing: there is no release.
        ModelFileRefused: it is not what candidate.json names.
    """
    if not (release / "candidate.json").exists():
        raise DataMissing(f"{release} is not a release: it has no candidate.json. Run the stage package (dvc repro).")
    named = str(files.read_json(release / "candidate.json")["candidate"])
    found = files.digest({path: sha for path, sha in files.tree(release).items() if path != "candidate.json"})[:16]
    if found != named:
        raise ModelFileRefused(
            f"{release} was changed after it was packaged: it was candidate {named}, and would be {found} now. "
            f"It is not used. Restore it (dvc checkout, or `dvc repro` with --force on the stage package)."
        )
    return named


# ── versions and verdicts ─────────────────────────────────────────────────────────────────────────


@_stubborn
def register(model_name: str, candidate: str) -> Version:
    """The version of a tracked candidate, found or made; it is the `challenger` unless it is, or was, more than that.

    Raises:
        DataMissing: the candidate has no finished run.
    """
    with _store(alone_for=model_name) as client:
        run = _finished(client, model_name, candidate)
        if run is None:
            raise DataMissing(f"{model_name}: candidate {candidate} is not tracked in MLflow; call track first")
        now = _standing(client, model_name)
        version = now.of_candidate(candidate) or _new_version(client, model_name, candidate, run)
        if version.withdrawn is None and version.number not in {
            now.aliases.get("champion"),
            now.aliases.get("challenger"),
        }:
            client.set_registered_model_alias(model_name, "challenger", str(version.number))
            version = replace(version, aliases=tuple(sorted({*version.aliases, "challenger"})))
        return version


def _new_version(client: MlflowClient, model_name: str, candidate: str, run: MlflowRun) -> Version:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model_name, description=params.load().model(model_name).about)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model_id = run.data.tags[MODEL_ID]
    tags = {CANDIDATE: candidate, DATA_VERSION: run.data.tags[DATA_VERSION], "evergreen.run": run.info.run_id}
    made = client.create_model_version(
        model_name, f"models:/{model_id}", run.info.run_id, tags=tags, model_id=model_id, await_creation_for=60
    )
    return _version(made, {})


@_stubborn
def record_verdict(model_name: str, version: int, verdict: Verdict) -> None:
    """Keep a verdict with the version it is about: document, table and picture with its run, the result as tags."""
    from tasks.release.verdict import picture

    with _store(alone_for=model_name) as client:
        judged = _standing(client, model_name).numbered(version)
        if verdict.challenger != judged.candidate:
            raise Mistake(f"verdict {verdict.id} is about candidate {verdict.challenger}, not about {judged}")
        folder = f"verdicts/{verdict.id}"
        held = _read_verdict(client, judged.run_id, verdict.id)
        if held is None or held.to_json() != verdict.to_json():
            with tempfile.TemporaryDirectory() as beside:
                contents = {
                    "md": verdict.to_markdown().encode(),
                    "png": picture(verdict),
                    "json": verdict.to_json().encode(),
                }
                for kind, content in contents.items():  # the document last: it is what counts
                    path = Path(beside) / f"verdict.{kind}"
                    path.write_bytes(content)
                    client.log_artifact(judged.run_id, str(path), folder)
        said = {VERDICT_SUMMARY: verdict.summary, VERDICT_ID: verdict.id}
        for tag, value in {**said, VERDICT: "promoted" if verdict.promoted else "refused"}.items():
            if judged.tags.get(tag) != value:
                client.set_model_version_tag(model_name, str(version), tag, value)


@_stubborn
def find_verdict(model_name: str, candidate: str, verdict_id: str) -> Verdict | None:
    """A recorded verdict on a candidate, if there is that one."""
    with _store() as client:
        run = _finished(client, model_name, candidate)
        return _read_verdict(client, run.info.run_id, verdict_id) if run else None


def _read_verdict(client: MlflowClient, run_id: str, verdict_id: str) -> Verdict | None:
    path = f"verdicts/{verdict_id}/verdict.json"
    if path not in {file.path for file in client.list_artifacts(run_id, f"verdicts/{verdict_id}")}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(run_id, path, folder)).read_text(encoding="utf-8")
    try:
        verdict = Verdict.from_json(text)
    except ValueError:  # a kill left half of it: it is not recorded
        return None
    return verdict if verdict.id == verdict_id else None


# ── where a model stands ──────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Standing:
    """The registry's entry of a model, and what it means in the states between two writes as well."""

    model: str
    versions: dict[int, Version]
    aliases: dict[str, int]
    since: tuple[tuple[str, int], ...]

    def numbered(self, number: int) -> Version:
        if number not in self.versions:
            known = ", ".join(map(str, sorted(self.versions))) or "none"
            raise Mistake(f"{self.model} has no version {number} in the registry; there are: {known}")
        return self.versions[number]

    def of_candidate(self, candidate: str) -> Version | None:
        return next((v for _, v in sorted(self.versions.items()) if v.candidate == candidate), None)

    @cached_property
    def stored(self) -> Version | None:
        """Whom the alias `champion` names."""
        return self.versions.get(self.aliases.get("champion", -1))

    @cached_property
    def former(self) -> Version | None:
        """Who gets the place back when the stored champion is withdrawn.

        A kill in `promote` leaves `former` at the champion itself: then whom that one replaced counts. A kill in
        `rollback` leaves the same, but one that came back by a rollback replaces nobody.
        """
        number = self.aliases.get("former")
        if number is not None and self.stored and number == self.stored.number:
            said = self.stored.tags.get(REPLACES, "")
            number = int(said) if said.isdigit() else None
        found = self.versions.get(number if number is not None else -1)
        return found if found and found.withdrawn is None else None

    @cached_property
    def champion(self) -> Version | None:
        """Who is champion: the former one already, when a rollback was killed after the withdrawal."""
        interrupted = self.stored is not None and self.stored.withdrawn is not None and self.former is not None
        return self.former if interrupted else self.stored


def _standing(client: MlflowClient, model_name: str) -> _Standing:
    from mlflow.exceptions import MlflowException

    try:
        entry = client.get_registered_model(model_name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return _Standing(model_name, {}, {}, ())
    aliases = {alias: int(number) for alias, number in entry.aliases.items()}
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{model_name}'", page_token=token)
        found += list(page)
        token = page.token
        if not token:
            break
    versions = {int(one.version): _version(one, aliases) for one in found}
    since = sorted((k.removeprefix(SINCE), int(v)) for k, v in entry.tags.items() if k.startswith(SINCE))
    return _Standing(model_name, versions, aliases, tuple(since))


def _version(one: Any, aliases: dict[str, int]) -> Version:
    number = int(one.version)
    created = datetime.fromtimestamp(one.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
    names = tuple(sorted(alias for alias, of in aliases.items() if of == number))
    tags = dict(one.tags)
    return Version(one.name, number, tags.get(CANDIDATE, ""), one.run_id or "", created, tags, names)


@_stubborn
def champion(model_name: str) -> Version | None:
    """What serves, or is to serve."""
    with _store() as client:
        return _standing(client, model_name).champion


@_stubborn
def former(model_name: str) -> Version | None:
    """Who gets the place back by a rollback."""
    with _store() as client:
        now = _standing(client, model_name)
        return now.former if now.former != now.champion else None


@_stubborn
def is_withdrawn(model_name: str, candidate: str) -> bool:
    """Whether a person has withdrawn this candidate: then the loop does not promote it again."""
    with _store() as client:
        version = _standing(client, model_name).of_candidate(candidate)
    return version is not None and version.withdrawn is not None


@_stubborn
def history(model_name: str) -> list[Entry]:
    """Every version, oldest first."""
    with _store() as client:
        now = _standing(client, model_name)
    return [_entry(now, version) for _, version in sorted(now.versions.items())]


def _entry(now: _Standing, version: Version) -> Entry:
    ends = [*(at for at, _ in now.since[1:]), "now"]
    spans = tuple(
        f"{at} until {end}" for (at, number), end in zip(now.since, ends, strict=False) if number == version.number
    )
    tags = version.tags
    return Entry(
        version=version.number,
        candidate=version.candidate,
        data_version=tags.get(DATA_VERSION, ""),
        created=version.created,
        verdict=tags.get(VERDICT),
        verdict_id=tags.get(VERDICT_ID),
        summary=tags.get(VERDICT_SUMMARY),
        promoted_by=tags.get(PROMOTED_BY),
        champion=spans,
        withdrawn=version.withdrawn,
        aliases=version.aliases,
        run_id=version.run_id,
    )


# ── who is champion ───────────────────────────────────────────────────────────────────────────────


@_stubborn
def promote(model_name: str, version: int, verdict_id: str) -> Version:
    """Make a version the champion.

    Raises:
        NotPromoted: it was withdrawn, or no recorded verdict promotes it over the champion of now.
        Mistake: there is no such version.
    """
    with _store(alone_for=model_name) as client:
        now = _settle(client, _standing(client, model_name))
        chosen = now.numbered(version)
        if now.stored != chosen:
            _refuse_without_verdict(client, now, chosen, verdict_id)
            old = str(now.stored.number) if now.stored else "none"
            client.set_model_version_tag(model_name, str(version), REPLACES, old)
            client.set_model_version_tag(model_name, str(version), PROMOTED_BY, verdict_id)
            if now.stored:
                client.set_registered_model_alias(model_name, "former", old)
            client.set_registered_model_alias(model_name, "champion", str(version))
        _note_since(client, now, version)
        if now.aliases.get("challenger") == version:
            client.delete_registered_model_alias(model_name, "challenger")
        return _standing(client, model_name).numbered(version)


def _refuse_without_verdict(client: MlflowClient, now: _Standing, chosen: Version, verdict_id: str) -> None:
    if chosen.withdrawn is not None:
        raise NotPromoted(
            f"{chosen} was withdrawn ({chosen.withdrawn}): it is not promoted again. "
            f"To bring it back all the same: python -m tasks rollback {now.model} --to {chosen.number}"
        )
    verdict = _read_verdict(client, chosen.run_id, verdict_id)
    if verdict is None:
        raise NotPromoted(
            f"{chosen} has no recorded verdict {verdict_id}: it is not promoted. Judge it and record that."
        )
    if not verdict.promoted or verdict.challenger != chosen.candidate:
        raise NotPromoted(f"{chosen} is not promoted: {verdict.summary}")
    champion = now.stored.candidate if now.stored else None
    if verdict.champion != champion:
        raise NotPromoted(
            f"{chosen} is not promoted: verdict {verdict_id} compares it with {verdict.champion or 'no champion'}, "
            f"but the champion is {champion or 'nobody'} now. Judge it again."
        )


def _note_since(client: MlflowClient, now: _Standing, version: int) -> None:
    """Write down since when a version is champion, unless that is the last thing that was written down."""
    if not now.since or now.since[-1][1] != version:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        client.set_registered_model_tag(now.model, f"{SINCE}{at}", str(version))


@_stubborn
def rollback(model_name: str, to: int | None = None, reason: str = "") -> Rollback:
    """Withdraw the champion and give its place to the former one, or to the version `to`.

    Called again it does not flip back, and goes no further: for that the version has to be named.

    Raises:
        Mistake: there is no version `to`.
    """
    with _store(alone_for=model_name) as client:
        now = _standing(client, model_name)
        if to is not None:
            now = _aim(client, now, to)
        gone, back = now.stored, now.former
        if gone is None or back is None or gone.number == to:
            now = _settle(client, now)
            return Rollback(now.stored, None, changed=False, message=_nothing_to_roll_back(now, to))
        if gone.withdrawn is None:
            why = " ".join(reason.split()) or "rolled back"
            client.set_model_version_tag(model_name, str(gone.number), WITHDRAWN, why)
        now = _settle(client, _standing(client, model_name))
        message = (
            f"{model_name}: version {gone.number} (candidate {gone.candidate}) is withdrawn, version {back.number} "
        )
        message += f"(candidate {back.candidate}) is champion again"
        return Rollback(now.stored, now.numbered(gone.number), changed=True, message=message)


def _aim(client: MlflowClient, now: _Standing, to: int) -> _Standing:
    """Make `to` the one who gets the place, also when it was withdrawn: a person asks for it by name."""
    target = now.numbered(to)
    if now.stored == target:
        return now if target.withdrawn is None else _restore(client, now, target)
    if now.aliases.get("former") != to:
        client.set_registered_model_alias(now.model, "former", str(to))
    return _restore(client, _standing(client, now.model), target)


def _restore(client: MlflowClient, now: _Standing, target: Version) -> _Standing:
    if target.withdrawn is None:
        return now
    client.delete_model_version_tag(now.model, str(target.number), WITHDRAWN)
    return _standing(client, now.model)


def _settle(client: MlflowClient, now: _Standing) -> _Standing:
    """Do what a promotion or a rollback that was killed left undone; nothing when none was."""
    back = now.champion
    if now.stored is None or back is None:
        return now
    if back != now.stored:
        if REPLACES in back.tags:
            client.delete_model_version_tag(now.model, str(back.number), REPLACES)
        client.set_registered_model_alias(now.model, "champion", str(back.number))
        now = _standing(client, now.model)
    _note_since(client, now, back.number)
    if "former" in now.aliases and now.former is None:
        client.delete_registered_model_alias(now.model, "former")
    if now.aliases.get("challenger") == back.number:
        client.delete_registered_model_alias(now.model, "challenger")
    return _standing(client, now.model)


def _nothing_to_roll_back(now: _Standing, to: int | None) -> str:
    if now.stored is None:
        return f"{now.model} has no champion: nothing to do"
    if to == now.stored.number:
        return f"{now.stored} is champion already: nothing to do"
    others = [str(number) for number in sorted(now.versions) if number != now.stored.number]
    further = f"; to go further back name the version: --to N (there are {', '.join(others)})" if others else ""
    came_back = any(v.withdrawn is not None for v in now.versions.values()) and REPLACES not in now.stored.tags
    why = "was rolled back to already" if came_back else "is champion, and there is no former one"
    return f"{now.stored} {why}: nothing to do{further}"


# ── a champion, brought back ──────────────────────────────────────────────────────────────────────


@_stubborn
def fetch(model_name: str, version: int, to: Path) -> Path:
    """Bring a version's release and what is known of its training: `to`/release and `to`/training.

    Raises:
        DataMissing: the store has the version, but its artifacts are gone.
        ModelFileRefused: what came is not what was tracked. Nothing is left at `to`.
        RegistryUnavailable: the store is locked or gone.
    """
    with _store() as client, files.replacing(to) as beside:
        wanted = _standing(client, model_name).numbered(version)
        beside.mkdir(parents=True)
        there = {file.path for file in client.list_artifacts(wanted.run_id)}
        for folder in ("release", "training"):
            if folder not in there:
                raise DataMissing(
                    f"run {wanted.run_id} of {wanted} has no {folder}/ in the store: its artifacts were lost"
                )
            client.download_artifacts(wanted.run_id, folder, str(beside))
        for byte_code in (beside / "release").rglob("__pycache__"):
            files.remove(byte_code)  # no hash speaks of it, and Python would run it
        _refuse_changed(beside, wanted, client.get_run(wanted.run_id).data.tags)
    return to


def _refuse_changed(folder: Path, wanted: Version, tags: dict[str, str]) -> None:
    """Compare what came with what was tracked. The message names no folder: it becomes part of a verdict."""
    changed = [f for f in _TRAINING if _sha_or_none(folder / "training" / f) != tags.get(f"evergreen.sha256.{f}")]
    try:
        same = identity_of(folder / "release") == wanted.candidate
    except (DataMissing, ModelFileRefused, ValueError, LookupError, TypeError):
        same = False
    if changed or not same:
        what = ", ".join(changed if same else ["the release", *changed])
        raise ModelFileRefused(
            f"the artifacts of {wanted} were changed after they were tracked: {what}. They are not used. "
            f"Restore the artifacts of run {wanted.run_id}, or roll back to another version."
        )


def _sha_or_none(path: Path) -> str | None:
    return files.sha256(path) if path.is_file() else None
