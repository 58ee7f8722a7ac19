"""Alarms: one per cause, told once when they open and once when they are over, and silent while nothing is wrong."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.cli import ATTENTION, main
from tasks.ground import files
from tasks.ground.errors import Mistake
from tasks.journal import journal
from tasks.monitoring import alarms
from tasks.monitoring.intake import intake, service_counts
from tasks.monitoring.quality import degradation
from tasks.prediction_log import error_counts
from tests.tasks.monitoring.asked import LATER, MODEL, WANTED, ask, rows

APRIL = date(2013, 4, 1)


def found(key: str = "2013-04-09-temp-v3", **more: Any) -> alarms.Deviation:
    """A drift of temp and dewp that was noticed on 9 April."""
    said = {
        "kind": "drift",
        "what": "temp, dewp",
        "text": "temp is 9 °F higher since 2013-04-02",
        "effect": 0.5,
        "since": date(2013, 4, 2),
        "opened": date(2013, 4, 9),
        "columns": ("temp", "dewp"),
        "release": "aaaa",
    }
    return alarms.Deviation(**{"key": key, **said, **more})


def look(
    before: list[alarms.Alarm], *now: alarms.Deviation, live: str = "aaaa", since: int = 1, until: int = 30
) -> list[alarms.Alarm]:
    """What is known after a look at these days of April."""
    days = (APRIL + timedelta(days=since - 1), APRIL + timedelta(days=until - 1))
    return alarms.merged(before, now, live, days, "log_loss measured: 0.5, promised 0.4")


def told(known: list[alarms.Alarm]) -> list[alarms.Alarm]:
    """As if everybody had been told."""
    return [{**one, "told": {"opened": True, "closed": bool(one["closed"])}} for one in known]


def waiting(known: list[alarms.Alarm]) -> list[tuple[str, str]]:
    """What is to be told."""
    return [(one["key"], what) for one, what in alarms.unannounced(known)]


# ── one per cause ─────────────────────────────────────────────────────────────────────────────────


def test_an_alarm_is_told_once_however_many_windows_it_lasts() -> None:
    """And says what it does to the model as that is known now."""
    known = look([], found())
    assert waiting(known) == [("2013-04-09-temp-v3", "opened")]
    for _ in range(5):
        known = look(told(known), found())
        assert waiting(known) == []
    (one,) = known
    assert one["text"] == "temp is 9 °F higher since 2013-04-02; log_loss measured: 0.5, promised 0.4"
    assert (one["since"], one["opened"], one["closed"]) == ("2013-04-02T00:00:00Z", "2013-04-09T00:00:00Z", None)


def test_its_end_is_told_once() -> None:
    """With the day on which it was over."""
    known = look(told(look([], found())), found(closed=date(2013, 4, 20)))
    assert waiting(known) == [("2013-04-09-temp-v3", "closed")]
    assert known[0]["text"] == "temp is 9 °F higher since 2013-04-02; over since 2013-04-20"
    assert waiting(look(told(known), found(closed=date(2013, 4, 20)))) == []


def test_what_was_over_before_anybody_looked_is_told_as_that() -> None:
    """Of a month that came at once, nobody needs to hear both."""
    assert waiting(look([], found(closed=date(2013, 4, 20)))) == [("2013-04-09-temp-v3", "closed")]


def test_rows_that_come_late_may_tell_another_beginning_of_the_same_alarm() -> None:
    """It keeps the key that people were told, and its acknowledgement."""
    known = [{**one, "acknowledged": {"at": "…", "note": "seen"}} for one in told(look([], found()))]
    earlier = found("2013-04-05-dewp-v3", opened=date(2013, 4, 5), columns=("dewp",), what="dewp")
    (one,) = look(known, earlier)
    assert (one["key"], one["opened"], one["what"]) == ("2013-04-09-temp-v3", "2013-04-05T00:00:00Z", "dewp")
    assert one["acknowledged"] == {"at": "…", "note": "seen"}
    assert waiting([one]) == []


@pytest.mark.parametrize("closed", [None, date(2013, 4, 29)])
def test_since_when_it_is_open_stays_when_the_first_days_are_forgotten(closed: date | None) -> None:
    """What is kept of production begins later and later; the alarm does not."""
    known = look([], found())
    for first in (10, 15, 20):
        began = {"since": APRIL + timedelta(days=first - 1), "opened": APRIL + timedelta(days=first)}
        (known,) = [look(known, found(f"later-{first}", closed=closed, **began), since=first)]
        (one,) = known
        assert (one["since"], one["opened"]) == ("2013-04-02T00:00:00Z", "2013-04-09T00:00:00Z")


def test_another_cause_is_another_alarm() -> None:
    """Other columns, another time, or another kind."""
    known = told(look([], found()))
    others = [
        found("2013-04-12-carrier-v3", columns=("carrier",)),
        found("2013-04-12-log_loss-v3", kind="quality"),
    ]
    assert len(look(known, found(), *others)) == 3
    over = told(look(known, found(closed=date(2013, 4, 20))))
    again = found("2013-05-02-temp-v3", since=date(2013, 5, 1), opened=date(2013, 5, 2))
    assert waiting(look(over, found(closed=date(2013, 4, 20)), again)) == [("2013-05-02-temp-v3", "opened")]


def test_a_release_that_no_longer_serves_takes_its_alarms_with_it() -> None:
    """The new one is held against what it learned itself."""
    known = look(told(look([], found())), live="bbbb", until=28)
    assert waiting(known) == [("2013-04-09-temp-v3", "closed")]
    assert known[0]["closed"] == "2013-04-28T00:00:00Z"
    assert (
        known[0]["text"] == "temp is 9 °F higher since 2013-04-02; over: the release that it is about is no longer live"
    )
    # and when it is put back, so that it is wrong again, people are told again
    back = look(told(known), found())
    assert (back[0]["times"], waiting(back)) == (2, [("2013-04-09-temp-v3", "opened")])


def test_what_is_no_longer_seen_is_over() -> None:
    """Rows that came late may tell that there was nothing."""
    (one,) = look(told(look([], found())))
    assert one["text"].endswith("; over: the data known by now do not show it")
    assert look([one]) == [one]


def test_so_many_that_are_over_are_remembered() -> None:
    """All that are open, always."""
    many = [found(f"{n:04d}", columns=(f"c{n}",), closed=date(2013, 4, 9)) for n in range(alarms.KEPT + 20)]
    known = look([], found(), *many)
    assert len(known) == alarms.KEPT + 1
    assert "2013-04-09-temp-v3" in {one["key"] for one in known}


# ── acknowledged ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def model(world: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model with an alarm, and a report that has it."""
    alarms.update(MODEL, [found()], "aaaa", (APRIL, APRIL))
    report = {"model": MODEL, "alarms": alarms.reported(alarms.read(MODEL))}
    files.write_json(intake.folder(MODEL) / "report.json", report)
    return MODEL


