"""Bicycles lent → one row per station, hour and lead."""

from __future__ import annotations

import pandas as pd

from tasks.tables.partitions import WantedPartition

LEADS = (1, 6, 24)


def rows(tables: dict[str, pd.DataFrame], partition: WantedPartition) -> pd.DataFrame:
    """The features, `label` (bicycles lent), `time` (the hour that is forecast) and `id`.

    Args:
        tables: `lendings` of a month and the one before it.
        partition: the month.
    """
    every = tables["lendings"].drop_duplicates(["station", "at"])
    lent = every.set_index(["station", "at"])["lent"]
    own = every.loc[[partition.name]].reset_index(drop=True)
    return pd.concat([_ahead(own, lent, lead) for lead in LEADS], ignore_index=True)


def _ahead(own: pd.DataFrame, lent: pd.Series, lead: int) -> pd.DataFrame:
    """The rows that were asked so many hours before."""

    def ago(hours: int) -> pd.Series:
        before = pd.MultiIndex.from_arrays([own["station"], own["at"] - pd.Timedelta(hours=hours)])
        return lent.reindex(before).to_numpy(dtype="float64")

    return own[["station"]].assign(
        lead=lead,
        hour=own["at"].dt.hour,
        weekday=own["at"].dt.day_of_week + 1,
        day_ago=ago(24),
        week_ago=ago(168),
        newest=ago(lead),
        label=own["lent"],
        time=own["at"],
        id=own["station"] + own["at"].dt.strftime("%Y%m%d%H-") + str(lead),
    )
