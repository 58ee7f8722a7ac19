"""Tables in which only what came later is other."""

from __future__ import annotations

import pandas as pd

from tasks.training import look_ahead, origins, point_in_time


def test_what_came_later_is_other_and_what_was_known_is_not() -> None:
    """A half of the later rows is gone, and the numbers of the rest are each other's."""
    at = pd.date_range("2013-01-01", periods=200, freq="h")
    table = pd.DataFrame({"at": at, "lent": range(200), "station": "north"})
    moment = at[99]
    other = look_ahead._altered(table, "at", moment, "UTC")
    pd.testing.assert_frame_equal(other[other["at"] <= moment], table[table["at"] <= moment])
    later = other[other["at"] > moment]
    assert 30 < len(later) < 70
    assert (later["lent"] > 99).all()
    assert (later["lent"] != later.index).mean() > 0.9


def test_parts_of_a_later_time_in_several_columns_stay_a_later_time() -> None:
    """A day and an hour that were dealt out apart would move a later flight into the past: a false accusation."""
    at = pd.date_range("2013-01-01", periods=200, freq="h", tz="UTC")
    local = at.tz_convert("America/New_York")
    table = pd.DataFrame({"at": at, "day": local.day, "hour": local.hour})
    moment = pd.Timestamp("2013-01-04 12:00")
    other = look_ahead._altered(table, "at", moment, "America/New_York")
    later = other[(other["at"].dt.tz_convert("America/New_York").dt.tz_localize(None) > moment).to_numpy()]
    assert (later["day"] * 24 + later["hour"] > 4 * 24 + 12).all()


def test_rows_are_the_same_by_series_time_and_lead_whatever_their_numbers() -> None:
    """Where an id is the number of a row, fewer rows of one series give those of the next other ids: no look-ahead."""
    times = pd.to_datetime(["2013-01-01", "2013-01-02", "2013-01-01"])
    before = pd.DataFrame({"station": ["a", "a", "b"], "time": times, "id": ["0", "1", "2"], "lent": [1.0, 2.0, 3.0]})
    after = before.iloc[[0, 2]].assign(id=["0", "1"])
    asked = origins.Asked(1, 7, "1D", ["station"], [])
    old, new = look_ahead._aligned(before, after, asked)
    assert (old["id"].tolist(), new["id"].tolist()) == (["0", "2"], ["0", "1"])
    assert not point_in_time.differ(old["lent"], new["lent"]).any()