def test_a_person_acknowledges_an_alarm_at_a_terminal(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The report has it at once, and a later look leaves it."""
    assert main(["acknowledge", model, "2013-04-09-temp-v3", "--note", "the sensor is\nbeing replaced"]) == 0
    assert "acknowledged 20" in capsys.readouterr().out
    report = files.read_json(intake.folder(model) / "report.json")
    assert report["alarms"][0]["acknowledged"]["note"] == "the sensor is being replaced"
    alarms.update(model, [found(text="temp is 10 °F higher since 2013-04-02")], "aaaa", (APRIL, APRIL))
    assert main(["alarms", model]) == ATTENTION
    said = capsys.readouterr().out
    assert said.startswith("2013-04-09-temp-v3  drift, open since 2013-04-09\n  temp is 10 °F higher")
    assert said.endswith(": the sensor is being replaced\n")
    opened, acknowledged = journal.lines(model, "alarm", "acknowledged")
    assert (opened.what["key"], opened.what["change"]) == ("2013-04-09-temp-v3", "opened")
    assert (acknowledged.what, acknowledged.why) == ({"key": "2013-04-09-temp-v3"}, "the sensor is being replaced")


def test_an_alarm_that_is_not_there_is_a_mistake_with_a_hint(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the one that was meant."""
    with pytest.raises(Mistake, match=r"tiny has no alarm '2013-04-09-tmp-v3'; did you mean '2013-04-09-temp-v3'\?"):
        alarms.acknowledge(model, "2013-04-09-tmp-v3")
    assert main(["acknowledge", model, "2013-04-09-tmp-v3"]) == 1
    assert "`evergreen alarms tiny` lists them" in capsys.readouterr().err


def test_what_was_told_is_written_down(model: str) -> None:
    """So that the next look does not tell it again; the report says so as well."""
    alarms.mark_announced(model, "2013-04-09-temp-v3", "opened")
    assert alarms.unannounced(alarms.read(model)) == []
    (shown,) = alarms.reported(alarms.read(model))
    assert shown["told"] is True
    assert list(shown) == [*alarms.REPORTED, "told"]
    assert json.dumps(shown)


def test_only_open_alarms_are_listed_unless_all_are_asked_for(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No alarm is a line, too."""
    alarms.update(model, [found(closed=date(2013, 4, 20))], "aaaa", (APRIL, APRIL))
    assert main(["alarms", model]) == 0
    assert capsys.readouterr().out == "tiny: no alarm is open\n"
    assert main(["alarms", model, "--all"]) == 0
    assert "over since 2013-04-20" in capsys.readouterr().out


# ── service ───────────────────────────────────────────────────────────────────────────────────────


def test_requests_that_take_too_long_are_one_alarm_from_the_first_day_to_the_first_good_one() -> None:
    """Days with few requests say nothing."""

    def day(ms: float, count: int = 100) -> dict[str, Any]:
        name = str(round(np.log(ms) / service_counts.MS_STEP))
        return {"requests": count, "rows": count, "ms": {name: count}, "single": {name: count}}

    days = {"2013-04-01": day(20), "2013-04-02": day(80), "2013-04-03": day(5, 3), "2013-04-04": day(90)}
    (one,) = alarms.of_service(days, date(2013, 4, 3), limit=50, fewest=50)
    assert (one.opened, one.closed) == (date(2013, 4, 2), None)
    # whatever stands in the log of days to come, this day is not over
    assert alarms.of_service({**days, "2199-01-01": day(1, 1)}, date(2013, 4, 1), limit=50, fewest=50) == []
    assert one.text == "a request of one row takes 79.5 ms (median) on 2013-04-02, 50 ms are allowed"
    (one,) = alarms.of_service({**days, "2013-04-05": day(20)}, date(2013, 4, 5), limit=50, fewest=50)
    assert one.closed == date(2013, 4, 5)


def test_requests_without_an_answer_are_an_alarm() -> None:
    """More than one in a hundred, on a day that is over; refused ones are the client's own."""

    def day(requests: int, **without: int) -> dict[str, Any]:
        return {"requests": requests, "rows": requests, "ms": {}, "single": {}, **without}

    days = {"2013-04-01": day(1000, refused=500, failed=9), "2013-04-02": day(0, shed=30, failed=40)}
    days |= {"2013-04-03": day(0, failed=30), "2013-04-04": day(500)}
    last = date(2013, 4, 3)
    assert alarms.of_service(days, last, limit=50, fewest=50)[0].closed is None  # one quiet day says nothing
    (one,) = alarms.of_service(days, date(2013, 4, 4), limit=50, fewest=50)
    assert (one.key, one.what, one.closed) == ("2013-04-02-unanswered", "unanswered", date(2013, 4, 4))
    assert one.text == "70 requests (100.0%) were shed or failed on 2013-04-02, 1% are allowed"


def test_a_replay_of_old_requests_raises_no_alarm(world: Path) -> None:
    """Answers count on the day on which they are given, as what got none does: whatever day clients speak of."""
    ask(rows("2026-11-20", 1, per_day=1000), number=1)
    ask(rows("2013-04-01", 20, per_day=200), number=2)
    error_counts.add(MODEL, {("2026-11-21", "shed"): 45}, 90)
    state = intake.ingest(MODEL, WANTED, lambda _: "nobody knows", LATER)
    service = intake.service(MODEL, state)
    assert {day: (said["requests"], said["shed"]) for day, said in service.items()} == {"2026-11-21": (5000, 45)}
    assert alarms.of_service(service, date(2026, 11, 21), limit=50, fewest=50) == []


# ── quality ───────────────────────────────────────────────────────────────────────────────────────


def losses(days: int, seed: int, per_day: int = 40, mean: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """The loss of each row, and its day: days have a level of their own, and each goes on a little into the next."""
    rng = np.random.default_rng(seed)
    level = np.zeros(days)
    for day in range(days):
        level[day] = 0.4 * (level[day - 1] if day else 0) + rng.normal(0, 0.05)
    of = np.repeat(np.arange(days), per_day)
    return np.maximum(mean + level[of] + rng.normal(0, 0.4, len(of)), 0), of


def before(seed: int, days: int = 30) -> degradation.HoldoutLosses:
    """A holdout of a month."""
    values, of = losses(days, seed)
    half = 2 * values.std() / np.sqrt(len(values))
    promised = {"value": values.mean(), "low": values.mean() - half, "high": values.mean() + half}
    return degradation.HoldoutLosses.of(values, of, promised)


def stream(
    days: int, seed: int, change: float = 0.0, since: int = 0, until: int = 10_000
) -> list[degradation.DayLosses]:
    """Days of production, of which some have a higher loss."""
    values, of = losses(days, seed)
    values = values + np.where((of >= since) & (of < until), change, 0.0)
    sums, counts, squares = np.bincount(of, values), np.bincount(of), np.bincount(of, values**2)
    names = [(APRIL + timedelta(days=day)).isoformat() for day in range(days)]
    return list(map(degradation.DayLosses, names, sums.tolist(), counts.tolist(), squares.tolist()))


def test_a_model_that_is_as_good_as_promised_raises_no_alarm_over_a_year() -> None:
    """In at most one of twenty years, however often it was looked at."""
    alarmed = sum(bool(degradation.find(before(seed), stream(364, seed + 1000))) for seed in range(60))
    assert alarmed <= 3


def test_a_model_that_became_worse_is_noticed_and_told_since_when() -> None:
    """Within weeks, as one alarm; and that it was over, when it is."""
    lives = [degradation.find(before(n), stream(200, n + 5000, change=0.3, since=40, until=80)) for n in range(20)]
    assert [len(found) for found in lives] == [1] * 20
    opened = sorted((found[0].opened - APRIL).days - 40 for found in lives)
    assert (opened[0] >= 0, opened[10] <= 16, opened[-1] <= 30) == (True, True, True)
    assert sum(abs((found[0].since - APRIL).days - 40) <= 7 for found in lives) >= 17
    # some holdouts were better than the model is: it is never again as good as that
    closed = sorted((found[0].closed - APRIL).days - 80 for found in lives if found[0].closed)
    assert (len(closed) >= 17, closed[0] > 0, closed[10] <= 45) == (True, True, True)


def test_the_alarm_of_a_worse_model_says_by_how_much() -> None:
    """Held against what was promised, over how many labels, and since when."""
    (one,) = degradation.find(before(3), stream(80, 5003, change=0.3, since=40))
    (alarm,) = alarms.of_quality([one], "log_loss", {"value": 0.5, "low": 0.48, "high": 0.52}, "aaaa", 3)
    assert alarm.key == f"{one.opened}-log_loss-v3"
    assert alarm.text.startswith(f"log_loss is {one.loss:.4g} over {one.labels:,} labels since {one.since}, ")
    assert alarm.text.endswith("% above the promised 0.5 (0.48 to 0.52)")
    assert alarm.effect == pytest.approx(one.loss / 0.5 - 1, abs=1e-6)


def test_a_model_that_became_better_is_no_alarm() -> None:
    """As plain as that may be."""
    assert degradation.find(before(1), stream(120, 2, change=-0.3, since=40)) == []


def test_no_labels_are_no_alarm() -> None:
    """Nor are as few as say nothing."""
    assert degradation.find(before(1), []) == []
    few = [degradation.DayLosses("2013-04-01", 40.0, degradation.FEWEST - 1)]
    assert degradation.find(before(1), few) == []
