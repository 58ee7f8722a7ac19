"""Readings → one row per pump and time."""

from __future__ import annotations

import pandas as pd


def rows(tables: dict[str, pd.DataFrame], fails_above: float) -> pd.DataFrame:
    """The features, and `label` (fails: 1), `time` and `id` of each reading."""
    readings = tables["readings"]
    return readings[["station", "hour", "starts", "pressure", "vibration"]].assign(
        weekday=readings["at"].dt.day_of_week + 1,
        label=(readings["failures"] > fails_above).astype("int64"),
        time=readings["at"],
        id=readings["station"] + readings["at"].dt.strftime("%Y%m%d%H"),
    )
