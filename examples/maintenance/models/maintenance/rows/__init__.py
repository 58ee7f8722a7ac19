"""Readings and failures → one row per reading."""

from __future__ import annotations

import pandas as pd


def rows(tables: dict[str, pd.DataFrame], hours: int) -> pd.DataFrame:
    """The features, and `label` (cause of the machine's next failure within `hours`, or «none»), `time` and `id`."""
    readings = tables["readings"].sort_values("at")
    failures = tables["failures"].rename(columns={"at": "failed_at"}).sort_values("failed_at")
    following = pd.merge_asof(
        readings, failures, left_on="at", right_on="failed_at", by="machine",
        direction="forward", tolerance=pd.Timedelta(hours=hours),
    )  # fmt: skip
    return following.drop(columns=["machine", "at", "failed_at", "cause"]).assign(
        label=following["cause"].fillna("none"),
        time=following["at"],
        id=following["machine"] + following["at"].dt.strftime(" %Y-%m-%d"),
    )
