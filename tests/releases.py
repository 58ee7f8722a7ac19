"""Small releases, as a replica reads them: made by hand of any fitted pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from tasks.ground import files
from tasks.runtime import decisions, model_file

FEATURES: dict[str, dict[str, Any]] = {
    "place": {"type": "category", "about": "Where", "example": "north", "nullable": True},
    "kind": {"type": "category", "about": "What", "example": "a", "nullable": False},
    "hour": {"type": "integer", "about": "When", "example": 6, "min": 0, "max": 23, "nullable": False},
    "size": {"type": "number", "about": "How large", "example": 1.5, "unit": "m", "min": 0, "nullable": True},
}
CATEGORIES, NUMBERS = ["place", "kind"], ["hour", "size"]


def rows(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Valid rows, some with missing values."""
    draw = np.random.default_rng(seed)
    return [
        {
            "place": str(draw.choice(["north", "south", "east"])) if draw.random() > 0.1 else None,
            "kind": str(draw.choice(["a", "b"])),
            "hour": int(draw.integers(0, 24)),
            "size": round(float(draw.gamma(2, 0.1)), 6) if draw.random() > 0.1 else None,
        }
        for _ in range(number)
    ]


def frame(given: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows, typed as they are trained on."""
    kinds = {name: "str" if name in CATEGORIES else "float64" for name in FEATURES}
    return pd.DataFrame({n: pd.array([row[n] for row in given], dtype=kind) for n, kind in kinds.items()})


def write(
    folder: Path, pipeline: Pipeline, task: str, classes: list[Any] | None = None, *, max_rows: int = 20
) -> dict[str, Any]:
    """Write release.json, candidate.json, background.json and model.skops; gives the first."""
    folder.mkdir(parents=True, exist_ok=True)
    model_file.dump(pipeline, folder / "model.skops")
    learnt = frame(rows(200))
    facts = {
        "name": "small",
        "task": task,
        "about": "Is it small?",
        "classes": classes,
        "decision": decisions.of(pipeline, learnt) if classes else None,
        "columns": list(FEATURES),
        "features": FEATURES,
        "categories": {name: sorted(learnt[name].dropna().unique().tolist()) for name in CATEGORIES},
        "max_rows": max_rows,
        "prediction_edges": [0.25, 0.5, 0.75] if classes else [2.0, 4.0],
        "model_sha256": files.sha256(folder / "model.skops"),
        "training": {"classes": classes},
        "metrics": {"loss": 0.5},
        "lineage": {"data": "0"},
    }
    files.write_json(folder / "release.json", facts)
    files.write_json(folder / "background.json", rows(16, seed=1))
    files.write_json(folder / "candidate.json", {"candidate": "0123456789abcdef"})
    return facts
