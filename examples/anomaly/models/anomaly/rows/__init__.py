"""Readings and inspections → one row per reading."""

from __future__ import annotations

import pandas as pd


def rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The features, and `label` (1: faulty, 0: not, missing: not inspected), `time` and `id` of each reading."""
    readings = tables["readings"].merge(tables["inspections"], on=["machine", "at"], how="left")
    return readings[["power", "pressure", "flow", "temperature"]].assign(
        per_air=readings["power"] / readings["flow"] / readings["pressure"],
        label=readings["is_faulty"].astype("Int64"),
        time=readings["at"],
        id=readings["machine"] + readings["at"].dt.strftime(" %Y-%m-%d %H"),
    )
