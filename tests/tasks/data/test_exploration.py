"""The pages about the data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from models import upstream
from tasks.data import exploration
from tasks.ground import files
from tests.tasks.data.conftest import Put, month, write

pytestmark = [
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),  # Great Expectations imports it
    pytest.mark.filterwarnings("ignore::DeprecationWarning:skrub"),
]

LOADED = re.compile(r"<(script|link|img|iframe)\b[^>]*\b(src|href)=[\"']?https?://")
"""What a browser would fetch from elsewhere; a link that somebody may click is none of these."""


def test_each_dataset_has_a_report_that_needs_no_network(root: Path, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page per dataset, from a bounded sample of all its partitions; the same page for the same data."""
    monkeypatch.setattr(exploration, "ROWS", 2_000)
    for partition in ("2013-01", "2013-02"):
        put("weather", partition)
    (page,) = exploration.tables()
    html = page.read_text()
    assert page == root / "var/reports/weather.html"
    assert "weather: 2013-01 to 2013-02" in html
    assert "wind_gust" in html
    assert not LOADED.search(html)
    assert exploration.tables() == [page]
    assert page.read_text() == html


def test_the_data_docs_show_every_check_and_need_no_network(root: Path, put: Put) -> None:
    """An index of all partitions and models, and Great Expectations' page of each, with nothing to load."""
    for dataset in upstream.DATASETS:
        put(dataset, "2013-01")
    write(root / "data/weather/2013-02.csv", month("weather", "2013-03"))
    index = exploration.data_docs()
    folder = index.parent
    links = re.findall(r'href="([^"]+)"', index.read_text())
    assert sorted(links) == sorted(set(files.tree(folder)) - {"index.html"})
    assert len(links) == 6
    assert "refused" in index.read_text()
    for link in links:
        assert not LOADED.search((folder / link).read_text())
    page = (folder / "flight_delay/weather/2013-02.html").read_text()
    assert "flight_delay: weather 2013-02" in page
    assert "wind_speed" in page
