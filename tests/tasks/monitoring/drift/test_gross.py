"""Drift against few days: no time, one moment, one day, a week, a row a day; of three requests a week."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from tasks.modelling import daily_summaries, profile
from tasks.monitoring import report
from tasks.monitoring.drift import drift, series
from tests.tasks.monitoring.drift.test_drift import FEATURES, UNITS, rows

NO_TIME = pd.Series([], dtype="datetime64[us]")


def spread_out(frame: pd.DataFrame, every: float) -> pd.DataFrame:
    """The same days, so many apart."""
    days = (frame["time"].dt.normalize() - frame["time"].dt.normalize().min()).dt.days
    return frame.assign(time=frame["time"] + pd.to_timedelta((days * (every - 1)).round(), unit="D"))


REFERENCES = {
    "no time": rows("2013-01-01", 30, 3, per_day=20).assign(time=NO_TIME),
    "one moment": rows("2013-01-01", 1, 3, per_day=300).assign(time=pd.Timestamp("2013-01-01 12:00")),
    "one day": rows("2013-01-01", 1, 3, per_day=300),
    "50 rows of a day": rows("2013-01-01", 1, 3, per_day=50),
    "a row a day": rows("2013-01-01", 50, 3, per_day=1),
    "a week": rows("2013-01-01", 7, 3),
    "27 days": rows("2013-01-01", 27, 3),
}
PACES = {
    "60 a day": lambda seed: rows("2014-01-01", 40, seed),
    "three a week": lambda seed: spread_out(rows("2014-01-01", 60, seed, per_day=1), 7 / 3),
    "one a month": lambda seed: spread_out(rows("2014-01-01", 12, seed, per_day=1), 30),
    "all at one moment": lambda seed: rows("2014-01-01", 1, seed).assign(time=pd.Timestamp("2014-01-01 9:00")),
}
GROSS: dict[str, tuple[str, Callable[[pd.DataFrame], object]]] = {
    "values all new": ("carrier", lambda frame: "JetBlue"),
    "all missing": ("hour", lambda frame: np.nan),
    "a thousand times": ("seats", lambda frame: frame["seats"] * 1000),
}


def against(learned: pd.DataFrame, stream: pd.DataFrame) -> drift.DriftReport:
    """What is said of a stream by a model that learned from these rows."""
    wanted = daily_summaries.columns(profile.reference_profile(learned, FEATURES, learned[["p_1"]]))
    reference = daily_summaries.summarise(learned, wanted)
    return drift.detect(wanted, reference, daily_summaries.summarise(stream, wanted), UNITS)


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("reference", REFERENCES)
def test_what_is_grossly_wrong_is_told_whatever_the_reference_and_the_pace(reference: str, pace: str) -> None:
    """New values, a unit, all missing: when five rows are there, or three days of them."""
    stream = PACES[pace](9)
    assert not against(REFERENCES[reference], stream).alarms
    for column, change in GROSS.values():
        (alarm,) = against(REFERENCES[reference], stream.assign(**{column: change(stream)})).alarms
        assert [move.column for move in alarm.moved] == [column]
        known = stream["time"].sort_values().dt.date.tolist()
        assert alarm.opened <= known[min(9, len(known) - 1)]


@pytest.mark.parametrize(("pace", "weeks"), [("60 a day", 2), ("three a week", 18)])
def test_a_shift_by_five_deviations_is_told_against_one_day(pace: str, weeks: int) -> None:
    """In weeks, of three rows a week in months: of most models."""
    told = 0
    for seed in range(8):
        learned, stream = rows("2013-01-01", 1, seed, per_day=300), PACES[pace](seed + 100)
        moved = against(learned, stream.assign(seats=stream["seats"] + 5 * learned["seats"].std())).alarms
        began = stream["time"].min().date()
        told += any(alarm.opened <= began + timedelta(weeks=weeks) for alarm in moved)
    assert told >= 6


def test_a_gross_change_is_over_when_it_is_over() -> None:
    """And it is told since when it was."""
    learned, stream = rows("2013-01-01", 1, 3, per_day=300), rows("2014-01-01", 80, 9)
    day = (stream["time"].dt.normalize() - pd.Timestamp("2014-01-01")).dt.days
    seats = stream["seats"] + np.where((day >= 20) & (day < 50), 8 * learned["seats"].std(), 0)
    (alarm,) = against(learned, stream.assign(seats=seats)).alarms
    assert alarm.closed is not None
    since, opened, closed = (
        (at - stream["time"].min().date()).days for at in (alarm.since, alarm.opened, alarm.closed)
    )
    assert 20 <= since <= 22
    assert since <= opened <= 35
    assert 50 < closed <= 70


@pytest.mark.parametrize("days", [(1, 300), (1, 50), (3, 60), (10, 60), (50, 1)])
@pytest.mark.parametrize("pace", [(100, 40), (60, 1)])
def test_days_that_go_on_as_before_are_hardly_ever_an_alarm(days: tuple[int, int], pace: tuple[int, int]) -> None:
    """At most one life in twenty: weather that stays for days, skewed numbers, shares that differ from day to day."""
    lives = 8
    alarmed = sum(bool(against(world(seed, *days), world(seed + 5000, *pace)).alarms) for seed in range(lives))
    assert alarmed <= 0.05 * lives


def world(seed: int, count: int, per_day: int) -> pd.DataFrame:
    """Days that are alike in a row: each has seven tenths of the one before."""
    rng = np.random.default_rng(seed)

    def level(spread: float) -> np.ndarray:
        out = rng.normal(0, spread, count)
        for day in range(1, count):
            out[day] = 0.7 * out[day - 1] + 0.71 * out[day]
        return np.repeat(out, per_day)

    frame, n = rows("2014-01-01", count, seed, per_day), count * per_day
    weather, share = 55 + level(12), 1 / (1 + np.exp(1 - level(0.6)))
    return frame.assign(
        temp=weather + rng.normal(0, 4, n),
        dewp=weather - 10 + rng.normal(0, 5, n),
        seats=rng.lognormal(0, 1, n) * np.exp(level(0.5)),
        gust=np.where(rng.random(n) < np.clip(0.3 + level(0.15), 0, 1), np.nan, rng.exponential(2, n)),
        carrier=np.where(rng.random(n) < share, "UA", rng.choice(["B6", "AA", "F9"], n, p=[0.6, 0.38, 0.02])),
    )


def test_a_category_of_which_every_row_has_its_own_value_is_no_alarm() -> None:
    """Fifty names that are all different say that the next ones will be new as well."""
    learned, stream = rows("2013-01-01", 1, 3, per_day=50), rows("2014-01-01", 20, 9)
    learned, stream = (
        frame.assign(carrier=[f"{side}{row}" for row in range(len(frame))])
        for side, frame in (("a", learned), ("b", stream))
    )
    assert not against(learned, stream).alarms


# ── what is said ──────────────────────────────────────────────────────────────────────────────────


def said(reference: str, stream: pd.DataFrame) -> tuple[str, str]:
    """Status and text of the report."""
    return report._status(against(REFERENCES[reference], stream), "")


def test_too_few_days_are_said_with_the_day_on_which_there_are_enough() -> None:
    """At today's pace; and with what is watched until then."""
    status, text = said("one day", rows("2014-01-01", 3, 9))
    assert status == "not enough data"
    assert text.startswith(
        "not enough data: 3 of 7 days are there; at this pace the last one is over on 2014-01-07; until then training "
        "has 1 day: how days differ is not known, so only gross changes are told: at this pace a shift by 5 "
        "standard deviations of the rows within about "
    )
    assert text.endswith("; what lies far outside of all that was seen is reported when its day is over")
    status, text = said("27 days", PACES["three a week"](9).head(12))
    assert status == "not enough data"
    assert "2 of 7 days are there (days of fewer than 5 rows are put together); at this pace the last one" in text
    assert re.search(r"is over on 2014-03-\d\d; until then training has 27 days: how days differ is hardly known", text)
    assert said("one day", rows("2014-01-01", 3, 9).head(0)) == (
        "not enough data", "not enough data: no day on which this release was asked is over yet",
    )  # fmt: skip


def test_no_gross_change_is_all_that_is_said_against_few_days() -> None:
    """Not «as in training»: nobody knows how days differ."""
    for reference, why in (("no time", "the training rows have no time"), ("a week", "training has 7 days")):
        status, text = said(reference, rows("2014-01-01", 20, 9))
        assert status == "ok"
        assert text.startswith("no gross change in 20 days of requests; ")
        assert f"{why}: how days differ is " in text
    status, text = said("a row a day", rows("2014-01-01", 20, 9))
    assert "training has 50 days, most with fewer than 5 rows: how days differ" in text


def test_thin_days_are_put_together_until_they_have_five_rows() -> None:
    """None of their rows is lost but those at the end; days that have enough stay as they are."""
    frame = pd.concat([rows("2014-01-01", 7, 9, per_day=2), rows("2014-01-03", 1, 9, per_day=20)])
    wanted = daily_summaries.columns(profile.reference_profile(frame, FEATURES, None))
    days = daily_summaries.summarise(frame, wanted)["seats"]
    together = series.pooled(days)
    assert [str(day) for day in together.days] == ["2014-01-03", "2014-01-04", "2014-01-07"]
    assert together.rows.tolist() == [22, 6, 6]
    assert together.total.sum() == days.total.sum()
