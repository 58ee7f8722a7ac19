"""Made readings of twelve air compressors every four hours, and what inspections found some weeks later.

In March 2026 the flow meters of one hall are not read any more.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

MACHINES, UNREAD = [f"K{number:02d}" for number in range(1, 13)], pd.Timestamp("2026-03-01")


def partitions() -> list[str]:
    """The months."""
    return [str(month) for month in pd.period_range("2025-06", "2026-03", freq="M")]


def deliver(dataset: str, partition: str) -> tuple[str, bytes]:
    """Readings of a month, or what was found in it of those of the month before: the same bytes every time."""
    readings, is_faulty, draw = _month(pd.Period(partition, "M") - int(dataset == "inspections"))
    if dataset == "readings":
        return f"{partition}.csv", readings.to_csv(index=False).encode()
    is_inspected = is_faulty & (draw.random(len(readings)) < 0.7) | (draw.random(len(readings)) < 0.03)
    inspected = readings.loc[is_inspected, ["machine", "at"]].assign(is_faulty=is_faulty[is_inspected])
    return f"{partition}.csv", inspected.to_csv(index=False).encode()


def _month(month: pd.Period) -> tuple[pd.DataFrame, np.ndarray, np.random.Generator]:
    draw = np.random.default_rng([11, month.ordinal])
    times = pd.date_range(month.start_time, month.end_time, freq="4h")
    readings = pd.MultiIndex.from_product([times, MACHINES], names=["at", "machine"]).to_frame(index=False)
    count, shift = len(readings), np.where(readings["at"].dt.hour.between(6, 21), 1.0, 0.6)
    flow = shift * draw.normal(12, 1, count)
    pressure = draw.normal(7.5, 0.2, count)
    leaks, rubs = draw.random((2, count)) < 0.006  # air is lost; a bearing takes power and becomes hot
    pressure, flow = pressure - 0.7 * leaks, flow * (1 + 0.2 * leaks)
    power = 0.83 * flow * pressure * draw.normal(1, 0.03, count) * (1 + 0.2 * rubs)
    readings["power"], readings["pressure"] = power.round(1), pressure.round(2)
    is_read = (draw.random(count) > 0.01) & ((readings["at"] < UNREAD) | ~readings["machine"].isin(MACHINES[:4]))
    readings["flow"] = flow.round(2)
    readings["flow"] = readings["flow"].where(is_read)
    readings["temperature"] = (80 + 8 * shift + 6 * rubs + draw.normal(0, 2, count)).round(1)
    return readings, leaks | rubs, draw
