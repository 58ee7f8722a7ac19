"""Scans → one row per picture."""

from __future__ import annotations

import pandas as pd


def rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The feature, and `label` (the digit), `time` and `id` of each picture."""
    scans = tables["scans"]
    pixels = list(scans.filter(like="pixel_").to_numpy())  # a vector of 64 numbers per row
    return pd.DataFrame({"pixels": pixels, "label": scans["digit"], "time": scans["at"], "id": scans["scan"]})
