"""The Bentos on this machine, brought from the registry again where they were lost or changed.

A replica that runs does not notice; the next one would not start.
"""

from __future__ import annotations

from pathlib import Path

from tasks.ground.errors import DataMissing
from tasks.release.package import package


def release_folder(model: str, candidate: str) -> Path:
    """Where the store keeps a release's files, if it has them."""
    return package.bento_folder(model, candidate) / "src"


def ensure(model: str, candidate: str) -> bool:
    """Have the Bento of a release in the store, whole; gives whether it had to be brought from the registry.

    Raises:
        DataMissing: neither is it in the store, nor a version of it in the registry.
        ModelFileRefused: what the registry holds of it was changed.
        RegistryUnavailable: the registry does not answer.
    """
    if package.stored(model, candidate):
        return False
    from tasks.release.registry import registry, version_files

    version = registry.find(model, candidate)
    if version is None:
        raise DataMissing(
            f"the Bento {model}:{candidate} is gone or was changed, and the registry has no version of it. "
            f"Have another version serve: evergreen rollback {model} --to N"
        )
    package.ensure_bento_of(version_files.fetch_cached(model, version) / "release")
    return True
