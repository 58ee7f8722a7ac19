"""Degradation where there are few data: a short holdout or one without days, few labels a day, all at one moment."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from tasks.modelling import metrics
from tasks.monitoring.quality import degradation, known, quality
from tasks.monitoring.quality.degradation import DayLosses, HoldoutLosses

FIRST = date(2026, 10, 1)
NO_TIME = pd.NaT


def answers(days: int, per_day: int, seed: int, *, wrong: float = 0.005, spread: float = 0.3) -> pd.DataFrame:
    """Confident answers of a classifier, of which `wrong` are wrong, on some days more than on others.

    Args:
        days: how many.
        per_day: rows.
        seed: of everything.
        wrong: which share, on average.
        spread: how much it differs from day to day, as a share of itself (lognormal).
    """
    rng = np.random.default_rng(seed)
    level = wrong * np.exp(rng.normal(0, spread, days) - spread**2 / 2)
    day = np.repeat(np.arange(days), per_day)
    label = (rng.random(len(day)) < 0.5).astype(int)
    is_wrong = rng.random(len(day)) < np.minimum(level, 1)[day]
    p_1 = np.where(label != is_wrong, 0.96, 0.04)
    times = pd.Timestamp(FIRST) + pd.to_timedelta(day, unit="D")
    return pd.DataFrame({"time": times, "label": label, "p_0": 1 - p_1, "p_1": p_1})


def holdout(frame: pd.DataFrame) -> HoldoutLosses:
    """As the flow monitor makes it of the holdout's rows."""
    promised = quality.promise("classification", "log_loss", frame, resamples=100)
    assert promised is not None
    losses = metrics.losses("log_loss", frame["label"], metrics.predictions_of(frame))
    return HoldoutLosses.of(losses, metrics.day_blocks(frame["time"]), promised)


def production(frame: pd.DataFrame, every: int = 1) -> list[DayLosses]:
    """Days of production, one of so many."""
    losses = metrics.losses("log_loss", frame["label"], metrics.predictions_of(frame))
    of = metrics.day_blocks(frame["time"])
    sums = zip(np.bincount(of, losses), np.bincount(of), np.bincount(of, losses**2), strict=True)
    days = [(FIRST + timedelta(days=day * every)).isoformat() for day in range(of.max() + 1)]
    return [DayLosses(day, float(a), int(b), float(c)) for day, (a, b, c) in zip(days, sums, strict=True)]


HOLDOUTS = {
    "no time": answers(1, 300, 1).assign(time=NO_TIME),
    "one moment": answers(1, 300, 1).assign(time=pd.Timestamp(FIRST)),
    "one day": answers(1, 300, 1),
    "a row a day": answers(300, 1, 5),
    "a week": answers(7, 300, 1),
    "four weeks": answers(28, 300, 1),
}
STREAMS = {
    "300 on a day": (answers(1, 300, 7, wrong=0.21), 1),
    "ten a day": (answers(30, 10, 7, wrong=0.21), 1),
    "three a week": (answers(43, 3, 7, wrong=0.21), 7),
}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("before", HOLDOUTS)
def test_a_model_that_fails_is_told_whatever_the_holdout_and_the_pace_of_labels(before: str, stream: str) -> None:
    """A log loss of 0.7 against 0.057: on one day, by ten labels a day, by three a week."""
    made = holdout(HOLDOUTS[before])
    frame, every = STREAMS[stream]
    (episode,) = degradation.find(made, production(frame, every))
    assert episode.loss > 5 * made.promised["value"]
    assert episode.closed is None


@pytest.mark.parametrize(("days", "per_day", "labels"), [(1, 300, 100), (1, 40, 10), (3, 100, 1), (7, 300, 10)])
def test_a_model_that_is_as_good_as_promised_is_hardly_ever_told_over_a_life(
    days: int, per_day: int, labels: int
) -> None:
    """At most one life in twenty, though the mean losses of days differ by a third."""
    lives = 40
    alarmed = sum(
        bool(
            degradation.find(
                holdout(answers(days, per_day, seed, wrong=0.1)),
                production(answers(150, labels, seed + 10_000, wrong=0.1)),
            )
        )
        for seed in range(lives)
    )
    assert alarmed <= 0.05 * lives


def test_what_is_three_times_as_bad_is_told_within_weeks_of_a_holdout_of_one_day() -> None:
    """Slowly, as nobody knows how days differ; and that it is over, when it is."""
    made = holdout(answers(1, 2000, 2, wrong=0.1))
    worse, again = (production(answers(90, 100, 3, wrong=share)) for share in (0.3, 0.1))
    later = [day._replace(day=(FIRST + timedelta(days=90 + at)).isoformat()) for at, day in enumerate(again)]
    (episode,) = degradation.find(made, [*worse, *later])
    assert episode.opened <= FIRST + timedelta(days=30)
    assert episode.closed is not None
    assert FIRST + timedelta(days=90) <= episode.closed <= FIRST + timedelta(days=110)


def test_a_holdout_of_few_rows_without_an_error_promises_little() -> None:
    """Of fifty right answers one in ten may be wrong all the same; a model that only guesses is told."""
    made = holdout(answers(1, 50, 4, wrong=0))
    assert degradation.find(made, production(answers(30, 100, 5, wrong=0.08))) == []
    (episode,) = degradation.find(made, production(answers(60, 10, 5, wrong=0.5)))
    assert episode.opened <= FIRST + timedelta(days=30)


@pytest.mark.parametrize("days", [1, 5, 40])
def test_a_holdout_without_any_loss_can_be_compared_with(days: int) -> None:
    """As of a cost that no decision had: days without loss are as promised, a day with much is told."""
    of = np.arange(1000) % days
    perfect = HoldoutLosses.of(np.zeros(1000), of, {"value": 0.0, "low": 0.0, "high": 0.0})
    names = [(FIRST + timedelta(days=day)).isoformat() for day in range(20)]
    assert degradation.find(perfect, [DayLosses(name, 0.0, 50, 0.0) for name in names]) == []
    worse = [DayLosses(name, 30.0 * (day >= 10), 50, 30.0 * (day >= 10)) for day, name in enumerate(names)]
    assert [episode.since.isoformat() for episode in degradation.find(perfect, worse)] == [names[10]]


def test_why_nothing_was_promised_is_told() -> None:
    """Too few rows, or answers of another task."""
    assert "has 12 rows with a label, a promise takes 30" in known.basis("log_loss", 12, None, None)
    assert known.basis("log_loss", 500, None, None).endswith("the holdout offers no log_loss")
