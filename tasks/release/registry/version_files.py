"""The files of a version, release and training, as the store has them: fetched, checked, kept below var/champions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.ground import files, paths
from tasks.ground.errors import DataMissing, EvergreenError, ModelFileRefused
from tasks.release.package import package
from tasks.release.registry.mlflow_store import connect, with_retries
from tasks.release.registry.model_state import ModelVersion, is_gone, read_state
from tasks.release.registry.tracking import EVALUATION_FILES, FORGOTTEN, TRAINING_FILES, sha_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient


def fetch_cached(model_name: str, version: ModelVersion) -> Path:
    """A version's release/ and training/ below var/champions/<candidate>, fetched from the store when missing."""
    folder = paths.champions() / version.candidate
    with files.lock(f"champion-{version.candidate}"):
        if not _is_whole(folder, version.candidate):
            fetch(model_name, version.number, folder)
            files.seal(folder)
    return folder


def _is_whole(folder: Path, candidate: str) -> bool:
    try:
        return files.is_sealed(folder) and package.identity_of(folder / "release") == candidate
    except EvergreenError:  # changed or missing: it is fetched again
        return False


@with_retries
def fetch(model_name: str, version: int, to: Path) -> Path:
    """Download a version's release and what is known of its training: `to`/release, `to`/training and `to`/evaluation.

    Its answers on the holdout came to be kept later than the rest: an older version has no `to`/evaluation.

    Raises:
        DataMissing: the store has the version, but its artifacts are gone.
        ModelFileRefused: what came is not what was tracked. Nothing is left at `to`.
        RegistryUnavailable: the store is locked or gone.
    """
    with connect() as client, files.replacing(to) as beside:
        version_ = read_state(client, model_name).numbered(version)
        tags = _tags_of_run(client, version_)
        beside.mkdir(parents=True)
        for folder in ("release", "training"):
            _download(client, version_, folder, beside)
        for file in (name for name in EVALUATION_FILES if sha_tag(name) in tags):
            (beside / "evaluation").mkdir(exist_ok=True)
            path = _download(client, version_, f"evaluation/{file}", beside)
            path.replace(beside / "evaluation" / file)  # where it lands, stores differ
        for byte_code in (beside / "release").rglob("__pycache__"):
            files.remove(byte_code)  # no hash covers it, and Python would run it
        _refuse_changed(beside, version_, tags)
    return to


def _tags_of_run(client: MlflowClient, version: ModelVersion) -> dict[str, str]:
    """The tags of its run, which must have its files."""
    if not version.run_id or is_gone(client, version.run_id):
        raise DataMissing(f"the run {version.run_id} of {version} was removed from MLflow for good: so is its release")
    tags: dict[str, str] = client.get_run(version.run_id).data.tags
    if FORGOTTEN in tags:
        commit = tags.get("git.commit", "none")[:10]
        raise DataMissing(
            f"the files of {version} were removed, as it is older than keep_days and never was champion. Train it "
            f"again: git checkout {commit}; evergreen data; evergreen train {version.model}"
        )
    return tags


def _download(client: MlflowClient, version: ModelVersion, path: str, to: Path) -> Path:
    if path not in {file.path for file in client.list_artifacts(version.run_id, path.rpartition("/")[0] or None)}:
        raise DataMissing(f"run {version.run_id} of {version} has no {path} in the store: its artifacts were lost")
    return Path(client.download_artifacts(version.run_id, path, str(to)))


def _refuse_changed(folder: Path, version: ModelVersion, tags: dict[str, str]) -> None:
    """Compare what came with what was tracked. The message names no folder: it becomes part of a verdict."""
    tracked = [folder / "training" / file for file in TRAINING_FILES]
    tracked += [folder / "evaluation" / file for file in EVALUATION_FILES]
    hashes = {path.name: files.sha256(path) if path.is_file() else None for path in tracked}
    changed = [name for name, sha in hashes.items() if sha != tags.get(sha_tag(name))]
    try:
        same = package.identity_of(folder / "release") == version.candidate
    except (DataMissing, ModelFileRefused, ValueError, LookupError, TypeError):
        same = False
    if changed or not same:
        what = ", ".join(changed if same else ["the release", *changed])
        raise ModelFileRefused(
            f"the artifacts of {version} were changed after they were tracked: {what}. They are not used. "
            f"Restore the artifacts of run {version.run_id}, or roll back to another version."
        )
