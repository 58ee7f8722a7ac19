"""The sequential test: exact without drift, however often one looks, and quick with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tasks.monitoring.drift import anytime_test

CHANCE = 0.05
SERIES, REFERENCE, DAYS = 600, 60, 300


def draw(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Exchangeable days: bell-shaped, with outliers, or nearly always 0."""
    if kind == "normal":
        return rng.normal(size=shape)
    if kind == "heavy":
        return rng.standard_cauchy(shape)
    return np.where(rng.random(shape) < 0.8, 0.0, rng.integers(1, 4, shape))


def evidence(reference: np.ndarray, stream: np.ndarray) -> np.ndarray:
    """The logarithm of the evidence, of days that are known to be independent."""
    scores = anytime_test.normal_scores(reference, stream)
    return anytime_test.log_evidence(scores, np.isfinite(stream), np.ones(len(stream)))


@pytest.mark.parametrize("kind", ["normal", "heavy", "mostly zero"])
def test_without_drift_the_evidence_is_never_great(kind):
    """Of hundreds of series that never change, looked at every day, no more than 5 % ever show evidence of 20."""
    rng = np.random.default_rng(0)
    shown = evidence(draw(kind, (SERIES, REFERENCE), rng), draw(kind, (SERIES, DAYS), rng)).max(axis=1)
    wrong = int((shown >= np.log(1 / CHANCE)).sum())
    assert stats.binomtest(wrong, SERIES, CHANCE, alternative="greater").pvalue > 0.01
    # and it is a bet at fair odds: nothing is won on average, and something is won sometimes
    assert np.exp(shown).max() > 2


def test_scores_are_standard_normal_and_independent():
    """Without ties and drift, scores are standard normal whatever the days are, and one says nothing of the next."""
    rng = np.random.default_rng(1)
    scores = anytime_test.normal_scores(draw("heavy", (50, 200), rng), draw("heavy", (50, 200), rng))
    assert stats.kstest(scores.ravel(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(scores[:, 1:].ravel(), scores[:, :-1].ravel())[0, 1]) < 0.03


def test_ties_and_gaps_say_nothing():
    """A series that is always the same has scores of 0, and so has a day without a value."""
    same = anytime_test.normal_scores(np.full((1, 30), 3.0), np.full((1, 30), 3.0))
    assert same == pytest.approx(np.zeros((1, 30)), abs=1e-12)
    gaps = np.array([[np.nan, 1.0, np.nan]])
    scores = anytime_test.normal_scores(np.array([[0.0, 0.5, np.nan]]), gaps)
    assert scores[0, [0, 2]].tolist() == [0, 0]
    assert scores[0, 1] > 0.5


def test_evidence_of_a_day_depends_on_no_later_day():
    """What is said of a day is the same whether or not later days are known."""
    rng = np.random.default_rng(2)
    reference, stream = rng.normal(size=(3, 40)), rng.normal(size=(3, 100))
    assert evidence(reference, stream)[:, :60] == pytest.approx(evidence(reference, stream[:, :60]))


@pytest.mark.parametrize("begins", [0, 30, 200])
def test_a_shift_is_found_whenever_it_begins(begins):
    """Two standard deviations are found within three weeks, early and late in the stream."""
    rng = np.random.default_rng(begins)
    stream = rng.normal(size=(50, begins + 21))
    stream[:, begins:] += 2
    found = evidence(rng.normal(size=(50, 200)), stream)
    assert (found[:, -1] > np.log(1000)).mean() >= 0.95
    days = [
        anytime_test.change_point(s, np.ones(len(s), bool))
        for s in anytime_test.normal_scores(rng.normal(size=(50, 200)), stream)
    ]
    assert abs(np.median(days) - begins) <= 1


def test_days_of_a_week_that_are_alike_are_not_seven_witnesses():
    """Days that follow each other are allowed for, by as much as those of the reference are alike."""
    rng = np.random.default_rng(3)
    alike = np.repeat(rng.normal(size=(20, 60)), 7, axis=1) + 0.1 * rng.normal(size=(20, 420))
    assert anytime_test.inflation(rng.normal(size=(20, 420))).max() < 2
    assert anytime_test.inflation(alike).min() > 4
    assert (anytime_test.inflation(rng.normal(size=(5, 3))) > 1).all()  # of three days nothing is known
    stream = np.repeat(rng.normal(size=(300, 52)), 7, axis=1)
    reference = np.repeat(rng.normal(size=(300, 39)), 7, axis=1)
    scores, known = anytime_test.normal_scores(reference, stream), np.ones(stream.shape, bool)
    ever = anytime_test.log_evidence(scores, known, anytime_test.inflation(reference)).max(axis=1)
    naive = anytime_test.log_evidence(scores, known, np.ones(300)).max(axis=1)
    assert (ever >= np.log(20)).mean() <= 0.05
    assert (naive >= np.log(20)).mean() > 0.3


def test_what_is_over_is_seen_to_be_over():
    """Days like the reference end a drift within weeks; days that drift on, less or the other way do not."""
    rng = np.random.default_rng(4)
    ends = [anytime_test.returned(rng.normal(size=120), 2.0, 1.0) for _ in range(100)]
    assert np.median([end for end in ends if end is not None]) < 30
    assert sum(end is None for end in ends) == 0
    for level in (2.0, 1.0, -2.0):
        ends = [anytime_test.returned(level + rng.normal(size=120), 2.0, 1.0) for _ in range(100)]
        assert sum(end is not None for end in ends) <= 2
