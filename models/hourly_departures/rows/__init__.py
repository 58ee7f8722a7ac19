"""Flights and weather → one row per airport and hour."""

from __future__ import annotations

import pandas as pd

WEATHER = ["temp", "wind_speed", "precip", "visib"]
FASTEST_WIND = 250.0  # mph; no wind has been faster, so such a reading is a broken sensor


def rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The features, and `label` (flights that left), `time` (the hour, local) and `id` of each airport's hours.

    An hour counts the flights that were scheduled in it and left; an hour with weather and no flight counts 0.

    Args:
        tables: `flights` and `weather` of one month, with the columns of the expectation suites.
    """
    left = tables["flights"].dropna(subset=["dep_time"])
    count = left.groupby(["origin", "time_hour"]).size().rename("label").reset_index()
    hours = tables["weather"].merge(count, on=["origin", "time_hour"], how="left", validate="one_to_one")
    day = pd.to_datetime(hours[["year", "month", "day"]])
    return hours[["origin", "hour", "month", *WEATHER]].assign(
        wind_speed=hours["wind_speed"].mask(hours["wind_speed"] > FASTEST_WIND),
        weekday=day.dt.day_of_week + 1,
        label=hours["label"].fillna(0).astype("float64"),
        time=day + pd.to_timedelta(hours["hour"], unit="h"),
        id=hours["origin"] + hours["time_hour"].dt.strftime("%Y%m%d%H"),
    )
