"""Made messages to a help desk, a month at a time, with the team that answered each in the end.

In March 2026 the shop opens in Poland, and a third of the messages are in Polish.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

WORDS = {
    "billing": "invoice charged twice card payment bank refund amount wrong tax receipt bill money euro debit",
    "delivery": "parcel courier late arrived tracking address door neighbour lost shipped package waiting week box",
    "login": "password account reset locked code phone sign login email forgot link expired browser screen",
    "returns": "return broken size exchange label back send faulty shoes colour torn warranty repair unworn",
}
COMMON = "hello i my the is not please can you help it was a for to have since yesterday again thanks order still but"
POLISH = "dzień dobry moja paczka nie doszła proszę o pomoc zwrot pieniędzy hasło konto faktura kurier nadal czekam"
OPENING, ROWS = "2026-03", 700


def partitions() -> list[str]:
    """The months."""
    return [str(month) for month in pd.period_range("2025-08", "2026-03", freq="M")]


def deliver(_dataset: str, partition: str) -> tuple[str, bytes]:
    """The messages of a month as `(file name, bytes)`: the same bytes every time."""
    month = pd.Period(partition, "M")
    draw = np.random.default_rng([13, month.ordinal])
    team = draw.choice(list(WORDS), ROWS, p=[0.2, 0.45, 0.25, 0.1])
    minute = np.sort(draw.integers(0, month.days_in_month * 24 * 60, ROWS))
    is_polish = (draw.random(ROWS) < 0.35) & (partition >= OPENING)
    table = pd.DataFrame({
        "number": [f"{partition}-{number:05d}" for number in range(ROWS)],
        "at": month.start_time + pd.to_timedelta(minute, unit="min"),
        "channel": draw.choice(["mail", "chat", "form"], ROWS, p=[0.5, 0.4, 0.1]),
        "message": [_message(draw, name, polish) for name, polish in zip(team, is_polish, strict=True)],
        "team": np.where(draw.random(ROWS) < 0.04, draw.choice(list(WORDS), ROWS), team),  # people err as well
    })  # fmt: skip
    return f"{partition}.csv", table.to_csv(index=False).encode()


def _message(draw: np.random.Generator, team: str, is_polish: bool) -> str:
    own, common = (POLISH.split(),) * 2 if is_polish else (WORDS[team].split(), COMMON.split())
    ranks = 1 / np.arange(1, len(own) + 1)
    words = [*draw.choice(own, draw.integers(1, 5), p=ranks / ranks.sum()), *draw.choice(common, draw.integers(4, 25))]
    return " ".join(draw.permutation(words))
