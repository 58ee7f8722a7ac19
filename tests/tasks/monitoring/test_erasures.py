"""Rows that are to be forgotten are gone from the log and all that is made of it, killed or not; others are not."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deployments.cli import main
from tasks.ground import paths, settings
from tasks.ground.errors import Mistake
from tasks.journal import journal
from tasks.monitoring.intake import intake, labels
from tasks.monitoring.quality import weekly
from tasks.prediction_log import erasures, log_lines, prediction_log
from tests.tasks.monitoring.asked import LATER, MODEL, NOON, WANTED, ask, deliver, made_of, observe, rows

PROFILE = made_of(rows("2013-01-01", 30, seed=9))


def layout(candidate: str) -> intake.Profile | str:
    """What every release learned from."""
    return PROFILE


def log(compacted: bool) -> None:
    """Four days, of which the last says that it is in 2014; and one more request, which a replica has just written."""
    asked = rows(days=4, per_day=6)
    late = asked["time"] >= "2013-04-04"
    asked.loc[late, "time"] += np.timedelta64(365, "D")
    ask(asked, at_once=3)
    if compacted:
        prediction_log.compact(MODEL, LATER)
    ask(rows("2014-05-01", 1, per_day=3), number=1, answered=LATER + timedelta(hours=2))


def times() -> list[str]:
    """Which days are in the log."""
    return sorted({str(day) for day in prediction_log.read(MODEL, columns=["time"])["time"].to_pandas().dt.date})


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_are_forgotten_by_their_time(world: Path, compacted: bool) -> None:
    """In lines and in Parquet; not those that were answered after the order was given. Doing it again does nothing."""
    log(compacted)
    after = datetime(2014, 1, 1, tzinfo=UTC)
    assert prediction_log.forget(MODEL, after=after, now=LATER) == 6
    assert times() == ["2013-04-01", "2013-04-02", "2013-04-03", "2014-05-01"]
    assert prediction_log.forget(MODEL, after=after, now=LATER) == 0
    assert len(erasures.read(MODEL)) == 1
    prediction_log.compact(MODEL, LATER + timedelta(days=2))
    assert times() == ["2013-04-01", "2013-04-02", "2013-04-03", "2014-05-01"]
    paths.journal(MODEL).unlink()  # it is in no file either
    assert times() == ["2013-04-01", "2013-04-02", "2013-04-03", "2014-05-01"]
    assert prediction_log.forget(MODEL, before=datetime(2013, 4, 2, tzinfo=UTC), now=LATER) == 6


@pytest.mark.parametrize("compacted", [False, True])
def test_what_is_still_written_to_is_read_without_them(
    world: Path, monkeypatch: pytest.MonkeyPatch, compacted: bool
) -> None:
    """As its process lives, its lines cannot be changed."""
    log(compacted)
    monkeypatch.setattr(log_lines, "is_closed", lambda *_: False)
    assert prediction_log.forget(MODEL, after=datetime(2014, 1, 1, tzinfo=UTC), now=LATER) == 6
    assert times() == ["2013-04-01", "2013-04-02", "2013-04-03", "2014-05-01"]
    assert {one.time.year for one in prediction_log.last_requests(MODEL, 100) if one.time.month == 4} == {2013}


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_are_forgotten_by_id_and_by_key(world: Path, compacted: bool) -> None:
    """Of a request of several the others stay, also where it is asked again. The order does not keep the key."""
    log(compacted)
    held = prediction_log.read(MODEL).to_pandas()
    chosen = held["id"].iloc[4], held["row_key"].iloc[10]
    assert prediction_log.forget(MODEL, ids=[chosen[0]], now=LATER) == 1
    assert prediction_log.forget(MODEL, keys=[chosen[1], "nobody's"], now=LATER) == 1
    left = prediction_log.read(MODEL).to_pandas()
    assert sorted(left["id"]) == sorted(held["id"].drop([4, 10]))
    assert chosen[1] not in paths.journal(MODEL).read_text()
    assert sum(len(one.rows) for one in prediction_log.last_requests(MODEL, 100)) == len(left) == len(held) - 2


def test_all_that_is_given_must_hold(world: Path) -> None:
    """A span has two ends; and who says nothing has not said «everything»."""
    log(compacted=False)
    first, last = datetime(2013, 4, 2, tzinfo=UTC), datetime(2013, 4, 3, tzinfo=UTC)
    assert (
        prediction_log.forget(MODEL, after=first, before=last, now=LATER) == 3
    )  # what was asked at midnight is not after it
    with pytest.raises(Mistake, match="say which rows are to be forgotten: --time-after, --time-before"):
        prediction_log.forget(MODEL)


@pytest.mark.parametrize("compacted", [False, True])
def test_the_monitor_is_as_if_the_rows_had_never_been(world: Path, compacted: bool) -> None:
    """Kept rows, day sums, joined labels, requests: the same as of a log without them."""
    log(compacted)
    deliver(rows(days=4, per_day=6), "2013-04")
    build = settings.BUILD / MODEL / "rows"
    labels.join(MODEL, observe(layout), build, "classification", "log_loss")
    assert "2014-04-04" in observe(layout).asked
    prediction_log.forget(MODEL, after=datetime(2014, 1, 1, tzinfo=UTC), now=LATER)
    state = observe(layout)
    joined = labels.join(MODEL, state, build, "classification", "log_loss")
    assert list(state.asked) == list(joined.days) == ["2013-04-01", "2013-04-02", "2013-04-03"]
    assert state.rows == state.releases["aaaa"].rows == 18
    wanted = intake.columns(PROFILE)
    assert set(intake.summaries(MODEL, state, "aaaa", wanted)["starts"].rows) == {6}
    assert len(intake.summaries(MODEL, state, "aaaa", wanted)["starts"].days) == 3
    assert observe(layout) == state
    assert not list((intake.folder(MODEL) / "asked").glob("2014*"))


def test_killed_before_the_files_are_without_them_nobody_reads_them(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order was written first; the next compaction does the rest."""
    log(compacted=True)
    with monkeypatch.context() as patch:
        patch.setattr(prediction_log, "compact", lambda *_: None)
        assert prediction_log.forget(MODEL, after=datetime(2014, 1, 1, tzinfo=UTC), now=LATER) == 6
    assert times()[-1] == "2014-05-01"
    assert erasures.done(MODEL) == 0
    assert prediction_log.compact(MODEL, LATER).erased == 6
    assert str(prediction_log.compact(MODEL, LATER)) == "0 files compacted, 0 rows; 1 are still written to"
    assert erasures.done(MODEL) == 1


