"""What counts as drift: how much evidence, how large a change, of how many days."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """What may be chosen."""

    chance: float = 0.05
    """Of ever raising an alarm while nothing changes, over everything that is watched of a model."""
    min_days: int = 7
    """Days with rows before «no drift» may be said of a column."""
    min_reference_days: int = 28
    """The same of the reference."""
    min_rows: int = 5
    """Values that a day must have to count. What few rows scatter more than many is allowed for."""
    min_share: float = 0.005
    """Values of a category that are rarer are watched together."""
    min_effect: float = 0.1
    """An alarm needs more than evidence: a mean that moved so many standard deviations of the reference's rows, or a
    spread that changed by this part of itself. Schedules move by a few miles every season, beyond all doubt."""
    min_change: float = 0.01
    """The same of a share; of values that the reference does not know, a tenth of it. The share of a value is the
    mean of a number that is 0 or 1, so `min_effect` holds of it as well: a third of the rows has to change by five
    points."""
    recent_days: int = 28
    """The days by which a column is described that does not drift."""
    cause_days: int = 7
    """Columns that began to move, or were noticed, within so many days of each other are one alarm."""
