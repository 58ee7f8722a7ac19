"""Loads and weather → one row per day and district, with what was known the day before."""

from __future__ import annotations

import pandas as pd

from tasks.tables.partitions import WantedPartition


def rows(tables: dict[str, pd.DataFrame], partition: WantedPartition) -> pd.DataFrame:
    """The features, and `label` (the load), `time` (the day) and `id` of each row of that month."""
    load = tables["load"].pivot_table(index="day", columns="district", values="load").asfreq("D")  # lags by time
    lags = {"day_before": load.shift(1), "week_before": load.shift(7), "four_weeks": load.shift(1).rolling(28).mean()}
    own = tables["load"].loc[partition.name].merge(tables["weather"], on="day", how="left")
    for name, lag in lags.items():
        own = own.merge(lag.reset_index().melt("day", value_name=name), on=["day", "district"])
    return own[["district", "temperature", *lags]].assign(
        weekday=own["day"].dt.day_of_week + 1,
        label=own["load"],
        time=own["day"],
        id=own["day"].dt.strftime("%Y-%m-%d ") + own["district"],
    )
