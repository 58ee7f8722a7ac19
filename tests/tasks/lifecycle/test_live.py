"""`evergreen live`: who answered at a moment, by the journal of rollouts and the prediction log."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from tasks.ground import paths, settings
from tasks.ground.errors import Mistake
from tasks.journal import journal
from tasks.lifecycle import live
from tasks.prediction_log import prediction_log
from tasks.release.registry import desired_state
from tasks.release.registry.desired_state import ReleaseRef
from tests.tasks.monitoring.conftest import enter_world

MODEL = "tiny"
BEGIN = datetime(2026, 11, 3, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`a` live from 12:00, `b` a canary that was withdrawn 12:10, `c` live from 12:20."""
    enter_world(tmp_path, monkeypatch)
    for candidate, minute, outcome in (("aaaa", 0, "live"), ("bbbb", 10, "withdrawn"), ("cccc", 20, "live")):
        version = str("abc".index(candidate[0]) + 1)
        since = (BEGIN + timedelta(minutes=minute)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        desired_state.note(MODEL, ReleaseRef(candidate, version, since), outcome, "wrong" * (outcome == "withdrawn"))


def answer(candidate: str, at: datetime, number: int, rows: int = 1) -> bytes:
    """A line as a replica writes it."""
    row = {"station": "north", "weekday": 1, "hour": 6, "starts": 4, "pressure": 2.5, "vibration": None}
    ids = [f"{round(at.timestamp() * 1000):012x}{number:016x}{place:04x}" for place in range(rows)]
    line = {
        "request": f"r{number}",
        "time": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "ms": 1.0,
        "model": MODEL,
        "version": str("abc".index(candidate[0]) + 1),
        "release": candidate,
        "key": None,
        "ids": ids,
        "keys": None,
        "rows": [row] * rows,
        "predictions": [{"prediction": 1, "probability": 0.7, "probabilities": {"0": 0.3, "1": 0.7}}] * rows,
    }
    return orjson.dumps(line) + b"\n"


def write(lines: list[bytes]) -> None:
    """Into the log."""
    path = paths.incoming_predictions(MODEL) / BEGIN.date().isoformat() / "aaaa.4000000.170001.1.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(lines))


def test_the_shares_are_those_of_the_log() -> None:
    """At random instants, compacted or not; a request of several rows counts once."""
    generator = random.Random(0)
    asked = []
    for number in range(600):
        at = BEGIN + timedelta(seconds=generator.uniform(0, 1800))
        live_then = "cccc" if at >= BEGIN + timedelta(minutes=20) else "aaaa"
        is_canary = timedelta(minutes=5) < at - BEGIN < timedelta(minutes=10) and generator.random() < 0.2
        asked.append((at, "bbbb" if is_canary else live_then, number))
    write([answer(candidate, at, number, rows=1 + number % 3) for at, candidate, number in asked])
    for compact in (False, True):
        if compact:
            prediction_log.compact(MODEL, BEGIN + timedelta(days=1))
        for _ in range(20):
            since = BEGIN + timedelta(seconds=generator.uniform(0, 1700))
            until = since + timedelta(seconds=generator.uniform(1, 600))
            wanted = Counter(candidate for at, candidate, _ in asked if since <= at < until)
            answered = live.over(MODEL, since, until).answered
            assert {each.candidate: each.requests for each in answered} == wanted
            assert not answered or sum(each.share for each in answered) == pytest.approx(1)


def test_a_span_names_who_was_live_before_it_and_each_change_within() -> None:
    """Also of a canary that was withdrawn."""
    write([answer("aaaa", BEGIN + timedelta(minutes=6), 1), answer("bbbb", BEGIN + timedelta(minutes=7), 2)])
    text = "\n".join(live.over(MODEL, BEGIN + timedelta(minutes=5), BEGIN + timedelta(minutes=25)).lines())
    assert "version 1 (candidate aaaa) live" in text
    assert "version 2 (candidate bbbb) withdrawn: wrong" in text
    assert "version 3 (candidate cccc) live" in text
    assert " 50.00% of 2 requests: version 2 (candidate bbbb)" in text


def test_a_minute_that_nobody_asked_in_has_a_live_release_and_no_shares() -> None:
    """The log says so."""
    quiet = live.over(MODEL, BEGIN + timedelta(minutes=15))
    assert [line["candidate"] for line in quiet.live] == ["aaaa"]
    assert "the log has no request of that time" in list(quiet.lines())[-1]


@pytest.mark.parametrize(("minutes", "version"), [(0, 1), (12, 1), (19.9, 1), (20, 3), (600, 3)])
def test_the_version_of_a_time_is_the_one_that_was_live(minutes: float, version: int) -> None:
    """A withdrawn canary never was; `rollback --to-time` goes there."""
    assert live.version_at(MODEL, BEGIN + timedelta(minutes=minutes)) == version


def test_a_time_that_cannot_be_answered_is_a_mistake_that_says_why() -> None:
    """Before the first line, in the future, an end before the beginning, no time at all."""
    with pytest.raises(Mistake, match="the first release went live 2026-11-03T12:00"):
        live.over(MODEL, BEGIN - timedelta(days=1))
    with pytest.raises(Mistake, match="in the future"):
        live.over(MODEL, datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(Mistake, match="before it begins"):
        live.over(MODEL, BEGIN, BEGIN)
    with pytest.raises(Mistake, match="nothing was live"):
        live.version_at(MODEL, BEGIN - timedelta(seconds=1))
    with pytest.raises(Mistake, match="2013-11-03T12:00Z"):
        live.parse("yesterday")


def test_a_time_without_a_zone_is_utc() -> None:
    """As everything is written down."""
    assert live.parse("2026-11-03T12:00") == live.parse("2026-11-03T13:00+01:00") == BEGIN


def test_the_last_minute_that_can_be_written_is_in_the_future() -> None:
    """Whatever follows it."""
    with pytest.raises(Mistake, match="in the future"):
        live.over(MODEL, live.parse("9999-12-31T23:59:30"))


def test_a_clock_that_went_back_does_not_turn_the_order_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written later went live later: the chain is signed in its order."""
    monkeypatch.setattr(settings, "VAR", tmp_path / "var")
    for minute, candidate in (("10:00", "first"), ("09:59", "second")):
        went_live = {"candidate": candidate, "version": 1 + (candidate == "second"), "outcome": "live"}
        journal.append("clocks", "rollout", went_live, time=f"2026-11-30T{minute}:00.000Z")
    assert live.version_at("clocks", datetime(2026, 11, 30, 12, tzinfo=UTC)) == 2
    assert live.history("clocks").live_at(datetime(2026, 11, 30, 9, 59, 30, tzinfo=UTC)) is None
