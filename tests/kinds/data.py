"""Tables of the models in this folder, made of a seed: the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def write_payments(root: Path, month: int, *, known: float = 0.0, days: int = 28, a_day: int = 60) -> Path:
    """A partition of payments of 2013, one in 40 a fraud; of a share `known` of them it is known whether they are."""
    draw = np.random.default_rng(month)
    n = days * a_day
    at = pd.Timestamp(2013, month, 1) + pd.to_timedelta(np.sort(draw.integers(0, days * 86_400, n)), unit="s")
    fraud = draw.random(n) < 1 / 40
    hour = np.where(fraud, draw.integers(0, 6, n), np.clip(draw.normal(14, 3, n), 0, 23).astype(int))
    frame = pd.DataFrame(
        {
            "payment": [f"{month:02d}-{i}" for i in range(n)],
            "at": at.normalize() + pd.to_timedelta(hour, unit="h"),
            "amount": np.round(draw.gamma(2, 15, n) * np.where(fraud, 8, 1), 2),
            "country": np.where(fraud & (draw.random(n) < 0.5), "XX", draw.choice(["DE", "FR", "NL"], n)),
            "minutes": np.where(draw.random(n) < 0.1, np.nan, np.round(draw.exponential(np.where(fraud, 2, 600)), 1)),
            "fraud": pd.array(np.where(draw.random(n) < known, fraud, -1), dtype="Int64"),
        }
    )
    frame["fraud"] = frame["fraud"].mask(frame["fraud"] < 0)
    path = root / "data" / "payments" / f"2013-{month:02d}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path
