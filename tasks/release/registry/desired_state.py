"""Desired state of serving: a small file per model, written by the rollout and reconciled by the router.

    var/serving/<model>.json              the live release, those kept warm beside it, and the canary's share
    the journal                           which release was tried, went live or was withdrawn, when and why
    var/rollouts/<model>.failed.json      a withdrawal that has begun, until all of it is done

Written under the lock `rollout-<model>`, each file whole or not at all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from tasks.ground import files, leases, paths
from tasks.journal import journal

ROLES = {"previous": "former", "canary": "challenger"}
"""Of a release that is kept warm: attribute of `DesiredState` → its role, as the file names it."""


@dataclass(frozen=True)
class ReleaseRef:
    """A release, as the registry and the router name it."""

    candidate: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]  # it becomes part of a path
    version: int
    since: str = ""
    """Since when it is live, UTC."""

    def __str__(self) -> str:
        return f"version {self.version} ({self.candidate})"


@dataclass(frozen=True)
class DesiredState:
    """What should serve for one model: the schema of `var/serving/<model>.json`, for its writer and for the router."""

    live: ReleaseRef | None = None
    previous: ReleaseRef | None = None
    """The release that was live before, kept warm."""
    canary: ReleaseRef | None = None
    """The release that is being tried, kept warm."""
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """The canary's share of the requests; None while it gets none."""

    def with_canary(self, release: ReleaseRef) -> DesiredState:
        """One more release warm, without any traffic."""
        previous = None if self.previous and self.previous.candidate == release.candidate else self.previous
        return DesiredState(self.live, previous, replace(release, since=""))

    def with_share(self, share: float | None) -> DesiredState:
        """A share of the requests for the canary."""
        return replace(self, share=share)

    def without_canary(self) -> DesiredState:
        """As if no release were tried."""
        return replace(self, canary=None, share=None)

    def gone_live(self, release: ReleaseRef) -> DesiredState:
        """All requests for a release; the one that was live is kept warm."""
        previous = self.live if self.live and self.live.candidate != release.candidate else self.previous
        return DesiredState(replace(release, since=journal.now()), replace(previous, since="") if previous else None)

    @property
    def releases(self) -> list[ReleaseRef]:
        """All that should be ready to answer; the live one comes last."""
        return [release for release in (self.previous, self.canary, self.live) if release]

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        warm = {role: getattr(self, name) for name, role in ROLES.items()}
        return {
            "live": asdict(self.live) if self.live else None,
            "beside": [
                {"candidate": release.candidate, "version": release.version, "role": role}
                for role, release in warm.items()
                if release
            ],
            "canary": {"candidate": self.canary.candidate, "share": self.share} if self.canary and self.share else None,
        }


def parse(content: Any) -> DesiredState:
    """The desired state that a file holds.

    Raises:
        ValueError, LookupError, TypeError: the file holds something else.
    """
    live, share = content["live"], content["canary"]["share"] if content["canary"] else None
    warm = {release["role"]: ReleaseRef(release["candidate"], release["version"]) for release in content["beside"]}
    kept = {name: warm.get(role) for name, role in ROLES.items()}
    return DesiredState(ReleaseRef(**live) if live else None, **kept, share=share)


def read(model: str) -> DesiredState:
    """The desired state of a model; empty where none was written. A torn or lost file is restored from the journal."""
    existed = paths.desired_state(model).exists()
    state = files.read_state(paths.desired_state(model), None, parse)
    if state is None:
        state = _from_journal(model)
        if existed or state.live:
            write(model, state)
    return state


def _from_journal(model: str) -> DesiredState:
    """The release that was live last, and the one before it."""
    state = DesiredState()
    for line in history(model):
        release = ReleaseRef(line["candidate"], line["version"], line["time"])
        if line["outcome"] == "live":
            state = replace(state.gone_live(release), live=release)
        elif state.live and state.live.candidate == release.candidate:
            state = replace(state, live=None)
    return state


def write(model: str, state: DesiredState) -> None:
    """Set the desired state: the router follows it from its next look on."""
    with leases.fenced():
        _note_stage(model, state)
        files.write_json(paths.desired_state(model), state.as_json())


def _note_stage(model: str, state: DesiredState) -> None:
    """Have the journal say which release is tried, and with which share of the requests, before it is."""
    stage = {"canary": asdict(state.canary) if state.canary else None, "share": state.share}
    last = journal.last(model, "stage")
    if stage != (last.what if last else {"canary": None, "share": None}):
        journal.append(model, "stage", stage)


def written() -> dict[str, Path]:
    """Model → its file, of each that has one; API keys lie beside them."""
    return {path.stem: path for path in paths.desired_states().glob("*.json") if path != paths.api_keys()}


def forget(configured: Collection[str]) -> list[str]:
    """Remove the files of models that params.yaml no longer has; gives their names. The router ends their releases."""
    gone = [model for model in sorted(written()) if model not in configured and not model.startswith(".")]
    for model in gone:
        with files.lock(f"rollout-{model}"):
            files.remove(paths.desired_state(model))
            files.remove(paths.failed_rollout(model))
    return gone


# ── what has been ─────────────────────────────────────────────────────────────────────────────────


def note(model: str, release: ReleaseRef, outcome: str, why: str = "") -> None:
    """Append to the journal that a release went `live` or was `withdrawn`, unless its last line says so already."""
    event = {"candidate": release.candidate, "version": release.version, "outcome": outcome}
    last = journal.last(model, "rollout")
    if last is None or (last.what, last.why) != (event, why):
        journal.append(model, "rollout", event, why, time=release.since or None)


def history(model: str) -> list[dict[str, Any]]:
    """The lines of the journal on rollouts, oldest first."""
    return [line.flat for line in journal.lines(model, "rollout")]


def note_live(model: str, live: ReleaseRef) -> None:
    """Have the journal say that a release is live: a kill may have come before that line."""
    lives = [line for line in history(model) if line["outcome"] == "live"]
    if not lives or lives[-1]["candidate"] != live.candidate:
        note(model, live, "live")


def has_served(model: str, candidate: str) -> bool:
    """Whether a release was live here before, by lines that nobody has forged."""
    lives = (line.what for line in journal.verified(model, "rollout") if line.what["outcome"] == "live")
    return any(live["candidate"] == candidate for live in lives)


# ── a withdrawal that has begun ───────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Failed:
    """A release that failed in its rollout."""

    candidate: str
    version: int
    why: str
    at: str
    serves: str | None
    """The candidate that stays live, if any does."""

    @property
    def release(self) -> ReleaseRef:
        """The release, as the registry names it."""
        return ReleaseRef(self.candidate, self.version)


def begin_withdrawal(model: str, failed: Failed) -> None:
    """Write down what is to be done before any of it is: the run after a kill completes it."""
    files.write_json(paths.failed_rollout(model), asdict(failed))


def unfinished(model: str) -> Failed | None:
    """The withdrawal that a killed run has left, if one did."""
    return files.read_state(paths.failed_rollout(model), None, lambda fields: Failed(**fields))


def end_withdrawal(model: str) -> None:
    """All of it is done."""
    files.remove(paths.failed_rollout(model))
