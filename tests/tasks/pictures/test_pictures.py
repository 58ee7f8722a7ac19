"""Pictures as SVG: axes with round marks, texts as people read them, and files that stand alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from tasks.pictures import axes, formatting, templates
from tasks.release.gate import verdict_chart
from tasks.release.gate.verdict import Check

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.5, 1]),
        (0.338, 0.46, [0.35, 0.4, 0.45]),
        (-0.021, 0.05, [-0.02, 0, 0.02, 0.04]),
        (7, 7, [7]),
        (0, 1234, [0, 500, 1000]),
    ],
)
def test_the_marks_of_an_axis_are_round(low: float, high: float, wanted: list[float]) -> None:
    """Steps of 1, 2 or 5 times a power of ten."""
    assert axes.ticks(low, high) == wanted


@pytest.mark.parametrize("span", [0, 1 / 86400, 0.001, 0.04, 0.9, 2, 5, 30, 69, 71, 365, 1000, 9000])
def test_the_marks_of_time_are_few_and_inside(span: float) -> None:
    """Whether the picture is of seconds or of decades."""
    since = datetime(2013, 10, 3, 7, 31, tzinfo=UTC)
    marks = axes.dates(since, since + timedelta(days=span))
    assert 1 <= len(marks) <= 7
    assert all(since <= time <= since + timedelta(days=span) for time, _ in marks)
    assert len({time for time, _ in marks}) == len(marks)


def test_labels_are_moved_apart() -> None:
    """None lies on the one before, and the last stays inside."""
    places = axes.spread([1, 2, 50, 99, 100], 14, 3, 100)
    assert places == [3, 17, 50, 86, 100]


@pytest.mark.parametrize(
    ("since", "until", "wanted"),
    [
        ("2013-10-07T00:00:00Z", "2013-10-13T23:00:00Z", "7 to 13 Oct 2013"),
        ("2013-09-28T00:00:00Z", "2013-10-04T12:00:00Z", "28 Sep to 4 Oct 2013"),
        ("2013-10-07T00:00:00Z", "2013-10-14T00:00:00Z", "7 to 13 Oct 2013"),
        ("2013-12-28T00:00:00Z", "2014-01-04T00:00:00Z", "28 Dec 2013 to 3 Jan 2014"),
    ],
)
def test_windows_read_as_people_write_them(since: str, until: str, wanted: str) -> None:
    """Within a month, over months, over years."""
    assert formatting.days(since, until) == wanted


def test_a_picture_file_stands_alone() -> None:
    """Well-formed, with its style, its pictures below each other, and names as text."""
    checks = [
        Check("improvement", -0.1, 0.0, True, "better", (-0.2, -0.01)),
        Check("slice:a=<b>&", 0.2, 0.1, False, "worse"),
    ]
    chart = verdict_chart.draw(checks, "log_loss", has_champion=True)
    drawn = templates.stand_alone("<tiny> & $5$", ("one", chart, 100), ("two", chart, 100), notes=["three"])
    root = ET.fromstring(drawn)
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"<tiny> & $5$", "one", "two", "three", "a=<b>&"} <= set(texts)
    assert len(root.findall(f"{SVG}svg/{SVG}svg")) == 2
    assert "prefers-color-scheme:dark" in str(root.findtext(f"{SVG}style"))


def test_a_missing_value_is_an_error() -> None:
    """A template writes nothing by mistake."""
    with pytest.raises(UndefinedError, match="'notes' is undefined"):
        templates.render("tasks/pictures/stand_alone.svg", title="", panels=[("", Markup(), 0)], is_bad=False)
