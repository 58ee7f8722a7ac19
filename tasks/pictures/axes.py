"""Axes of a picture: where times and values lie, and which of them have a mark.

A picture is 440 units wide, and as wide as its column on a screen; its colours and sizes are classes of charts.css.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tasks.pictures.formatting import day, short

WIDTH = 440

MARKS = 6
"""A time axis has at most so many."""


@dataclass(frozen=True)
class Plane:
    """Where times and values are in a picture."""

    since: datetime
    until: datetime
    low: float
    high: float
    left: float = 44
    top: float = 10
    right: float = WIDTH - 12
    bottom: float = 176

    def x(self, time: datetime) -> float:
        """Units from the left."""
        whole = (self.until - self.since).total_seconds()
        return self.left + (self.right - self.left) * ((time - self.since).total_seconds() / whole if whole else 0.5)

    def y(self, value: float) -> float:
        """Units from the top; what is outside lies on the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1)
        return self.bottom - (self.bottom - self.top) * share

    def path(self, points: Iterable[tuple[datetime, float | None]]) -> str:
        """A line through the points as SVG has it; it breaks where a value is None, and is empty for a single point."""
        steps, pen = [], "M"
        for time, value in points:
            if value is not None:
                steps.append(f"{pen}{self.x(time):.1f} {self.y(value):.1f}")
            pen = "M" if value is None else "L"
        return "".join(steps) if len(steps) > 1 else ""

    def marks(self, about: int = 6, unit: str = "") -> list[tuple[float, str]]:
        """The marks of the value axis, and their texts."""
        return [(value, short(value) + (unit if value else "")) for value in ticks(self.low, self.high, about)]

    def dates(self) -> list[tuple[datetime, str]]:
        """The marks of the time axis, and their texts."""
        return dates(self.since, self.until)


def extent(values: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    """What an axis shows: every value, and of the intervals what does not make the values hard to see."""
    low, high = min(values), max(values)
    room = (high - low) or abs(high) * 0.1 or 1.0
    low, high = min(low, max(min(ends, default=low), low - room)), max(high, min(max(ends, default=high), high + room))
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


def spread(places: Sequence[float], apart: float, top: float, bottom: float) -> list[float]:
    """Rising places of texts, moved so that none lies on the one before."""
    moved = [max(place, top) for place in places]
    for at in range(1, len(moved)):
        moved[at] = max(moved[at], moved[at - 1] + apart)
    moved[-1] = min(moved[-1], bottom)
    for at in reversed(range(len(moved) - 1)):
        moved[at] = min(moved[at], moved[at + 1] - apart)
    return moved


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values from low to high: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    return [round(k * step, 12) + 0.0 for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def dates(since: datetime, until: datetime) -> list[tuple[datetime, str]]:
    """The marks of a time axis, and their texts: months, days or hours."""
    span = until - since
    if span > timedelta(days=70):
        return _months(since, until)
    if span > timedelta(days=2):
        return _days(since, until)
    if span < timedelta(minutes=2):
        return [(since + span / 2, f"{since:%H:%M}")]
    seconds = span.total_seconds() / MARKS
    step = next((n for n in (60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800) if n >= seconds), 43200)
    first = math.ceil(since.timestamp() / step) * step
    marks = [datetime.fromtimestamp(first + k * step, UTC) for k in range(MARKS + 1)]
    return [
        (time, day(time)[:-5] if f"{time:%H:%M}" == "00:00" else f"{time:%H:%M}") for time in marks if time <= until
    ]


def _months(since: datetime, until: datetime) -> list[tuple[datetime, str]]:
    months = list(_first_days(since, until))
    step = next(n for n in (1, 2, 3, 6, 12, 10_000) if -(-len(months) // n) <= MARKS)
    kept = [time for time in months if (time.month - 1) % step == 0] or months[:1]
    return [(time, f"{time:%b %Y}" if step >= 6 else f"{time:%b}") for time in kept[:MARKS]]


def _first_days(since: datetime, until: datetime) -> Iterator[datetime]:
    at = datetime(since.year, since.month, 1, tzinfo=UTC)
    while at <= until:
        if at >= since:
            yield at
        at = at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1)


def _days(since: datetime, until: datetime) -> list[tuple[datetime, str]]:
    first = since.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=since.hour > 0)
    count = (until - first).days + 1
    step = next(n for n in (1, 2, 7, 14, 28) if -(-count // n) <= MARKS)
    marks = [first + timedelta(days=k) for k in range(0, count, step)]
    return [(time, day(time)[:-5]) for time in marks if time <= until]
