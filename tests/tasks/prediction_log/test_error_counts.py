"""What was not answered: counted by day, added up, and forgotten as the log is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.ground import files, paths, settings
from tasks.prediction_log import error_counts

NOTHING = {"refused": 0, "shed": 0, "failed": 0}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for what is kept."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    return tmp_path


def test_counts_add_up(state: Path) -> None:
    """Of each day and kind; a day says every kind, and where nothing was counted there is nothing."""
    assert error_counts.read("tiny") == {}
    error_counts.add("tiny", {("2026-11-21", "shed"): 2, ("2026-11-20", "failed"): 1}, 90)
    error_counts.add("tiny", {("2026-11-21", "shed"): 1, ("2026-11-21", "refused"): 4}, 90)
    error_counts.add("other", {("2026-11-21", "shed"): 9}, 90)
    assert error_counts.read("tiny") == {
        "2026-11-20": {**NOTHING, "failed": 1},
        "2026-11-21": {**NOTHING, "shed": 3, "refused": 4},
    }
    assert list(error_counts.read("tiny")) == ["2026-11-20", "2026-11-21"]


def test_several_that_add_at_once_lose_nothing() -> None:
    """A router that ends, and the one that takes its place."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: error_counts.add("tiny", {("2026-11-21", "failed"): 1}, 90), range(40)))
    assert error_counts.read("tiny") == {"2026-11-21": {**NOTHING, "failed": 40}}


def test_old_days_are_forgotten() -> None:
    """The last so many stay, of which the newest is one."""
    for day in range(1, 31):
        error_counts.add("tiny", {(f"2026-11-{day:02}", "failed"): day}, 7)
    assert list(error_counts.read("tiny")) == [f"2026-11-{day}" for day in range(24, 31)]


def test_a_day_to_come_does_not_make_the_others_old() -> None:
    """It was counted while the clock was wrong; the clock was set, and it goes."""
    error_counts.add("tiny", {("2026-11-20", "failed"): 1}, 7)
    files.write_json(paths.error_counts("tiny"), {**error_counts.read("tiny"), "2199-01-01": {**NOTHING, "failed": 2}})
    error_counts.add("tiny", {("2026-11-21", "failed"): 3}, 7)
    assert list(error_counts.read("tiny")) == ["2026-11-20", "2026-11-21"]


@pytest.mark.parametrize(
    "text", ["[", "[]", '{"today": {}}', '{"2026-11-21": {"shed": 1}}', '{"2026-11-21": 3}', "null"]
)
def test_a_file_of_something_else_is_set_aside_and_counting_begins_anew(
    state: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """It is named; what it held stays to be looked at."""
    files.write_text(paths.error_counts("tiny"), text)
    error_counts.add("tiny", {("2026-11-21", "shed"): 1}, 90)
    assert error_counts.read("tiny") == {"2026-11-21": {**NOTHING, "shed": 1}}
    assert "unanswered.json is torn" in caplog.text
    (aside,) = (settings.VAR / "torn").iterdir()
    assert aside.read_text() == text