def test_the_command_says_what_it_did(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a time without a zone the model's counts."""
    log(compacted=True)
    assert main(["forget", MODEL, "--time-after", "2014-01-01"]) == 0
    assert capsys.readouterr().out.startswith("tiny: 9 rows are forgotten: nothing reads them any more.")
    assert main(["forget", MODEL, "--time-after", "2014-01-01"]) == 0
    assert capsys.readouterr().out == "tiny: no row of the log matches, nothing was changed\n"
    assert main(["forget", MODEL, "--time-after", "tomorrow"]) == 1
    assert "--time-after 'tomorrow' is no time: write 2027-01-31" in capsys.readouterr().err
    order = journal.lines(MODEL, "erasure")[0].what
    assert (order["before"], order["ids"], order["keys"]) == (None, [], [])
    assert NOON.timestamp() * 1000 < order["answered"]


def test_all_that_is_made_of_the_log_is_the_owners_alone(world: Path) -> None:
    """What compaction, erasure and the monitor write is as private as the mask of its process asks for."""
    before = os.umask(0o077)
    try:
        log(compacted=True)
        deliver(rows(days=4, per_day=6), "2013-04")
        prediction_log.forget(MODEL, after=datetime(2014, 1, 1, tzinfo=UTC), now=LATER)
        joined = labels.join(MODEL, observe(layout), settings.BUILD / MODEL / "rows", "classification", "log_loss")
        how = weekly.Measuring("classification", "log_loss", (), 10, 0.95)
        weekly.measured(MODEL, joined, how, lambda _: None)
    finally:
        os.umask(before)
    made = [path for path in settings.VAR.rglob("*") if not path.is_symlink()]
    assert {path.suffix for path in made} >= {".parquet", ".npy", ".json", ".jsonl"}
    assert {oct(path.stat().st_mode & 0o077) for path in made} == {"0o0"}


def test_what_is_kept_of_eight_months_is_bounded_by_the_days_that_are_kept(world: Path) -> None:
    """A look every ten days, of which twenty are kept: at the end there is no more than in the second month."""
    wanted = replace(WANTED, keep_days=20)
    sizes = []
    for n in range(0, 240, 10):
        now = NOON + timedelta(days=n)
        asked = rows("2013-04-01", 1, per_day=2)
        ask(asked.assign(time=asked["time"] + pd.Timedelta(days=n), id=asked["id"] + f"-{n}"), number=n, answered=now)
        prediction_log.compact(MODEL, now + timedelta(hours=1))
        prediction_log.sweep(MODEL, 20, 10**9, now + timedelta(hours=1))
        state = intake.ingest(MODEL, wanted, layout, now + timedelta(hours=1))
        labels.join(MODEL, state, settings.BUILD / MODEL / "rows", "classification", "log_loss")
        kept = [path for path in settings.VAR.rglob("*") if path.is_file() and path.parent.name != "days"]
        kept = [
            path for path in kept if path.parent.name != "_delta_log"
        ]  # goes by this machine's clock: test_log_table
        sizes.append((len(kept), sum(path.stat().st_size for path in kept)))
    assert max(count for count, _ in sizes[16:]) <= max(count for count, _ in sizes[4:12])
    assert max(size for _, size in sizes[16:]) <= 1.05 * max(size for _, size in sizes[4:12])
