"""Made sales of eight shops, a month at a time; in a project of yours, the cash registers.

From March 2026 on, everything costs a fifth more: a world that no training row has seen.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

PRICES = {"water": 0.79, "lemonade": 1.99, "ice cream": 3.49, "bread": 2.89, "soup": 2.29, "chocolate": 1.59}
PER_DEGREE = {"water": 0.02, "lemonade": 0.04, "ice cream": 0.07, "soup": -0.04}
SHOPS = ["Altona", "Barmbek", "Eimsbüttel", "Harburg", "Lokstedt", "Ottensen", "St. Pauli", "Wedel"]
INFLATION = pd.Timestamp("2026-03-01")


def partitions() -> list[str]:
    """The months."""
    return [str(month) for month in pd.period_range("2025-03", "2026-03", freq="M")]


def deliver(_dataset: str, partition: str) -> tuple[str, bytes]:
    """The sales of a month as `(file name, bytes)`: the same bytes every time."""
    month = pd.Period(partition, "M")
    draw = np.random.default_rng([20_25, month.ordinal])
    days = pd.date_range(month.start_time, month.end_time, freq="D").normalize()
    temperature = 11 - 10 * np.cos((days.day_of_year - 20) / 365 * 2 * np.pi) + draw.normal(0, 3, len(days))
    table = pd.MultiIndex.from_product([days, SHOPS, PRICES], names=["day", "shop", "product"]).to_frame(index=False)
    weather = pd.Series(temperature.round(1), days)
    degrees, offer = table["day"].map(weather), draw.random(len(table)) < 0.1
    listed = table["product"].map(PRICES) * np.where(table["day"] >= INFLATION, 1.2, 1.0)
    size = 30 / (1 + table["shop"].map(SHOPS.index))  # few shops sell much, many sell little
    weekend = np.where(table["day"].dt.day_of_week >= 5, 1.5, 1.0)
    warm = np.exp((degrees - 11) * table["product"].map(PER_DEGREE).fillna(0))
    expected = size * weekend * warm * np.where(offer, 1.8, 1.0)
    table["price"] = (listed * np.where(offer, 0.75, draw.normal(1, 0.03, len(table)))).round(2)
    table["promotion"] = offer
    table["temperature"] = degrees.where(draw.random(len(table)) > 0.03)  # the forecast does not always come
    table["units"] = draw.poisson(expected * draw.gamma(8, 1 / 8, len(table)))
    return f"{partition}.csv", table.to_csv(index=False).encode()
