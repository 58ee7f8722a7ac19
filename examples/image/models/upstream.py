"""Handwritten digits (scikit-learn's own, UCI), as a scanner would deliver them: some two hundred and thirty a month.

In March 2026 the lamp of the scanner fails, and all ink is pale.
"""

from __future__ import annotations

import io

import pandas as pd
from sklearn.datasets import load_digits

DIM = pd.Timestamp("2026-03-01")


def partitions() -> list[str]:
    """The months."""
    return [str(month) for month in pd.period_range("2025-09", "2026-03", freq="M")]


def deliver(_dataset: str, partition: str) -> tuple[str, bytes]:
    """The scans of a month as `(file name, bytes)`: Parquet, the same bytes every time."""
    pixels, digits = load_digits(return_X_y=True)
    at = pd.date_range("2025-09-01", periods=len(digits), freq="170min")
    scans = pd.DataFrame(pixels, columns=[f"pixel_{number:02d}" for number in range(64)])
    scans[at >= DIM] //= 2
    scans = scans.assign(scan=[f"S{number:05d}" for number in range(len(digits))], at=at, digit=digits)
    buffer = io.BytesIO()
    scans[at.to_period("M") == pd.Period(partition, "M")].to_parquet(buffer, index=False)
    return f"{partition}.parquet", buffer.getvalue()
