"""Model registry on MLflow: the versions of a model, registered and looked up.

Who is champion changes in `promotions.py`; what the states between two writes mean, `model_state.py` knows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.ground import params
from tasks.ground.errors import DataMissing, Mistake, RegistryDamaged, did_you_mean
from tasks.release.registry import verdict_records
from tasks.release.registry.alias_lines import changing
from tasks.release.registry.mlflow_store import Tolerating, connect, with_retries
from tasks.release.registry.model_state import (
    ON_HOLD,
    PROMOTED_BY,
    VERDICT,
    VERDICT_SUMMARY,
    ModelState,
    ModelVersion,
    is_without_files,
    read_state,
    version_of,
)
from tasks.release.registry.tracking import CANDIDATE, DATA_VERSION, FORGOTTEN, MODEL_ID, finished

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun


@dataclass(frozen=True)
class VersionRecord:
    """A version, for the auditor."""

    version: int
    candidate: str
    data_version: str
    created: str
    verdict: str | None
    summary: str | None
    on_hold: str | None
    """Why it waits for a person, if it does."""
    promoted_by: str | None
    """The id of the verdict that it was promoted by."""
    champion: tuple[str, ...]
    """When it was champion: `from … until …`, UTC."""
    withdrawn: str | None
    aliases: tuple[str, ...]
    run_id: str
    files_removed: str | None
    """When its files were removed: it is old, and never was champion."""


@with_retries
def register(model_name: str, candidate: str) -> ModelVersion:
    """The version of a tracked candidate, made when it is missing; it becomes `challenger` unless it is champion."""
    with changing(model_name, "registered") as (client, now):
        run = finished(client, model_name, candidate)
        if run is None:
            raise DataMissing(f"{model_name}: candidate {candidate} is not tracked in MLflow; call track first")
        verdict_records.finish(client, now)
        version = now.of_candidate(candidate)
        if version is None or (version.run_id != run.info.run_id and is_without_files(client, version)):
            version = new_version(client, model_name, candidate, run)
        placed = {now.aliases.get("champion"), now.aliases.get("challenger")}
        if version.withdrawn is None and version.number not in placed:
            client.set_registered_model_alias(model_name, "challenger", str(version.number))
            version = replace(version, aliases=tuple(sorted({*version.aliases, "challenger"})))
        return version


def new_version(client: MlflowClient, model_name: str, candidate: str, run: MlflowRun) -> ModelVersion:
    """Make a version of a candidate's run, and the registered model where there is none."""
    with Tolerating("RESOURCE_ALREADY_EXISTS"):
        client.create_registered_model(model_name, description=params.load().model(model_name).about)
    model_id = run.data.tags.get(MODEL_ID) or _logged_model(client, run)
    tags = {CANDIDATE: candidate, DATA_VERSION: run.data.tags.get(DATA_VERSION, ""), "evergreen.run": run.info.run_id}
    made = client.create_model_version(
        model_name, f"models:/{model_id}", run.info.run_id, tags=tags, model_id=model_id, await_creation_for=60
    )
    return version_of(made, {})


def _logged_model(client: MlflowClient, run: MlflowRun) -> str:
    """The model that a run logged, where a person has deleted the tag that names it."""
    logged = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    if not logged:
        raise RegistryDamaged(
            f"the run {run.info.run_id} names no logged model any more: delete the run in MLflow and `mlflow gc` it, "
            f"then the next training tracks it anew"
        )
    return str(logged[0].model_id)


@with_retries
def champion(model_name: str) -> ModelVersion | None:
    """The version that serves, or is about to."""
    with connect() as client:
        return read_state(client, model_name).champion


@with_retries
def find(model_name: str, candidate: str) -> ModelVersion | None:
    """The version of a candidate, if it was registered."""
    with connect() as client:
        return read_state(client, model_name).of_candidate(candidate)


@with_retries
def resolve(model_name: str, version: str) -> ModelVersion:
    """The version that a number, an alias or a candidate names; `champion` also while a rollback is half done.

    Raises:
        DataMissing: there is no champion.
        Mistake: there is no such version.
    """
    with connect() as client:
        now = read_state(client, model_name)
    if version == "champion":
        if now.champion is None:
            raise DataMissing(
                f"{model_name} has no champion yet: train it (evergreen train {model_name}), or name a version"
            )
        return now.champion
    named = [v for v in now.versions.values() if version in {*v.aliases, str(v.number), v.candidate}]
    if not named:
        hint = did_you_mean(version, [*map(str, sorted(now.versions)), *sorted(now.aliases)])
        raise Mistake(
            f"{model_name} has no version or candidate {version!r}{hint}; `evergreen history {model_name}` lists those "
            f"there are"
        )
    return max(named, key=lambda v: v.number)


@with_retries
def history(model_name: str) -> list[VersionRecord]:
    """Every version, oldest first."""
    with connect() as client:
        now = read_state(client, model_name)
    return [_record(now, version) for _, version in sorted(now.versions.items())]


def _record(now: ModelState, version: ModelVersion) -> VersionRecord:
    ends = [*(at for at, _ in now.since[1:]), "now"]
    spans = zip(now.since, ends, strict=False)
    tag = version.tags.get
    return VersionRecord(
        version=version.number,
        candidate=version.candidate,
        data_version=tag(DATA_VERSION, ""),
        created=version.created,
        verdict=tag(VERDICT),
        summary=tag(VERDICT_SUMMARY),
        on_hold=tag(ON_HOLD),
        promoted_by=tag(PROMOTED_BY),
        champion=tuple(f"{at} until {end}" for (at, number), end in spans if number == version.number),
        withdrawn=version.withdrawn,
        aliases=version.aliases,
        run_id=version.run_id,
        files_removed=tag(FORGOTTEN),
    )
