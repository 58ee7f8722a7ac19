"""What should serve: a small file per model, which the router follows (deployments/serving/router.py).

    var/serving/<model>.json              who serves, who is kept warm beside it, and the canary's share
    var/rollouts/<model>.jsonl            who went live and who was withdrawn, when and why: a line each, for ever
    var/rollouts/<model>.failed.json      a withdrawal that has begun, until all of it is done

Written by whoever holds the lock `rollout-<model>`, each whole or not at all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.ground import files, paths

KEYS = "keys.json"
"""Lies beside the models' files, and is no model's."""


@dataclass(frozen=True)
class One:
    """A release, as the registry and the router name it."""

    candidate: str
    version: int
    since: str = ""
    """Since when it serves, UTC."""

    def __str__(self) -> str:
        return f"version {self.version} ({self.candidate})"


@dataclass(frozen=True)
class Serving:
    """What should serve for one model."""

    live: One | None = None
    former: One | None = None
    """Kept warm: who served before."""
    challenger: One | None = None
    """Kept warm: who is being tried."""
    share: float | None = None
    """The challenger's share of the requests, where there is a canary."""

    def with_challenger(self, one: One) -> Serving:
        """One more release warm beside what serves, without any traffic."""
        former = None if self.former and self.former.candidate == one.candidate else self.former
        return Serving(self.live, former, replace(one, since=""))

    def with_canary(self, share: float | None) -> Serving:
        """A share of the requests for the challenger; none when that is None."""
        return replace(self, share=share)

    def without_challenger(self) -> Serving:
        """As if nobody had been tried."""
        return replace(self, challenger=None, share=None)

    def gone_live(self, one: One) -> Serving:
        """Everything for one; who served is kept warm."""
        former = self.live if self.live and self.live.candidate != one.candidate else self.former
        return Serving(replace(one, since=now()), replace(former, since="") if former else None)

    def said(self) -> dict[str, Any]:
        """As the router reads it."""
        beside = [(self.former, "former"), (self.challenger, "challenger")]
        canary = (
            {"candidate": self.challenger.candidate, "share": self.share} if self.challenger and self.share else None
        )
        return {
            "live": asdict(self.live) if self.live else None,
            "beside": [
                {"candidate": one.candidate, "version": one.version, "role": role} for one, role in beside if one
            ],
            "canary": canary,
        }


def read(model: str) -> Serving:
    """What should serve; nothing where nobody has said so. A file that is torn or lost is made again of the journal."""
    existed = path(model).exists()
    known = files.read_state(path(model), None, _serving)
    if known is None:
        known = _as_it_was(model)
        if existed or known.live:
            write(model, known)
    return known


def _serving(said: dict[str, Any]) -> Serving:
    roles = {one["role"]: One(one["candidate"], one["version"]) for one in said["beside"]}
    live, share = said["live"], said["canary"]["share"] if said["canary"] else None
    return Serving(One(**live) if live else None, roles.get("former"), roles.get("challenger"), share)


def _as_it_was(model: str) -> Serving:
    """What served last, and what served before it: as it is written down."""
    serving = Serving()
    for line in history(model):
        release = One(line["candidate"], line["version"], line["time"])
        if line["outcome"] == "live":
            serving = serving.gone_live(release)
            serving = replace(serving, live=release)
        elif serving.live and serving.live.candidate == release.candidate:
            serving = replace(serving, live=None)
    return serving


def write(model: str, serving: Serving) -> None:
    """Say what should serve: the router does it from its next look on."""
    files.write_json(path(model), serving.said())


def path(model: str) -> Path:
    """The file that the router follows."""
    return paths.desired_state(model)


def forget(known: Collection[str]) -> list[str]:
    """Remove the files of models that params.yaml no longer has; gives their names. The router ends what they named."""
    there = [found.stem for found in sorted(paths.desired_states().glob("*.json")) if found.name != KEYS]
    gone = [model for model in there if model not in known and not model.startswith(".")]
    for model in gone:
        with files.lock(f"rollout-{model}"):
            files.remove(path(model))
            files.remove(_failed(model))
    return gone


def now() -> str:
    """The time, UTC, as it is written down."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ── what has been ─────────────────────────────────────────────────────────────────────────────────


def note(model: str, one: One, outcome: str, why: str = "") -> None:
    """Write down that a release went `live` or was `withdrawn`, unless that is the last thing that was written down."""
    lines = history(model)
    said = {"candidate": one.candidate, "version": one.version, "outcome": outcome, "why": why}
    if lines and {key: value for key, value in lines[-1].items() if key != "time"} == said:
        return
    files.append_line(_book(model), {"time": one.since or now(), **said})


def history(model: str) -> list[dict[str, Any]]:
    """What was written down, oldest first."""
    return files.lines(_book(model))


def _book(model: str) -> Path:
    return paths.rollouts(model)


def live_is_noted(model: str, live: One) -> bool:
    """Whether it is written down that this release is live: a kill may have come before."""
    said = [line for line in history(model) if line["outcome"] == "live"]
    return bool(said) and said[-1]["candidate"] == live.candidate


def has_served(model: str, candidate: str) -> bool:
    """Whether a release was live here before."""
    return any(line["candidate"] == candidate and line["outcome"] == "live" for line in history(model))


# ── a withdrawal that has begun ───────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Failed:
    """A release that did not stand its rollout."""

    candidate: str
    version: int
    why: str
    at: str
    serves: str | None
    """The candidate that serves on, if any does."""

    @property
    def one(self) -> One:
        """The release."""
        return One(self.candidate, self.version)


def begin_withdrawal(model: str, failed: Failed) -> None:
    """Write down what is to be done, before any of it is: who comes after a kill ends it, and tries nobody again."""
    files.write_json(_failed(model), asdict(failed))


def unfinished(model: str) -> Failed | None:
    """The withdrawal that a killed run has left, if one did."""
    return files.read_state(_failed(model), None, lambda said: Failed(**said))


def end_withdrawal(model: str) -> None:
    """All of it is done."""
    files.remove(_failed(model))


def _failed(model: str) -> Path:
    return paths.failed_rollout(model)
