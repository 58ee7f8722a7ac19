"""Orders → one row each."""

from __future__ import annotations

import pandas as pd


def rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The features as they are called in the table, `label` (late: 1), `time` and `id`."""
    orders = tables["orders"]
    return orders.rename(columns={"at": "time", "Order No.": "id", "late": "label"})
