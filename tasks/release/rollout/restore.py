"""The Bento of a release that serves, brought from the registry again where it was lost or changed on this machine.

A replica that runs does not notice; the next one would not start.
"""

from __future__ import annotations

from tasks.ground.errors import DataMissing
from tasks.release.package import package
from tasks.release.registry.desired_state import ReleaseRef


def restore(model: str, one: ReleaseRef) -> bool:
    """Have the Bento of a release in the store, whole; gives whether it had to be brought.

    Raises:
        DataMissing: neither is it in the store, nor a version of it in the registry.
        ModelFileRefused: what the registry holds of it was changed.
        RegistryUnavailable: the registry does not answer.
    """
    if package.stored(model, one.candidate):
        return False
    from tasks.release.registry import registry

    version = registry.find(model, one.candidate)
    if version is None:
        raise DataMissing(
            f"the Bento {model}:{one.candidate} is gone or was changed, and the registry has no version of it. "
            f"Have another version serve: evergreen rollback {model} --to N"
        )
    package.ensure_bento_of(registry.fetch_cached(model, version) / "release")
    return True
