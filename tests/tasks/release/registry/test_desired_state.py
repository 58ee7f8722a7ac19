"""The desired state of serving: its file, its journal, and a file that is torn or lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.ground import files, paths, settings
from tasks.release.registry import desired_state
from tasks.release.registry.desired_state import DesiredState, ReleaseRef
from tests.tasks.release.fake_router import MODEL, NEW, OLD

pytestmark = pytest.mark.usefixtures("var")


def test_what_should_serve_is_written_as_the_router_reads_it() -> None:
    """From the first champion to the next: who served is kept warm, and the one before is let go."""
    assert desired_state.read(MODEL) == DesiredState()
    older = ReleaseRef("9" * 16, 0)
    desired_state.write(MODEL, DesiredState(OLD, previous=older).with_canary(NEW).with_share(0.1))
    assert files.read_json(settings.VAR / "serving" / "late.json") == {
        "live": {"candidate": OLD.candidate, "version": 1, "since": ""},
        "beside": [
            {"candidate": older.candidate, "version": 0, "role": "former"},
            {"candidate": NEW.candidate, "version": 2, "role": "challenger"},
        ],
        "canary": {"candidate": NEW.candidate, "share": 0.1},
    }
    now = desired_state.read(MODEL)
    assert (now.live, now.previous, now.canary, now.share) == (OLD, older, NEW, 0.1)
    assert now.without_canary() == DesiredState(OLD, older)
    then = now.gone_live(NEW)
    assert then.live is not None
    assert (then.live.candidate, then.previous, then.canary, then.share) == (NEW.candidate, OLD, None, None)
    assert then.live.since.endswith("Z")


@pytest.mark.parametrize("torn", [b"", b'{"live": ', b"\x00\x00\x00", b"\xff\xfe\x9c", b'{"live": null}'])
def test_a_torn_file_is_made_again_of_what_went_live_last(
    var: Path, caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    """It is named and set aside; who served goes on, and who served before stays the former one."""
    for one, outcome in ((OLD, "live"), (NEW, "live"), (OLD, "withdrawn")):
        desired_state.note(MODEL, one, outcome)
    paths.desired_state(MODEL).parent.mkdir(exist_ok=True)
    paths.desired_state(MODEL).write_bytes(torn)
    now = desired_state.read(MODEL)
    assert now.live is not None
    assert now.previous is not None
    assert (now.live.candidate, now.previous.candidate, now.share) == (NEW.candidate, OLD.candidate, None)
    assert files.read_json(paths.desired_state(MODEL))["live"]["candidate"] == NEW.candidate
    assert "late.json is torn" in caplog.text
    (aside,) = (var / "torn").iterdir()
    assert aside.read_bytes() == torn


def test_a_file_that_was_lost_is_made_again_of_what_went_live_last(var: Path) -> None:
    """Of a model that never served, there is none."""
    assert desired_state.read(MODEL) == desired_state.DesiredState()
    assert not paths.desired_state(MODEL).exists()
    for release in (OLD, NEW):
        desired_state.note(MODEL, release, "live")
    assert (lost := desired_state.read(MODEL).live)
    assert lost.candidate == NEW.candidate
    assert files.read_json(paths.desired_state(MODEL))["live"]["candidate"] == NEW.candidate


def test_a_torn_file_of_a_model_that_never_served_counts_as_none(var: Path) -> None:
    """And so does that of one that was withdrawn with nobody after it: the champion is tried as the first one is."""
    for lines in ((), ("live", "withdrawn")):
        for outcome in lines:
            desired_state.note(MODEL, OLD, outcome)
        files.write_text(paths.desired_state(MODEL), "")
        assert desired_state.read(MODEL).live is None


def test_models_that_are_gone_are_forgotten_and_keys_are_not(var: Path) -> None:
    """API keys lie in the same folder."""
    for name in ("late", "gone"):
        desired_state.write(name, DesiredState(OLD))
    files.write_json(var / "serving" / "keys.json", {})
    assert desired_state.forget(["late"]) == ["gone"]
    assert sorted(path.name for path in (var / "serving").iterdir()) == ["keys.json", "late.json"]


def test_the_book_has_a_line_for_each_change() -> None:
    """The same one twice is one line; who has served is known ever after."""
    for one, outcome in ((OLD, "live"), (OLD, "live"), (NEW, "withdrawn")):
        desired_state.note(MODEL, one, outcome, "slow" if outcome == "withdrawn" else "")
    assert [(line["version"], line["outcome"], line["why"]) for line in desired_state.history(MODEL)] == [
        (1, "live", ""),
        (2, "withdrawn", "slow"),
    ]
    assert desired_state.has_served(MODEL, OLD.candidate)
    assert not desired_state.has_served(MODEL, NEW.candidate)
