"""Outlook of a forecast that a table is good for: its series and their step, season and horizon, and its lags."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tasks.drafting import times
from tasks.ground.errors import Mistake

if TYPE_CHECKING:
    from tasks.drafting.survey import ColumnFacts, Survey
    from tasks.drafting.times import TimeForm, Unit
    from tasks.drafting.wish import Wish

STEPS: dict[str, tuple[float, int, tuple[tuple[float, int], ...]]] = {
    "month": (730.5, 1, ((3 * 8766, 12),)),
    "7D": (168, 4, ((3 * 8766, 52),)),
    "1D": (24, 7, ((6 * 168, 7),)),
    "12h": (12, 2, ((6 * 168, 14), (240, 2))),
    "6h": (6, 4, ((6 * 168, 28), (240, 4))),
    "4h": (4, 6, ((6 * 168, 42), (240, 6))),
    "3h": (3, 8, ((6 * 168, 56), (240, 8))),
    "2h": (2, 12, ((6 * 168, 84), (240, 12))),
    "1h": (1, 24, ((6 * 168, 168), (240, 24))),
    "30min": (0.5, 48, ((6 * 168, 336), (240, 48))),
    "15min": (0.25, 96, ((6 * 168, 672), (240, 96))),
    "10min": (1 / 6, 144, ((240, 144),)),
    "5min": (1 / 12, 288, ((240, 288),)),
    "1min": (1 / 60, 60, ((240, 1440),)),
}
"""Step → its hours; how many steps ahead are asked usually; and from so many hours of data on, so many steps are a
season. The coarsest stands first."""

ON_THE_GRID = 0.99
"""So many of the times must be a whole number of steps apart."""

FILLED = 0.2
"""So many of the steps of a series must have a row: with fewer it is events that are written down, and no series."""

MOST_SERIES = 10_000
A_SERIES = 10
"""Rows of a series on average, at least: what has fewer names rows."""

MOST_PAST = 20
"""Other columns whose value when the forecast is asked is a feature."""

UNITS_IN_HOURS: dict[Unit, float] = {
    "hour": 1, "day": 24, "month": 672, "quarter": 2160, "year": 8760, "decade": 87_600,
}  # fmt: skip
"""How long the shortest of them is."""


@dataclass(frozen=True)
class Outlook:
    """What a forecast is asked, and what is known then."""

    step: str
    horizon: int
    season: int
    series: tuple[str, ...]
    """The columns that tell series apart."""
    past: tuple[str, ...]
    """Other columns of numbers, of which the value at the origin is a feature."""

    @property
    def lags(self) -> dict[str, int]:
        """Feature → how many steps before a row's time.

        The two newest; the same time of two seasons before; and what was newest a season ago, by which a change since
        can be seen.
        """
        seasons = math.ceil(self.horizon / self.season) * self.season
        of_season = (seasons, seasons + self.season, seasons + self.horizon) if self.season > 1 else ()
        steps = {self.horizon, self.horizon + 1, *of_season}
        return {f"lag_{count}": count for count in sorted(steps)}

    @property
    def window(self) -> int:
        """Steps up to the origin of which the mean is a feature: a season, or a few."""
        return max(self.season, 4)

    @property
    def mean(self) -> str:
        """The feature that is this mean."""
        return f"mean_{self.window}"

    @property
    def reach(self) -> int:
        """Steps back to the oldest row that a row is made of."""
        return max(*self.lags.values(), self.horizon + self.window - 1)

    @property
    def frequency(self) -> str:
        """The step as pandas writes it."""
        return {"month": "MS"}.get(self.step, self.step)

    @property
    def words(self) -> str:
        """The horizon as a person says it."""
        if self.step == "month":
            return f"{self.horizon} month{'s'[: self.horizon > 1]}"
        return f"{self.horizon} × {self.step}"

    def history(self, by: str) -> int:
        """How many partitions a row is made of, its own among them."""
        hours = STEPS[self.step][0] * self.reach
        return math.ceil(hours / UNITS_IN_HOURS[by]) + 1  # type: ignore[index]  # a unit of time

    def unit(self, at: pd.Series[Any]) -> Unit:
        """By what the rows are cut: partitions that a row need not reach far beyond, and not too few."""
        counts = {unit: len(np.unique(times.names(at.dropna(), unit))) for unit in times.UNITS}
        enough = [unit for unit in times.UNITS if times.FEWEST_PARTITIONS <= counts[unit] <= times.MOST_PARTITIONS]
        near = [unit for unit in enough if self.history(unit) <= 4]
        return (near or enough[::-1] or [times.usual_unit(at)])[0]


def find(wish: Wish, survey: Survey, form: TimeForm) -> Outlook:
    """What a table can be asked for times to come.

    Raises:
        Mistake: its rows are no series: their times lie on no grid, most steps have no row, or several rows are of one
            time and no column tells them apart.
    """
    at = form.parse(survey.sample[form.column])
    step = _step(at)
    if step is None:
        raise Mistake(
            f"--time {form.column}: its times are no whole number of minutes, hours, days, weeks or months apart "
            f"({', '.join(map(str, at.dropna().head(3)))}, …): a forecast has one value a step. Round them, and sum up "
            f"what is of one step"
        )
    series = wish.series or _series(wish, survey, at)
    _refuse_gaps(survey, at, step, series, form.column)
    hours, usual, seasons = STEPS[step]
    span = (at.max() - at.min()).total_seconds() / 3600
    season = next((steps for least, steps in seasons if span >= least), 1)
    horizon = wish.horizon or usual
    if span < 4 * hours * (horizon + season):
        raise Mistake(
            f"the table spans {at.min()} to {at.max()}: too short a time to forecast {horizon} steps of {step} ahead, "
            f"and to try it. Give more rows, or `--horizon` fewer steps"
        )
    own = {*wish.labels, wish.time, *series, *wish.key}
    past = [name for name, column in survey.columns.items() if name not in own and _is_quantity(column)]
    return Outlook(step, horizon, season, tuple(series), tuple(past[:MOST_PAST]))


def is_plain(wish: Wish, survey: Survey, form: TimeForm) -> bool:
    """Whether a table can hardly be anything else: besides times and values it only says of which series they are."""
    try:
        outlook = find(wish, survey, form)
    except Mistake:
        return False
    return not {*survey.columns} - {*wish.labels, wish.time, *wish.key, *outlook.series}


def _is_quantity(column: ColumnFacts) -> bool:
    return column.kind in {"integer", "number"} and not column.is_constant


def _step(at: pd.Series[Any]) -> str | None:
    """The coarsest step that (nearly) all times are a whole number of apart."""
    at = at.dropna()
    if _are_months(at):
        return "month"
    micros = at.to_numpy(dtype="datetime64[us]").astype(np.int64)
    for step, (hours, _, _) in STEPS.items():
        rest = (micros - micros.min()) % int(hours * 3_600_000_000)
        if step != "month" and np.unique(rest, return_counts=True)[1].max() >= ON_THE_GRID * len(at):
            return step
    return None


def _are_months(at: pd.Series[Any]) -> bool:
    """Whether all are the same day of a month, or the last working days of months."""
    days = at.dt.day
    are_alike = bool((days == days.iloc[0]).all() or (at.dt.days_in_month - days <= 2).all())
    return are_alike and len(at.dt.to_period("M").unique()) >= 3


def _series(wish: Wish, survey: Survey, at: pd.Series[Any]) -> tuple[str, ...]:
    """The fewest columns that tell rows of one time apart; none, where no two are of one time."""
    if not at.dropna().duplicated().any():
        return ()
    names = [
        name
        for name, column in survey.columns.items()
        if name not in {*wish.labels, wish.time} and column.kind in {"text", "integer", "truth"} and not column.missing
        and 1 < survey.sample[name].nunique() <= MOST_SERIES and not _is_part(survey.sample[name], at)
    ]  # fmt: skip
    names.sort(key=lambda name: (survey.columns[name].kind == "integer", survey.sample[name].nunique()))
    sets = [chosen for several in (1, 2, 3) for chosen in combinations(names[:8], several)]
    long = [chosen for chosen in sets if len(survey.sample[list(chosen)].drop_duplicates()) * A_SERIES <= len(at)]
    alike = {c: int(survey.sample[list(c)].assign(__at__=at)[at.notna()].duplicated().sum()) for c in long}
    best = min(alike, key=lambda chosen: (alike[chosen], len(chosen)), default=())
    if best and not alike[best]:
        return best
    nearly = f" ({' and '.join(best)} leave {alike[best]:,} of {len(at):,})" if best else ""
    raise Mistake(
        f"several rows are of one time, as of {at[at.duplicated()].iloc[0]}, and no column tells them apart{nearly}: "
        f"`--series COLUMN` names what tells series apart. If nothing does, sum up what is of one time"
    )


def _is_part(values: pd.Series[Any], at: pd.Series[Any]) -> bool:
    """Whether a column is the same in all rows of one time, as its month or weekday is: it tells no series apart."""
    return len(pd.DataFrame({0: values, 1: at}).drop_duplicates()) == len(at.drop_duplicates())


def _refuse_gaps(survey: Survey, at: pd.Series[Any], step: str, series: tuple[str, ...], column: str) -> None:
    frame = survey.sample[list(series)].assign(__at__=at).dropna()
    groups = frame.groupby(list(series))["__at__"] if series else frame.groupby(frame["__at__"].notna())["__at__"]
    spans = groups.max() - groups.min()
    steps = spans.dt.total_seconds().sum() / 3600 / STEPS[step][0] + len(spans)
    if survey.rows < FILLED * steps:
        raise Mistake(
            f"--time {column}: of {steps:,.0f} steps of {step} only {survey.rows:,} have a row: these are events, and "
            f"no series. Count them, or sum them up, by the hour or the day, and forecast that"
        )
