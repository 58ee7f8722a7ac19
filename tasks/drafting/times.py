"""Time of a row, however a table writes it: as a time, as counted seconds, as a year, or with the names of months."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground.errors import Mistake

if TYPE_CHECKING:
    from tasks.drafting.survey import Survey

    Texts = pd.Series[Any]

Unit = Literal["decade", "year", "quarter", "month", "day", "hour"]
UNITS: tuple[Unit, ...] = ("hour", "day", "month", "quarter", "year", "decade")
"""By what a table may be cut into partitions, the finest first."""

MOST_PARTITIONS = 60
"""The finest unit is taken that gives no more, …"""

FEWEST_ROWS, FEWEST_PARTITIONS = 10, 6
"""… with so many rows in each on average, unless there would be fewer partitions than this."""

MONTHS = {
    "Januar": "January", "Jänner": "January", "Februar": "February", "März": "March", "Mai": "May", "Juni": "June",
    "Juli": "July", "Oktober": "October", "Dezember": "December", "Mrz": "Mar", "Okt": "Oct", "Dez": "Dec",
}  # fmt: skip
"""German names of months → the English ones that pandas reads."""


@dataclass(frozen=True)
class TimeForm:
    """How a column says a time."""

    column: str
    how: Literal["time", "zoned", "s", "ms", "year", "day", "german"]

    def parse(self, values: Texts) -> Texts:
        """The times, without a zone."""
        if self.how == "zoned":
            return values.dt.tz_convert("UTC").dt.tz_localize(None)
        if self.how in {"s", "ms"}:
            return pd.to_datetime(values, unit=self.how)
        if self.how in {"year", "day"}:
            form = {"year": "%Y", "day": "%Y%m%d"}[self.how]
            return pd.to_datetime(values.astype("Int64").astype("string"), format=form, errors="coerce")
        if self.how == "german":
            return pd.to_datetime(_english(values), format="mixed", dayfirst=True, errors="coerce")
        return values

    def code(self) -> list[str]:
        """The same, in the words of a model's rows; `table` is the table."""
        column = f"table[{self.column!r}]"
        return {
            "time": [f"time = {column}"],
            "zoned": [f'time = {column}.dt.tz_convert("UTC").dt.tz_localize(None)'],
            "s": [f'time = pd.to_datetime({column}, unit="s")'],
            "ms": [f'time = pd.to_datetime({column}, unit="ms")'],
            "year": [f'time = pd.to_datetime({column}.astype("int64").astype(str), format="%Y")'],
            "day": [f'time = pd.to_datetime({column}.astype("int64").astype(str), format="%Y%m%d")'],
            "german": [
                rf'words = {column}.str.replace(r"(\d)\.", r"\1 ", regex=True).replace(MONTHS, regex=True)',
                'time = pd.to_datetime(words, format="mixed", dayfirst=True)',
            ],
        }[self.how]


def _english(values: Texts) -> Texts:
    words = {rf"\b{german}\b\.?": english for german, english in MONTHS.items()}
    return values.str.replace(r"(\d)\.", r"\1 ", regex=True).replace(words, regex=True)


def form_of(survey: Survey, name: str) -> TimeForm:
    """How a column says the time of a row.

    Raises:
        Mistake: it says none, or times that have not come yet.
    """
    column, values = survey.columns[name], survey.sample[name].dropna()
    form = _form(name, column.kind, survey.columns[name].type, values)
    if form is None:
        example = repr(str(values.iloc[0])) if len(values) else "nothing"
        raise Mistake(f"--time {name}: {example} is no time. Write times as 2026-01-31 or 2026-01-31 08:00")
    times = form.parse(values)
    future = float((times > pd.Timestamp.now() + pd.Timedelta(days=1)).mean())
    if future > 0.01:
        raise Mistake(
            f"--time {name}: {future:.0%} of the rows lie in the future (to {times.max():%Y-%m-%d}): nobody can know "
            f"their label. Name the column that says when a row was seen, or leave these rows out"
        )
    return form


def _form(name: str, kind: str, type_: str, values: Texts) -> TimeForm | None:
    if kind == "time":
        return TimeForm(name, "zoned" if "UTC" in type_ else "time")
    if not len(values):
        return None
    if kind in {"integer", "number"}:
        low, high = values.min(), values.max()
        spans: list[tuple[float, float, Any]] = [
            (1000, 2200, "year"), (19000101, 22001231, "day"), (1e8, 1e10, "s"), (1e11, 1e13, "ms"),
        ]  # fmt: skip
        how = next((how for least, most, how in spans if least <= low and high <= most), None)
        return how and TimeForm(name, how)
    german = TimeForm(name, "german")
    some = values.drop_duplicates().head(500)
    return (
        german if some.map(lambda text: bool(re.search(r"\d{4}", str(text)))).all() and _parses(german, some) else None
    )


def _parses(form: TimeForm, values: Texts) -> bool:
    return bool(form.parse(values).notna().mean() > 0.99)


def names(times: Texts, unit: Unit) -> npt.NDArray[np.str_]:
    """The partition of each time, by its name."""
    at = times.to_numpy(dtype="datetime64[us]")
    if unit == "quarter":
        months = at.astype("datetime64[M]").astype(int)
        return np.char.add(np.datetime_as_string(at, unit="Y"), np.char.add("-Q", (months % 12 // 3 + 1).astype(str)))
    if unit == "decade":
        return np.array([f"{year // 10 * 10}" for year in at.astype("datetime64[Y]").astype(int) + 1970])
    steps = {"year": "Y", "month": "M", "day": "D", "hour": "h"}
    return np.char.replace(np.datetime_as_string(at.astype(f"datetime64[{steps[unit]}]")), "T", "-")


def name_of(moment: datetime, unit: str) -> str:
    """The partition of a moment, by its name."""
    return str(names(pd.Series([pd.Timestamp(moment)]), unit)[0])  # type: ignore[arg-type]  # one of UNITS


def usual_unit(times: Texts) -> Unit:
    """The finest unit that the times tell apart and that gives not too many partitions, nor too small ones."""
    times = times.dropna()
    counts = {unit: len(np.unique(names(times, unit))) for unit in UNITS}
    told = [unit for unit, coarser in zip(UNITS, [*UNITS[1:], "decade"], strict=True) if counts[unit] > counts[coarser]]
    fine: list[Unit] = [unit for unit in told if counts[unit] <= MOST_PARTITIONS] or ["decade"]
    roomy = [unit for unit in fine if len(times) / counts[unit] >= FEWEST_ROWS and counts[unit] >= FEWEST_PARTITIONS]
    return (roomy or fine)[0]
