"""Rows of some days, for what describes rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

FEATURES = {"carrier": {"type": "category"}, "hour": {"type": "integer"}, "temp": {"type": "number"}}


def frame(rows: int, seed: int = 0) -> pd.DataFrame:
    """A category, an integer, and a number that is missing in every tenth row; a prediction, a label, ten days."""
    rng = np.random.default_rng(seed)
    temp = rng.normal(60, 15, rows)
    temp[::10] = np.nan
    return pd.DataFrame(
        {
            "carrier": pd.Series(rng.choice(["UA", "B6", None], rows, p=[0.6, 0.3, 0.1]), dtype="str"),
            "hour": rng.integers(5, 24, rows).astype(float),
            "temp": temp,
            "p_1": rng.beta(2, 5, rows),
            "label": rng.integers(0, 2, rows),
            "time": pd.Timestamp("2013-03-01") + pd.to_timedelta(rng.integers(0, 10 * 24, rows), unit="h"),
        }
    )
