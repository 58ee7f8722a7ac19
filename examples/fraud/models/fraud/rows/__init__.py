"""Payments and chargebacks → one row per payment."""

from __future__ import annotations

import pandas as pd


def rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The features, and `label` (1: charged back), `time` and `id` of each payment."""
    payments = tables["payments"]
    return payments[["country", "goods", "amount", "account_age"]].assign(
        hour=payments["at"].dt.hour,
        label=payments["payment"].isin(tables["chargebacks"]["payment"]).astype("int64"),
        time=payments["at"],
        id=payments["payment"],
    )
