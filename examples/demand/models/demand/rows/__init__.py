"""Sales → one row per day, shop and product."""

from __future__ import annotations

import pandas as pd


def rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The features, and `label` (units sold), `time` (the day) and `id` of each row."""
    sales = tables["sales"]
    return sales[["shop", "product", "price", "promotion", "temperature"]].assign(
        weekday=sales["day"].dt.day_of_week + 1,
        label=sales["units"].astype("float64"),
        time=sales["day"],
        id=sales["day"].dt.strftime("%Y-%m-%d ") + sales["shop"] + " " + sales["product"],
    )
