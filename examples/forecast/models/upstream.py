"""Made daily loads of eight districts, a month at a time, and the weather as it was forecast the day before.

In March 2026 a works closes, and three districts need a quarter less.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

BASE = {"North": 240, "East": 180, "South": 310, "West": 150, "Port": 420, "Old Town": 90, "Hill": 60, "Campus": 120}
SERVED_THE_WORKS, CLOSED = ["North", "Port", "East"], pd.Timestamp("2026-03-01")


def partitions() -> list[str]:
    """The months."""
    return [str(month) for month in pd.period_range("2025-01", "2026-03", freq="M")]


def deliver(dataset: str, partition: str) -> tuple[str, bytes]:
    """Loads, or weather, of a month as `(file name, bytes)`: the same bytes every time."""
    month = pd.Period(partition, "M")
    draw = np.random.default_rng([5, month.ordinal])
    days = pd.date_range(month.start_time, periods=month.days_in_month, freq="D")
    yearly = 10 - 9 * np.cos((days.day_of_year - 20) / 365 * 2 * np.pi)
    weather = pd.Series(yearly + draw.normal(0, 2.5, len(days)), days)
    if dataset == "weather":
        expected = (weather + draw.normal(0, 0.8, len(days))).round(1).where(draw.random(len(days)) > 0.03)  # or none
        return f"{partition}.csv", expected.to_csv(index_label="day", header=["temperature"]).encode()
    table = pd.MultiIndex.from_product([days, BASE], names=["day", "district"]).to_frame(index=False)
    degrees = table["day"].map(weather)
    heating = np.clip(15 - degrees, 0, None) * 0.015 + np.clip(degrees - 20, 0, None) * 0.02
    weekend = np.where(table["day"].dt.day_of_week >= 5, 0.85, 1.0)
    works = np.where(table["district"].isin(SERVED_THE_WORKS) & (table["day"] >= CLOSED), 0.75, 1.0)
    load = table["district"].map(BASE) * (1 + heating) * weekend * works * draw.normal(1, 0.02, len(table))
    return f"{partition}.csv", table.assign(load=load.round(1)).to_csv(index=False).encode()
