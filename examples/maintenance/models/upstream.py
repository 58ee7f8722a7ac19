"""Made readings of sixty milling machines, a month at a time, and what stopped them.

From March 2026 on, a new torque sensor reads a quarter too much.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

MACHINES, REPLACED = 60, pd.Timestamp("2026-03-01")


def partitions() -> list[str]:
    """The months."""
    return [str(month) for month in pd.period_range("2025-06", "2026-03", freq="M")]


def deliver(dataset: str, partition: str) -> tuple[str, bytes]:
    """Readings, or failures, of a month as `(file name, bytes)`: the same bytes every time."""
    month = pd.Period(partition, "M")
    draw = np.random.default_rng([3, month.ordinal])
    days = pd.date_range(month.start_time, periods=month.days_in_month, freq="D")
    readings = pd.MultiIndex.from_product([days, range(MACHINES)], names=["at", "machine"]).to_frame(index=False)
    count = len(readings)
    age = (readings["at"] - pd.Timestamp("2025-01-01")).dt.days + 7 * readings["machine"]
    readings["at"] += pd.to_timedelta(draw.integers(6 * 60, 20 * 60, count), unit="min")
    readings["machine"] = readings["machine"].map("M{:03d}".format)
    readings["Quality"] = draw.choice(["L", "M", "H"], count, p=[0.6, 0.3, 0.1])
    readings["Air temperature [K]"] = draw.normal(310, 1.5, count).round(1)
    readings["Rotational speed [rpm]"] = draw.gamma(60, 25, count).round()
    torque = (60_000 / readings["Rotational speed [rpm]"] + draw.normal(0, 7, count)).clip(3)
    readings["Tool wear [min]"] = age % 30 * 8 + draw.integers(0, 8, count)  # a tool is changed once a month
    scores = pd.DataFrame({
        "wear": (readings["Tool wear [min]"] - 240) / 6,
        "overstrain": (torque * (1 + (readings["Quality"] == "L") / 4) - 68) / 3,
        "heat": (readings["Air temperature [K]"] - 314.0) / 0.4,
    })  # fmt: skip
    fails = draw.random(scores.shape) < 1 / (1 + np.exp(-scores))
    if dataset == "failures":
        later = readings["at"] + pd.to_timedelta(draw.integers(1, 20, count), unit="h")
        failures = pd.DataFrame({"machine": readings["machine"], "cause": fails.idxmax(axis=1), "at": later})
        return f"{partition}.csv", failures[fails.any(axis=1)].to_csv(index=False).encode()
    measured = torque * np.where(readings["at"] >= REPLACED, 1.25, 1.0)
    readings["Torque [Nm]"] = measured.round(1).where(draw.random(count) > 0.05)
    return f"{partition}.csv", readings.to_csv(index=False).encode()
