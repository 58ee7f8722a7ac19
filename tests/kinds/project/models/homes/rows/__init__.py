"""Homes → one row each, with two labels, of which one may come later than the other."""

from __future__ import annotations

import pandas as pd


def rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The features, the labels, `time` and `id` of each home."""
    homes = tables["homes"].rename(columns={"home": "id", "at": "time"})
    return homes[["region", "area", "glass", "heating", "cooling", "time", "id"]]
