"""Text drift: how soon changes of texts are detected, and how often a change is seen where there is none.

`python -m benchmarks.texts` prints the figures of docs/benchmarks/drift.md: per case streams, how many of them ever
alarm, and how many within seven days of the change. Texts are made: words by Zipf's law, and each day has subjects of
its own and words that no other day has, as messages do. Each stream has a reference of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.modelling import daily_summaries, profile
from tasks.monitoring.drift import drift

FEATURES = {"message": {"type": "text"}}
LETTERS, OTHERS = np.array(list("etaoinshrdlucmfwyp")), np.array(list("оеаинтсрвлкмдпуяыьг"))
BEFORE, AFTER, SOON = 56, 90, 7
"""Days of the reference, and of the stream; within so many days a change should be detected."""


@dataclass
class World:
    """Who writes: a vocabulary of their own, and how often each word is used."""

    rng: np.random.Generator
    per_day: int

    def __post_init__(self) -> None:
        self.words, self.other = self._made(4000, LETTERS), self._made(4000, OTHERS)
        self.shares = 1 / np.arange(2, 4002)

    def _made(self, count: int, letters: np.ndarray) -> np.ndarray:
        lengths = self.rng.integers(2, 9, count)
        return np.array(["".join(self.rng.choice(letters, length)) for length in lengths])

    def rows(self, first: int, days: int) -> pd.DataFrame:
        """The texts of some days."""
        parts = [self._day(first + day) for day in range(days)]
        return pd.concat(parts, ignore_index=True)

    def _day(self, day: int) -> pd.DataFrame:
        count = max(int(self.rng.normal(self.per_day, self.per_day / 5)), 5)
        shares = self.shares * self.rng.gamma(0.7, 1 / 0.7, len(self.shares))  # the day's subjects
        lengths = self.rng.integers(3, 25, count)
        drawn = self.rng.choice(self.words, lengths.sum(), p=shares / shares.sum())
        own = self._made(5, LETTERS)  # names and jargon of the day
        drawn = np.where(self.rng.random(len(drawn)) < 0.02, self.rng.choice(own, len(drawn)), drawn)
        texts = [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]
        time = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.full(count, day), unit="D")
        return pd.DataFrame({"time": time.astype("datetime64[us]"), "message": pd.array(texts, "str"), "label": 0.0})


def nothing(_: World, texts: pd.Series) -> pd.Series:
    """No change."""
    return texts


def nonsense(world: World, texts: pd.Series) -> pd.Series:
    """Nonsense replaces 30 % of the texts."""
    made = [" ".join(world._made(10, LETTERS)) for _ in range(len(texts))]
    return texts.mask(world.rng.random(len(texts)) < 0.3, pd.Series(made, dtype="str"))


def language(world: World, texts: pd.Series) -> pd.Series:
    """Another language of the same script: other words, as frequent as the old ones."""
    other = dict(zip(world.words, world._made(len(world.words), LETTERS), strict=True))
    return texts.map(lambda text: " ".join(other.get(word, word) for word in text.split()))


def script(world: World, texts: pd.Series) -> pd.Series:
    """Another language of another script, in 30 % of the texts."""
    made = [" ".join(world.rng.choice(world.other, 10)) for _ in range(len(texts))]
    return texts.mask(world.rng.random(len(texts)) < 0.3, pd.Series(made, dtype="str"))


CHANGES: tuple[Callable[[World, pd.Series], pd.Series], ...] = (nothing, nonsense, language, script)


def first_alarm(seed: int, change: Callable[[World, pd.Series], pd.Series], per_day: int, days: int) -> int | None:
    """On which day of the stream, counted from 1, an alarm was raised."""
    world = World(np.random.default_rng(seed), per_day)
    learned, asked = world.rows(0, BEFORE), world.rows(BEFORE, days)
    asked["message"] = change(world, asked["message"]).astype("str")
    known = profile.reference_profile(learned, FEATURES, None)
    layouts = daily_summaries.columns(known)
    del layouts["label"]
    found = drift.detect(
        layouts, daily_summaries.summarise(learned, layouts), daily_summaries.summarise(asked, layouts)
    )
    opened = [(pd.Timestamp(alarm.opened) - asked["time"].iloc[0].normalize()).days + 1 for alarm in found.alarms]
    return min(opened, default=None)


def main() -> None:
    """Print a line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--per-day", type=int, default=40)
    options = parser.parse_args()
    for change in CHANGES:
        days = AFTER if change is nothing else SOON
        alarms = [first_alarm(seed, change, options.per_day, days) for seed in range(options.streams)]
        ever, soon = (sum(alarm is not None and alarm <= most for alarm in alarms) for most in (days, SOON))
        print(
            f"{change.__doc__} {options.streams} streams of {days} days, {options.per_day} texts a day: "
            f"{ever} alarm, {soon} within {SOON} days",
            flush=True,
        )


if __name__ == "__main__":
    main()
