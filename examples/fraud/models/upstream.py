"""Made card payments, a month at a time, and which of them were charged back: known six weeks after the month's end.

In March 2026 a new country joins, from which no training row has come.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

COUNTRIES = ["DE", "FR", "NL", "AT", "PL", "IT", "ES", "BE", "CZ", "DK", "SE", "PT", "HU", "RO", "IE", "FI"]
GOODS = {"groceries": -2.0, "clothing": 0.0, "electronics": 1.0, "travel": 0.5, "gift cards": 3.0}
MONTH, ROWS = "2026-03", 3000


def partitions() -> list[str]:
    """The months."""
    return [str(month) for month in pd.period_range("2025-06", "2026-03", freq="M")]


def deliver(dataset: str, partition: str) -> tuple[str, bytes]:
    """Payments, or chargebacks, of a month as `(file name, bytes)`: the same bytes every time."""
    payments, is_fraud, draw = _month(partition)
    if dataset == "payments":
        return f"{partition}.csv", payments.to_csv(index=False).encode()
    reported = payments.loc[is_fraud, ["payment", "at"]].rename(columns={"at": "reported_at"})
    reported["reported_at"] += pd.to_timedelta(draw.integers(3, 42, len(reported)), unit="D")  # the label comes late
    return f"{partition}.csv", reported.to_csv(index=False).encode()


def _month(partition: str) -> tuple[pd.DataFrame, pd.Series, np.random.Generator]:
    month = pd.Period(partition, "M")
    draw = np.random.default_rng([7, month.ordinal])
    at = month.start_time + pd.to_timedelta(np.sort(draw.integers(0, month.days_in_month * 86400, ROWS)), unit="s")
    share = 1 / np.arange(1, len(COUNTRIES) + 1)  # few countries pay often, many rarely
    country = draw.choice(COUNTRIES, ROWS, p=share / share.sum())
    country = np.where((draw.random(ROWS) < 0.25) & (partition >= MONTH), "BR", country)
    age = np.where(draw.random(ROWS) < 0.2, np.nan, draw.gamma(0.8, 500, ROWS).round())
    payments = pd.DataFrame({
        "payment": [f"{partition}-{number:06d}" for number in range(ROWS)],
        "at": at.floor("s"),
        "country": country,
        "goods": draw.choice(list(GOODS), ROWS, p=[0.4, 0.3, 0.15, 0.1, 0.05]),
        "amount": np.exp(draw.normal(3.7, 1.0, ROWS)).round(2),
        "account_age": age,
    })  # fmt: skip
    risk = payments["goods"].map(GOODS) + 1.3 * np.log(payments["amount"] / 40) + 2.0 * (payments["at"].dt.hour < 6)
    risk += 3.0 * (age < 30) + 1.0 * np.isnan(age) + 2.0 * payments["country"].isin(["RO", "IE", "BR"]) - 8.0
    return payments, draw.random(ROWS) < 1 / (1 + np.exp(-risk)), draw
