"""Moments in UTC, as the clocks of a model's zone show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

DAY = 86_400_000_000
"""In µs."""

LOCAL = "at:local"
"""The column of a row's naive local time, on its way into files."""


def local(times: npt.NDArray[np.int64], timezone: str) -> npt.NDArray[np.int64]:
    """Moments (µs since 1970, UTC) as clocks of this zone show them, in µs too."""
    import numpy as np
    import pandas as pd

    if timezone == "UTC":
        return times
    # by pandas, which finds the zones of the package tzdata; pyarrow knows those of the system only, if any
    naive = pd.DatetimeIndex(times.view("datetime64[us]"), tz="UTC").tz_convert(timezone).tz_localize(None)
    return np.asarray(naive.as_unit("us").to_numpy()).view(np.int64)


def with_local(table: pa.Table, timezone: str) -> pa.Table:
    """A table with the column LOCAL: its `time`, naive and of this zone."""
    import pyarrow as pa

    times = local(table["time"].cast("int64").to_numpy(), timezone)
    return table.append_column(LOCAL, pa.array(times, pa.timestamp("us")))
