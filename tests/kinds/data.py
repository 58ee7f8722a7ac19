"""Tables of the models in this folder, made of a seed: the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def write_payments(root: Path, month: int, *, known: float = 0.0, days: int = 28, a_day: int = 60) -> Path:
    """A partition of payments of 2013, one in 40 a fraud; of a share `known` of them it is known whether they are."""
    draw = np.random.default_rng(month)
    n = days * a_day
    at = pd.Timestamp(2013, month, 1) + pd.to_timedelta(np.sort(draw.integers(0, days * 86_400, n)), unit="s")
    fraud = draw.random(n) < 1 / 40
    hour = np.where(fraud, draw.integers(0, 6, n), np.clip(draw.normal(14, 3, n), 0, 23).astype(int))
    frame = pd.DataFrame(
        {
            "payment": [f"{month:02d}-{i}" for i in range(n)],
            "at": at.normalize() + pd.to_timedelta(hour, unit="h"),
            "amount": np.round(draw.gamma(2, 15, n) * np.where(fraud, 8, 1), 2),
            "country": np.where(fraud & (draw.random(n) < 0.5), "XX", draw.choice(["DE", "FR", "NL"], n)),
            "minutes": np.where(draw.random(n) < 0.1, np.nan, np.round(draw.exponential(np.where(fraud, 2, 600)), 1)),
            "fraud": pd.array(np.where(draw.random(n) < known, fraud, -1), dtype="Int64"),
        }
    )
    frame["fraud"] = frame["fraud"].mask(frame["fraud"] < 0)
    path = root / "data" / "payments" / f"2013-{month:02d}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path


def write_lendings(root: Path, month: int) -> Path:
    """A partition of bicycles lent in each hour of 2013 at two stations: by hour, weekday and season, with shocks."""
    frames = []
    for number, station in enumerate(("north", "south")):
        draw = np.random.default_rng(number)
        at = pd.date_range("2013-01-01", "2013-12-31 23:00", freq="h")
        shock = np.zeros(len(at))
        for i, noise in enumerate(draw.normal(scale=0.1, size=len(at))):
            shock[i] = 0.9 * shock[i - 1] + noise if i else noise
        daily = 1 + np.sin((at.hour - 9) / 24 * 2 * np.pi) + 0.5 * (at.day_of_week < 5) * (abs(at.hour - 8) < 2)
        mean = (8 + 4 * number) * daily * np.exp(shock) + 0.5
        frames.append(pd.DataFrame({"station": station, "at": at, "lent": draw.poisson(mean)}))
    both = pd.concat(frames)
    path = root / "data" / "lendings" / f"2013-{month:02d}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    both[both["at"].dt.month == month].to_csv(path, index=False)
    return path


MARKER = "xyzzymarker"
"""A word of the first order's note, and of no other."""


def write_orders(root: Path, month: int, *, days: int = 28, a_day: int = 40) -> Path:
    """A partition of orders of 2013, with a column of each type and notes of customers."""
    draw = np.random.default_rng(month)
    n = days * a_day
    at = pd.Timestamp(2013, month, 1) + pd.to_timedelta(np.sort(draw.integers(0, days * 86_400, n)), unit="s")
    shop, new = draw.choice(["north", "south", "old town"], n), draw.random(n) < 0.3
    items, scan = draw.integers(1, 9, n), draw.normal(size=(n, 4)).round(3)
    rush = draw.random(n) < 0.3
    words = np.array(["please", "ring", "twice", "leave", "at", "the", "door", "thank", "you", "garden"])
    notes = [" ".join(draw.choice(words, 5)) + (" hurry" if hasty else "") for hasty in rush]
    notes[0] = f"{MARKER} is my name"
    late = draw.random(n) < 1 / (1 + np.exp(2 - 2 * rush - new - 0.3 * items + scan[:, 0]))
    gone = draw.random((n, 5)) < 0.05
    frame = pd.DataFrame(
        {
            "Order No.": [f"{month:02d}/{i}" for i in range(n)],
            "at": at,
            "shop": shop,
            "is new": pd.array(new, dtype="boolean"),
            "due.at": (at + pd.to_timedelta(draw.integers(24, 96, n), unit="h")).floor("h"),
            "n. items": pd.array(items, dtype="Int64"),
            "Weight [kg]": np.round(items * draw.gamma(4, 0.2, n), 2),
            "Note to shop": notes,
            **{f"scan_{i}": scan[:, i] for i in range(4)},
            "late": late.astype(int),
        }
    )
    for i, name in enumerate(["is new", "due.at", "n. items", "Weight [kg]", "Note to shop"]):
        frame[name] = frame[name].mask(gone[:, i])
    frame.loc[0, "Note to shop"] = notes[0]
    path = root / "data" / "orders" / f"2013-{month:02d}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path


def write_homes(root: Path, month: int, *, unknown: bool = False, days: int = 28, a_day: int = 30) -> Path:
    """A partition of homes of 2013, with four labels; where `unknown`, two of these have not come yet."""
    draw = np.random.default_rng(month)
    n = days * a_day
    area, glass, region = draw.uniform(40, 200, n), draw.uniform(0, 0.6, n), draw.choice(["north", "south"], n)
    heating = area * (1.2 - 0.4 * (region == "south")) * (1 - 0.3 * glass) + draw.normal(0, 8, n)
    cooling = area * glass * (0.3 + 0.5 * (region == "south")) + draw.normal(0, 4, n)
    worse = heating / area + draw.normal(0, 0.15, n)
    frame = pd.DataFrame(
        {
            "home": [f"{month:02d}-{i}" for i in range(n)],
            "at": pd.Timestamp(2013, month, 1) + pd.to_timedelta(np.sort(draw.integers(0, days * 86_400, n)), unit="s"),
            "region": region,
            "area": np.round(area, 1),
            "glass": np.round(glass, 2),
            "heating": np.round(heating, 2),
            "cooling": np.round(cooling, 2),
            "complaint": draw.random(n) < 1 / (1 + np.exp(-8 * (worse - 1))),
            "rating": np.where(worse < 0.85, "a", np.where(worse < 1.05, "b", "c")),
        }
    )
    if unknown:
        frame[["cooling", "rating"]] = np.nan, None
    path = root / "data" / "homes" / f"2013-{month:02d}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path
