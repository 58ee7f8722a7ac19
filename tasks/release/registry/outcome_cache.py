"""A note that a candidate was judged: so that a flow with nothing to do need not import MLflow to find out.

The registry is the truth; this is written after the registry has it, holds what the verdict depended on, and lies
beside the store: when the store is another one, or gone, the note does not count.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.ground import files, params, paths, settings, uncommitted


@dataclass(frozen=True)
class CachedOutcome:
    """What became of a candidate, and where to look at the run that did it."""

    outcome: str
    by: str = ""

    def __str__(self) -> str:
        return f"{self.outcome} (by {self.by})" if self.by else self.outcome


def find(model: str) -> CachedOutcome | None:
    """What became of the candidate that build/ holds now, if it was judged under the present rule."""
    note = files.read_state(_path(model), dict[str, Any]())
    counts = note.get("on") == on(model) and _store_is_there() and _is_still_held(model, note.get("held"))
    return CachedOutcome(str(note["outcome"]), str(note.get("by", ""))) if counts else None


def write(
    model: str, outcome: str, judged_on: dict[str, str], by: str = "", held: Mapping[str, list[str]] | None = None
) -> None:
    """Note what became of the candidate in build/: the registry holds its verdict and all that follows from it.

    Args:
        model: whose candidate.
        outcome: in words.
        judged_on: what `on` gave before it was judged: who edits the gate meanwhile is not taken for answered.
        by: where to look at the run that did it.
        held: where it waits for a person's word or a commit: of which paths it is made, and which were uncommitted.
    """
    files.write_json(_path(model), {"on": judged_on, "outcome": outcome, "by": by, "held": held})


def promoted(model: str, candidate: str, outcome: str) -> None:
    """Note that a candidate waits no more: a person gave the word."""
    note = files.read_state(_path(model), dict[str, Any]())
    if note and note["on"]["candidate"] == candidate:
        files.write_json(_path(model), {**note, "outcome": outcome, "held": None})


def _is_still_held(model: str, held: Mapping[str, list[str]] | None) -> bool:
    """Whether what was uncommitted still is, where that kept a candidate from being promoted."""
    return not held or uncommitted.of(model, held["made_of"]) == held["uncommitted"]


def on(model: str) -> dict[str, str]:
    """What a verdict depends on, apart from the champion: who changes that by hand has decided."""
    candidate = settings.BUILD / model / "release" / "candidate.json"
    return {
        "candidate": files.read_json(candidate)["candidate"] if candidate.exists() else "",
        "gate": files.digest(params.load().model(model).gate.model_dump()),
        "store": files.digest(_store()),  # by digest, as an address may hold a password
    }


def _store() -> str:
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    if named == f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT')}":
        # the local stack's server: what is behind it counts as the same store, with the server or without
        return os.environ.get("MLFLOW_BACKEND_STORE_URI") or named
    return named


def _store_is_there() -> bool:
    """Not part of `on`: the store is made by the first candidate, after `on` was asked."""
    store = _store()
    return not store.startswith("sqlite:///") or Path(store.removeprefix("sqlite:///")).exists()


def _path(model: str) -> Path:
    return paths.judged_candidates(model)
