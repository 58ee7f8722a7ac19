"""Daily counts of answered requests, with histograms of their latency that add up.

A day is that of the answer, by this machine's own clock, in the zone of the model.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from tasks.monitoring.intake.local_time import DAY, local
from tasks.prediction_log import log_tables

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

MS_STEP = math.log(1.02)
"""Latencies are counted in bins of two per cent."""

ServiceDays = dict[str, dict[str, Any]]
"""Day → `requests`, `rows`, `untimed`; `ms` and `single`: latency bin → requests, of all and of those of one row."""


def empty_day() -> dict[str, Any]:
    """The counts of a day without a request."""
    return {"requests": 0, "rows": 0, "untimed": 0, "ms": Counter(), "single": Counter()}


class ServiceCounts:
    """Counts the requests of some tables."""

    def __init__(self, timezone: str, now: int) -> None:
        self.timezone, self.now = timezone, now
        """`now` in ms since 1970: a clock that was wrong may have answered later than that."""
        self.days: ServiceDays = defaultdict(empty_day)

    def add(self, table: pa.Table) -> None:
        """Count the requests of a table; the rows of each stand next to each other."""
        import numpy as np
        import pyarrow.compute as pc

        names = table["request"].combine_chunks()
        begins = np.flatnonzero(np.append(True, np.asarray(pc.not_equal(names[1:], names[:-1]))))
        lengths = np.diff(begins, append=len(table))
        days = self._days(log_tables.moments(table["id"].take(begins)))
        ms = np.maximum(np.nan_to_num(table["ms"].to_numpy()[begins]), 0.01)
        bins = np.rint(np.log(ms) / MS_STEP).astype(np.int64)
        for day in np.unique(days).tolist():
            of_day, counts = days == day, self._of_day(day)
            counts["requests"] += int(of_day.sum())
            counts["rows"] += int(lengths[of_day].sum())
            for name, chosen in (("ms", of_day), ("single", of_day & (lengths == 1))):
                values, numbers = np.unique(bins[chosen], return_counts=True)
                counts[name].update(dict(zip(map(str, values.tolist()), numbers.tolist(), strict=True)))

    def add_untimed(self, answered: npt.NDArray[np.int64]) -> None:
        """Count rows, answered at these moments (ms), whose time cannot be right."""
        import numpy as np

        for day, count in zip(*np.unique(self._days(answered), return_counts=True), strict=True):
            self._of_day(day)["untimed"] += int(count)

    def added_to(self, before: Mapping[str, Mapping[str, Any]], keep_days: int) -> ServiceDays:
        """These and earlier counts together, of the newest day and so many before it."""
        days = {*before, *self.days}
        first = (date.fromisoformat(max(days)) - timedelta(days=keep_days)).isoformat()
        totals: ServiceDays = {}
        for day in sorted(day for day in days if day >= first):
            one, other = ({**empty_day(), **of.get(day, {})} for of in (before, self.days))
            totals[day] = {name: one[name] + other[name] for name in ("requests", "rows", "untimed")}
            totals[day] |= {name: Counter(one[name]) + Counter(other[name]) for name in ("ms", "single")}
        return totals

    def _days(self, answered: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        import numpy as np

        return local(np.minimum(answered, self.now) * 1000, self.timezone) // DAY

    def _of_day(self, day: int) -> dict[str, Any]:
        import numpy as np

        return self.days[str(np.datetime64(int(day), "D"))]


def quantile(counts: Mapping[str, int], share: float) -> float | None:
    """Of a latency histogram, in ms; right to one per cent. None where it is empty."""
    total, reached = sum(counts.values()), 0
    for name, count in sorted(counts.items(), key=lambda pair: int(pair[0])):
        reached += count
        if reached >= share * total:
            return float(f"{math.exp(int(name) * MS_STEP):.3g}")
    return None
