"""Origins: when each row of a forecast was asked, and of which series and step it is.

A row is a forecast of one series for `time`, made `lead` steps before it (the feature `lead`; without it, `horizon`
steps): that is its origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.ground.errors import ModelCodeError

if TYPE_CHECKING:
    import pandas as pd

Ints = npt.NDArray[np.int64]

LEAD = "lead"
"""The feature that says how many steps ahead is asked."""


@dataclass(frozen=True)
class Asked:
    """What params.yaml says of a forecast: `split.forecast`, as split.json keeps it."""

    horizon: int
    season: int
    step: str
    series: list[str]
    known_ahead: list[str]

    def leads(self, rows: pd.DataFrame) -> Ints:
        """How many steps before its time each row was asked."""
        if LEAD in rows:
            return rows[LEAD].to_numpy().astype(np.int64)
        return np.full(len(rows), self.horizon, dtype=np.int64)

    def steps(self, times: pd.Series[Any]) -> Ints:
        """The number of the step that each time lies in, counted from 1970."""
        if self.step == "month":
            return np.asarray(times.dt.year * 12 + times.dt.month, dtype=np.int64)
        import pandas as pd

        micros = times.to_numpy().astype("datetime64[us]").astype(np.int64)
        length = int(pd.Timedelta(self.step) // pd.Timedelta(1, "us"))
        return np.asarray(micros // length, dtype=np.int64)

    def origins(self, rows: pd.DataFrame) -> pd.Series[Any]:
        """When each row was asked: nothing later may be known to it."""
        import pandas as pd

        leads = self.leads(rows)
        if self.step == "month":
            months = rows["time"].dt.to_period("M").to_numpy()
            offset = rows["time"] - pd.Series(pd.PeriodIndex(months, freq="M").to_timestamp(), index=rows.index)
            return pd.Series(pd.PeriodIndex(months - leads, freq="M").to_timestamp(), index=rows.index) + offset
        return rows["time"] - pd.Timedelta(self.step) * leads

    def names(self, rows: pd.DataFrame) -> Ints:
        """A number per series."""
        if not self.series:
            return np.zeros(len(rows), dtype=np.int64)
        return rows.groupby(self.series, dropna=False).ngroup().to_numpy().astype(np.int64)


def refuse_double_rows(rows: pd.DataFrame, asked: Asked, where: str) -> None:
    """Refuse two forecasts of one series for one time, made at one time.

    Raises:
        ModelCodeError: names the first pair.
    """
    import pandas as pd

    what = pd.DataFrame({"series": asked.names(rows), "step": asked.steps(rows["time"]), "lead": asked.leads(rows)})
    if (double := what.duplicated(keep=False)).any():
        first = np.flatnonzero(double)[0]
        ids = rows["id"][(what == what.iloc[first]).all(axis=1).to_numpy()].tolist()[:2]
        raise ModelCodeError(
            f"{where}: ids {' and '.join(map(repr, ids))} are of one series and one time ({rows['time'].iloc[first]}): "
            f"name what tells series apart in split.forecast.series, or mend split.forecast.step ({asked.step})"
        )
