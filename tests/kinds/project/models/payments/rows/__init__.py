"""Payments → one row each; which of them was a fraud is known of some, weeks later."""

from __future__ import annotations

import pandas as pd


def rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The features, `time` and `id` of each payment; and `label` (a fraud: 1) where the table says it."""
    payments = tables["payments"]
    kept = payments[["amount", "country", "minutes"]].assign(
        hour=payments["at"].dt.hour, time=payments["at"], id=payments["payment"]
    )
    return kept if payments["fraud"].isna().all() else kept.assign(label=payments["fraud"])
