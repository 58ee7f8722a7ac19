"""Times and texts as sklearn's transformers take them."""

from __future__ import annotations

from typing import Any

import pandas as pd


def hours(times: pd.DataFrame) -> pd.DataFrame:
    """The hour of the day of each time; missing where it is."""
    return times.apply(lambda column: column.dt.hour)


def filled(texts: pd.Series[Any]) -> pd.Series[Any]:
    """A missing text is an empty one."""
    return texts.fillna("")
