"""What MLflow keeps of a candidate: for good its numbers and verdicts, and its files for as long as it may serve.

The files of a candidate that never was champion are removed when it is old. Trained again, it is tracked again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tasks.release.registry import registry, tracking
from tasks.release.registry.mlflow_store import connect, uri, with_retries

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FILES = ("release", "training", "evaluation")
"""The folders of a run that go. Its verdicts, params.yaml, dvc.lock and data.dvc stay."""


@with_retries
def forget_refused(model_name: str, days: float) -> list[str]:
    """Remove the files of versions that never were champion and have no alias; gives their candidates.

    A run that has begun to lose them counts as none (`tracking.FORGOTTEN`). A kill is repaired by the next call.

    Args:
        model_name: whose versions.
        days: how old they may become.
    """
    before = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    with connect(alone_for=model_name) as client:
        old = [
            entry
            for entry in registry.history(model_name)
            if entry.created < before and not (_served(entry) or entry.aliases or entry.files_removed)
        ]
        removed = []
        for entry in old:
            if not registry.is_gone(client, entry.run_id):
                run = client.get_run(entry.run_id)
                if (
                    run.info.lifecycle_stage == "deleted"
                ):  # by a person: `mlflow gc` removes its files, or it comes back
                    continue
                client.set_tag(entry.run_id, tracking.FORGOTTEN, "true")
                _remove_files(client, run)
            at = datetime.now(UTC).isoformat(timespec="seconds")
            client.set_model_version_tag(model_name, str(entry.version), tracking.FORGOTTEN, at)
            removed.append(entry.candidate)
    return removed


def _served(entry: registry.VersionRecord) -> bool:
    """Whether it ever was champion: by the journal, or by its own tag, as people can delete either in MLflow."""
    return bool(entry.champion or entry.promoted_by)


def _remove_files(client: MlflowClient, run: Run) -> None:
    there = {file.path for file in client.list_artifacts(run.info.run_id)}
    for folder in there.intersection(FILES):
        _remove(run.info.artifact_uri, folder)
    for model in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"):
        _remove(model.artifact_location)
        client.delete_logged_model(model.model_id)


def _remove(address: str, folder: str | None = None) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(address, tracking_uri=uri()).delete_artifacts(folder)  # type: ignore[no-untyped-call]
