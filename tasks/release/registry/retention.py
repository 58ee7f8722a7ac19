"""Retention in MLflow: numbers and verdicts of a candidate stay for good, its files for as long as it may serve.

The files of a candidate that never was champion are removed when it is old. Trained again, it is tracked again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tasks.release.registry import model_state, registry, tracking
from tasks.release.registry.mlflow_store import connect, uri, with_retries

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FILES = ("release", "training", "evaluation")
"""The folders of a run that are removed. Its verdicts, params.yaml, dvc.lock and data.dvc stay."""


@with_retries
def forget_refused(model_name: str, days: float) -> list[str]:
    """Remove the files of versions that never were champion and have no alias; gives their candidates.

    A run that has begun to lose them counts as none (`tracking.FORGOTTEN`). A kill is repaired by the next call.
    """
    before = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    with connect(alone_for=model_name) as client:
        removed = []
        for version in registry.history(model_name):
            # by the journal and by its own tag, as people can delete either in MLflow
            was_champion = version.champion or version.promoted_by or version.aliases
            if version.created >= before or was_champion or version.files_removed:
                continue
            if not model_state.is_gone(client, version.run_id):
                run = client.get_run(version.run_id)
                if run.info.lifecycle_stage == "deleted":  # by a person, who runs `mlflow gc` or restores it
                    continue
                client.set_tag(version.run_id, tracking.FORGOTTEN, "true")
                _remove_files(client, run)
            at = datetime.now(UTC).isoformat(timespec="seconds")
            client.set_model_version_tag(model_name, str(version.version), tracking.FORGOTTEN, at)
            removed.append(version.candidate)
    return removed


def _remove_files(client: MlflowClient, run: Run) -> None:
    folders = {file.path for file in client.list_artifacts(run.info.run_id)}
    for folder in folders.intersection(FILES):
        _remove(run.info.artifact_uri, folder)
    for model in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"):
        _remove(model.artifact_location)
        client.delete_logged_model(model.model_id)


def _remove(address: str, folder: str | None = None) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(address, tracking_uri=uri()).delete_artifacts(folder)  # type: ignore[no-untyped-call]
