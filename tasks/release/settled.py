"""A note that a candidate was judged: so that a flow with nothing to do need not import MLflow to find out.

The registry is the truth; this is written after the registry has it, holds what the verdict depended on, and lies
beside the store: when the store is another one, or gone, the note does not count.
"""

from __future__ import annotations

import os
from pathlib import Path

from tasks import files, params, settings


def find(model: str) -> str | None:
    """What became of the candidate that build/ holds now, if it was judged under the present rule."""
    try:
        note = files.read_json(_path(model))
    except FileNotFoundError:
        return None
    return str(note["outcome"]) if note["on"] == _on(model) else None


def write(model: str, outcome: str) -> None:
    """Note what became of the candidate in build/: the registry holds its verdict and all that follows from it."""
    files.write_json(_path(model), {"on": _on(model), "outcome": outcome})


def _on(model: str) -> dict[str, str | bool]:
    """What a verdict depends on, apart from the champion: who changes that by hand has decided."""
    store = os.environ.get("MLFLOW_TRACKING_URI", "")
    candidate = settings.BUILD / model / "release" / "candidate.json"
    return {
        "candidate": files.read_json(candidate)["candidate"] if candidate.exists() else "",
        "gate": files.digest(params.load().model(model).gate.model_dump()),
        "store": files.digest(store),  # by digest, as an address may hold a password
        "there": Path(store.removeprefix("sqlite:///")).exists() if store.startswith("sqlite:///") else True,
    }


def _path(model: str) -> Path:
    return settings.VAR / "mlflow" / "settled" / f"{model}.json"
