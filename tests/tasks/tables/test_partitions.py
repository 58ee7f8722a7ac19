"""The time that a partition's name says."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tasks.tables import partitions

RISING = [
    ["2013-01", "2013-02", "2013-10", "2014-01"],
    ["2023", "2024-01", "2024-01-05", "2024-W05", "2024-02", "2024-Q2", "2024-09-01"],
    ["20231231", "20240101", "202402", "20240301"],
    ["Q4-2023", "Q1-2024", "Q2-2024"],
    ["12-2023", "01-2024", "2-2024"],
    ["orders_2024-9", "orders_2024-10"],
    ["shop7-2024-01", "shop7-2024-02"],
    ["2024-02", "2024-02-fix", "2024-02-v2", "2024-02-v10", "2024-03"],
    ["2024-01-05T09", "2024-01-05T10", "2024-01-06T01"],
    ["2024010509", "2024010510"],
    ["month-1", "month-2", "month-10"],
    ["9", "10", "0011"],
    ["part 2 of 3", "part 10 of 3"],
    ["2013-W05", "2013-W06", "2013-W10", "2014-W01"],
]


@pytest.mark.parametrize("names", RISING, ids=lambda names: names[-1])
def test_names_that_say_a_time_are_in_its_order(names: list[str]) -> None:
    """Not in that of the alphabet: each is just before the next, however the others lie."""
    near = partitions.neighbours(names, reversed(names))
    for earlier, later in pairwise(names):
        assert near[later][0] == earlier
        assert near[earlier][1] == later
    assert near[names[0]][0] is None
    assert near[names[-1]][1] is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("jan", "feb"),
        ("north", "south"),
        ("2024-01", "airports"),
        ("05-01-2024", "06-01-2024"),
        ("a-1", "b-2"),
        ("2024-01", "month-1"),
    ],
)
def test_names_that_say_none_are_not_compared(one: str, other: str) -> None:
    """Neither is before the other, and a limit by one holds nothing of the other."""
    for name, beside in ((one, other), (other, one)):
        assert partitions.neighbours([name], [beside]) == {name: (None, None)}
        with pytest.raises(ValueError, match="cannot be said of their names"):
            partitions.holds(name, beside, None)


@pytest.mark.parametrize(
    ("name", "first", "last", "holds"),
    [
        ("2024-03", "2024-03", None, True),
        ("2024-02", "2024-03", None, False),
        ("2024-03", None, "2024-03", True),
        ("2024-04", None, "2024-03", False),
        ("2024-03-31", None, "2024-03", True),
        ("2024-03-late", None, "2024-03", True),
        ("2024-03", "2024-03-02", None, False),
        ("2024-W10", None, "2024-Q1", True),
        ("2024-12-31", "2024", "2024", True),
        ("2025-01-01", "2024", "2024", False),
        ("month-10", "month-2", "month-10", True),
        ("jan", None, None, True),
    ],
)
def test_a_span_holds_the_whole_of_its_last_period(name: str, first: str | None, last: str | None, holds: bool) -> None:
    """Until 2024-03 means: the last day of March too."""
    assert partitions.holds(name, first, last) is holds
