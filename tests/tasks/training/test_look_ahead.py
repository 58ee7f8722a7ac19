"""Tables in which only what came later is other."""

from __future__ import annotations

import pandas as pd

from tasks.training import look_ahead


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
