"""The registry's entry of a model, as MLflow holds it, and what it means in the states between two writes as well.

The aliases of a registered model: `champion` serves, `challenger` waits to, `former` gets the place back by a rollback.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tasks.ground.errors import Mistake
from tasks.release.registry.mlflow_store import Tolerating
from tasks.release.registry.tracking import CANDIDATE, FORGOTTEN

if TYPE_CHECKING:
    from mlflow import MlflowClient

VERDICT, VERDICT_ID, VERDICT_SUMMARY = "evergreen.verdict", "evergreen.verdict_id", "evergreen.verdict_summary"
REPLACES, PROMOTED_BY, WITHDRAWN = "evergreen.replaces", "evergreen.promoted_by", "evergreen.withdrawn"
UNCOMMITTED = "evergreen.uncommitted"
"""A version's tag: what it was made of that was in no commit then."""

ON_HOLD, ROLLED_BACK = "evergreen.held", "evergreen.rolled_back"
"""Tags. Of a version: why it waits for a person, though its verdict promotes it. Of the registered model: the data
version and the code when a person rolled back; until either changes, nothing is promoted automatically."""

SINCE = "evergreen.champion_since."
"""Tags of the registered model: this and a time → the version that became champion then."""

NOBODY = 0
"""As such a version: from then on there was no champion."""


@dataclass(frozen=True)
class ModelVersion:
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
class ModelState:
    """Versions, aliases and tags of a registered model; empty where there is none."""

    model: str
    versions: dict[int, ModelVersion] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @cached_property
    def since(self) -> list[tuple[str, int]]:
        """When which version became champion, oldest first."""
        dates = [(tag.removeprefix(SINCE), number) for tag, number in self.tags.items() if tag.startswith(SINCE)]
        return sorted((at, int(number)) for at, number in dates if number.isdigit())

    def numbered(self, number: int) -> ModelVersion:
        """The version of a number.

        Raises:
            Mistake: there is none.
        """
        if number not in self.versions:
            raise Mistake(f"{self.model} has no version {number} in the registry; there are: {self.numbers()}")
        return self.versions[number]

    def numbers(self, *without: int) -> str:
        """The numbers there are, but for some, in words."""
        return ", ".join(str(number) for number in sorted(self.versions) if number not in without) or "none"

    def of_candidate(self, candidate: str) -> ModelVersion | None:
        """The newest version of a candidate."""
        return next((v for _, v in sorted(self.versions.items(), reverse=True) if v.candidate == candidate), None)

    @cached_property
    def stored(self) -> ModelVersion | None:
        """The version that the alias `champion` names."""
        return self.versions.get(self.aliases.get("champion", -1))

    @cached_property
    def previous(self) -> ModelVersion | None:
        """The version that gets the place back when the stored champion is withdrawn.

        A kill in `promote` leaves the alias `former` at the champion itself: then the version that it replaced counts.
        A kill in `rollback` leaves the same, but one that came back by a rollback replaces nobody.
        """
        number = self.aliases.get("former", -1)
        if self.stored and number == self.stored.number:
            replaced = self.stored.tags.get(REPLACES, "")
            number = int(replaced) if replaced.isdigit() else -1
        version = self.versions.get(number)
        return version if version and version.withdrawn is None else None

    @cached_property
    def champion(self) -> ModelVersion | None:
        """The champion: already the previous one, where a rollback was killed after the withdrawal."""
        interrupted = self.stored is not None and self.stored.withdrawn is not None and self.previous is not None
        return self.previous if interrupted else self.stored


def read_state(client: MlflowClient, model_name: str) -> ModelState:
    """The entry of a model, read now."""
    entry = None
    with Tolerating("RESOURCE_DOES_NOT_EXIST"):
        entry = client.get_registered_model(model_name)
    if entry is None:
        return ModelState(model_name)
    aliases = {alias: int(number) for alias, number in entry.aliases.items()}
    versions: dict[int, ModelVersion] = {}
    token: str | None = ""
    while token is not None:
        page = client.search_model_versions(f"name = '{model_name}'", page_token=token or None)
        versions |= {int(each.version): version_of(each, aliases) for each in page}
        token = page.token or None
    return ModelState(model_name, versions, aliases, dict(entry.tags))


def version_of(entity: Any, aliases: dict[str, int]) -> ModelVersion:
    """A version of MLflow's, with the aliases that name it."""
    number, tags = int(entity.version), dict(entity.tags)
    created = datetime.fromtimestamp(entity.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
    names = tuple(sorted(alias for alias, of in aliases.items() if of == number))
    return ModelVersion(entity.name, number, tags.get(CANDIDATE, ""), entity.run_id or "", created, tags, names)


def set_tags(client: MlflowClient, version: ModelVersion, tags: dict[str, str]) -> None:
    """Write the tags of a version that have another value, in their order."""
    for tag, value in tags.items():
        if version.tags.get(tag) != value:
            client.set_model_version_tag(version.model, str(version.number), tag, value)


def is_gone(client: MlflowClient, run_id: str) -> bool:
    """Whether a run was removed for good (`mlflow gc`), with all of its artifacts."""
    with Tolerating("RESOURCE_DOES_NOT_EXIST"):
        client.get_run(run_id)
        return False
    return True


def is_without_files(client: MlflowClient, version: ModelVersion) -> bool:
    """Whether the run of a version, or its files, were removed."""
    return is_gone(client, version.run_id) or FORGOTTEN in client.get_run(version.run_id).data.tags
