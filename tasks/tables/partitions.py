"""Order of partitions by the time in their names: 2024-03, 2024-W05, Q1-2024, 20240305, month-10.

Names without a time (`jan`, `north`), or of different patterns, are not compared: nothing is the newest because of the
alphabet. Where there are rows, their times are better (tasks/training/consistency.py).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from operator import itemgetter

_DATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?<!\d)(?P<y>\d{4})[-_.]?W(?P<w>\d{1,2})(?!\d)",
        r"(?<!\d)(?P<y>\d{4})[-_.]?Q(?P<q>[1-4])(?!\d)",
        r"Q(?P<q>[1-4])[-_.]?(?P<y>\d{4})(?!\d)",
        r"(?<!\d)(?P<y>\d{4})[-_.](?P<m>\d{1,2})(?:[-_.](?P<d>\d{1,2}))?(?!\d)",
        r"(?<!\d)(?P<y>(?:19|20)\d{2})(?P<m>\d{2})(?P<d>\d{2})?(?!\d)",
        r"(?<![\d.])(?<!\d[-_])(?P<m>\d{1,2})[-_.](?P<y>\d{4})(?!\d)",
        r"(?<!\d)(?P<y>(?:19|20)\d{2})$",
    )
]

Key = tuple[tuple[int, int, str], ...]
"""Dates (0), texts (1), numbers (2) and an end after all of them (3), so that any two compare."""

END = (3, 0, "")


@dataclass(frozen=True)
class Period:
    """The time that a name says."""

    family: str
    """Names of two families are not compared."""
    begin: Key
    end: Key
    """The first key after it."""


@lru_cache(maxsize=65_536)
def period(name: str) -> Period | None:
    """The time in a partition's name; None where it has none."""
    for pattern in _DATES:
        if (match := pattern.search(name)) and (days := _days(match)):
            begin, end = (((0, day.toordinal(), ""),) for day in days)
            family, rest = f"date {name[: match.start()]}", _natural(name[match.end() :])
            # 2024-03-late comes after 2024-03 and before 2024-04
            return Period(family, (*begin, *rest), (*begin, *rest, END) if rest else end)
    if match := re.search(r"\d+", name):
        number = _natural(name[match.start() :])
        return Period(f"number {name[: match.start()]}", number, (*number, END))
    return None


def subject(name: str) -> str | None:
    """What a name says before its date: `weather` of weather-2015-11; empty where it begins with it, None without."""
    found = period(name)
    words = found.family.partition(" ")[2] if found and found.family.startswith("date ") else None
    return words if words is None else words.strip("-_. ")


@dataclass(frozen=True)
class WantedPartition:
    """Of which partition rows are wanted: what models/<name>/rows gets as `partition`, if it takes it."""

    name: str
    begin: datetime | None
    """The first moment of the day, month, hour … that the name says; None where it says none."""
    end: datetime | None
    """The first moment after it."""


def wanted(name: str) -> WantedPartition:
    """What is known of a partition by its name."""
    if (hour := _hour(name)) is not None:
        return WantedPartition(name, hour, hour + timedelta(hours=1))
    mine = period(name)
    edges = [] if mine is None else [key[0] for key in (mine.begin, mine.end) if len(key) == 1 and key[0][0] == 0]
    begin, end = (datetime.fromordinal(day) for _, day, _ in edges) if len(edges) == 2 else (None, None)
    return WantedPartition(name, begin, end)


_HOUR = re.compile(r"(?<!\d)(\d{4})-(\d\d)-(\d\d)[-T_](\d\d)$")


def _hour(name: str) -> datetime | None:
    """The hour that a name ends in, as 2024-03-01-05 and 2024-03-01T05; None where it ends in none."""
    match = _HOUR.search(name)
    try:
        return datetime(*map(int, match.groups())) if match else None  # type: ignore[arg-type]  # no zone among four
    except ValueError:  # as hour 24, or day 31 of February
        return None


def is_later(other: str, name: str) -> bool:
    """Whether a partition has time after another one.

    A day of 2024-03 is not later than 2024-03; the month is later than all of its days but the last, as it goes on.

    Raises:
        ValueError: that cannot be said of their names.
    """
    beside, mine = _comparable(other, name), _comparable(name, other)
    if len(beside.begin) == len(mine.begin):
        return beside.end > mine.end
    return beside.begin > mine.begin


def in_order(names: Iterable[str]) -> list[str]:
    """Names that can be compared, oldest first."""
    return sorted(names, key=lambda name: p.begin if (p := period(name)) else ())


def neighbours(wanted: Iterable[str], others: Iterable[str]) -> dict[str, tuple[str | None, str | None]]:
    """Of each name: the newest of the others before it and the oldest after it; None where none can be said to be."""
    families: dict[str, list[tuple[Key, str]]] = defaultdict(list)
    for other in others:
        if its := period(other):
            families[its.family].append((its.begin, other))
    ordered = {family: sorted(members) for family, members in families.items()}
    return {name: _between(period(name), ordered) for name in wanted}


def _between(mine: Period | None, ordered: Mapping[str, list[tuple[Key, str]]]) -> tuple[str | None, str | None]:
    family = ordered.get(mine.family, []) if mine else []
    if mine is None or not family:
        return None, None
    older, newer = (cut(family, mine.begin, key=itemgetter(0)) for cut in (bisect_left, bisect_right))
    return family[older - 1][1] if older else None, family[newer][1] if newer < len(family) else None


def holds(name: str, first: str | None, last: str | None) -> bool:
    """Whether a partition is of a span. A last one of 2024-03 holds 2024-03-15 too.

    Raises:
        ValueError: the names cannot be compared.
    """
    return (first is None or _comparable(name, first).begin >= _comparable(first, name).begin) and (
        last is None or _comparable(name, last).begin < _comparable(last, name).end
    )


def _comparable(name: str, beside: str) -> Period:
    mine, other = period(name), period(beside)
    if mine is None or other is None or mine.family != other.family:
        raise ValueError(f"whether {name!r} is before or after {beside!r} cannot be said of their names")
    return mine


def _natural(text: str) -> Key:
    """The numbers of a text as numbers, what stands between them as texts."""
    parts = [part for part in re.split(r"(\d+)", text) if part]
    return tuple((2, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def _days(match: re.Match[str]) -> tuple[date, date] | None:
    """The first day that a date names, and the first one after it; None where it is none, as month 13."""
    parts = {name: int(value) for name, value in match.groupdict().items() if value is not None}
    year = parts["y"]
    try:
        if "w" in parts:
            monday = date.fromisocalendar(year, parts["w"], 1)
            return monday, monday + timedelta(days=7)
        first = date(year, 3 * parts["q"] - 2 if "q" in parts else parts.get("m", 1), parts.get("d", 1))
        if "d" in parts:
            return first, first + timedelta(days=1)
        months = 3 if "q" in parts else 1 if "m" in parts else 12
        following = year * 12 + first.month - 1 + months
        return first, date(following // 12, following % 12 + 1, 1)
    except ValueError:
        return None
