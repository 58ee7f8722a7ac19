"""What became of the candidate in build/: kept so that a flow with nothing to do need not import MLflow to find out.

The registry is the truth. This is written after the registry, and counts only while the registry is the same one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tasks.ground import files, outcome_cache, params, paths, settings, uncommitted

Uncommitted = dict[str, list[str]]
"""`made_of`: the paths that a candidate on hold is made of; `uncommitted`: those of them that were in no commit."""


@dataclass(frozen=True)
class CachedOutcome:
    """What became of a candidate, and where to look at the run that did it."""

    outcome: str
    by: str = ""

    def __str__(self) -> str:
        return f"{self.outcome} (by {self.by})" if self.by else self.outcome


def find(model: str) -> CachedOutcome | None:
    """What became of the candidate in build/, if it was judged under today's rule and in this registry."""
    entry = outcome_cache.recall(paths.judged_candidates(model), lambda: inputs(model))
    store = _store()  # whether it exists is no input: the first candidate makes it, after `inputs` was asked
    if not entry or (store.startswith("sqlite:///") and not Path(store.removeprefix("sqlite:///")).exists()):
        return None
    on_hold: Uncommitted | None = entry["on_hold"]
    if on_hold and uncommitted.of(model, on_hold["made_of"]) != on_hold["uncommitted"]:
        return None
    return CachedOutcome(entry["outcome"], entry["by"])


def keep(model: str, outcome: str, judged_on: dict[str, str], by: str = "", on_hold: Uncommitted | None = None) -> None:
    """Keep what became of the candidate in build/, in words.

    `judged_on` is what `inputs` gave before it was judged: an edit of the gate meanwhile is not judged yet. `by` is the
    address of the run that did it; `on_hold` is what it waits for, if it does.
    """
    outcome_cache.keep(paths.judged_candidates(model), judged_on, {"outcome": outcome, "by": by, "on_hold": on_hold})


def promoted_by_hand(model: str, candidate: str, outcome: str) -> None:
    """Keep that a person has promoted a candidate that was on hold."""
    entry = paths.judged_candidates(model)
    judged_on = outcome_cache.last_inputs(entry)
    if judged_on and judged_on["candidate"] == candidate:
        keep(model, outcome, judged_on, outcome_cache.last_outcome(entry)["by"])


def inputs(model: str) -> dict[str, str]:
    """What a verdict depends on, apart from the champion: who changes that by hand has decided."""
    candidate = settings.BUILD / model / "release" / "candidate.json"
    return {
        "candidate": files.read_json(candidate)["candidate"] if candidate.exists() else "",
        "gate": files.digest(params.load().model(model).gate.model_dump()),
        "store": files.digest(_store()),  # by digest, as an address may hold a password
    }


def _store() -> str:
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address == f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT')}":
        # the local stack's server: what is behind it counts as the same store, with the server or without
        return os.environ.get("MLFLOW_BACKEND_STORE_URI") or address
    return address
