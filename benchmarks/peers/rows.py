"""A request's row as a person writes it down for FastAPI or BentoML, and how it is scored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from pydantic import BaseModel


class Row(BaseModel):
    """One flight."""

    carrier: str
    origin: str
    dest: str
    weekday: int
    hour: int
    minute: int
    distance: float
    temp: float | None = None
    dewp: float | None = None
    humid: float | None = None
    wind_dir: float | None = None
    wind_speed: float | None = None
    wind_gust: float | None = None
    precip: float | None = None
    pressure: float | None = None
    visib: float | None = None


TEXT = ("carrier", "origin", "dest")
TYPES = {name: object if name in TEXT else "float64" for name in Row.model_fields}


def pipeline() -> Any:
    """The fitted pipeline that BENCH_MODEL names."""
    return joblib.load(Path(os.environ["BENCH_MODEL"]))


def score(model: Any, rows: list[Row]) -> list[float]:
    """The probability of each row."""
    frame = pd.DataFrame([row.model_dump() for row in rows]).astype(TYPES)
    probabilities: list[float] = model.predict_proba(frame)[:, 1].tolist()
    return probabilities
