"""Flights and weather → one row per flight that arrived."""

from __future__ import annotations

import pandas as pd

WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
FASTEST_WIND = 250.0  # mph; no wind has been faster, so such a reading is a broken sensor


def rows(tables: dict[str, pd.DataFrame], late_after: float) -> pd.DataFrame:
    """The features, and `label` (late: 1), `time` (scheduled departure, local) and `id` of each flight.

    Args:
        tables: `flights` and `weather` of one month, with the columns of the expectation suites.
        late_after: from how many minutes after the schedule an arrival is late.
    """
    flights = tables["flights"].dropna(subset=["arr_delay"])  # cancelled and diverted: neither late nor on time
    weather = tables["weather"][["origin", "time_hour", *WEATHER]]
    joined = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    day = pd.to_datetime(joined[["year", "month", "day"]])
    schedule = joined["sched_dep_time"].astype(str)
    features = joined[["carrier", "origin", "dest", "hour", "minute", "distance", *WEATHER]]
    return features.assign(
        distance=joined["distance"].astype("float64"),
        wind_speed=joined["wind_speed"].mask(joined["wind_speed"] > FASTEST_WIND),
        weekday=day.dt.day_of_week + 1,
        label=(joined["arr_delay"] > late_after).astype("int64"),
        time=day + pd.to_timedelta(joined["hour"], unit="h") + pd.to_timedelta(joined["minute"], unit="min"),
        id=day.dt.strftime("%Y%m%d") + joined["carrier"] + joined["flight"].astype(str) + joined["origin"] + schedule,
    )
