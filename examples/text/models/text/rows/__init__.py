"""Messages → one row per message."""

from __future__ import annotations

import pandas as pd


def rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The features, and `label` (the team), `time` and `id` of each message."""
    messages = tables["messages"]
    return messages[["channel", "message"]].assign(label=messages["team"], time=messages["at"], id=messages["number"])
