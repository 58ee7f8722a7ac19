"""Each logged row is taken in once, whatever is killed or compacted; and its days are laid out as its release's own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.ground import files, paths
from tasks.ground.errors import RegistryUnavailable
from tasks.modelling import daily_summaries, profile
from tasks.modelling.rows import row_hashes
from tasks.monitoring.drift import drift
from tasks.monitoring.intake import intake, local_time, service_counts
from tasks.prediction_log import error_counts, prediction_log
from tests.tasks.monitoring.asked import (
    FEATURES,
    LATER,
    MODEL,
    NOON,
    WANTED,
    ask,
    made_of,
    observe,
    rows,
    until_unkilled,
)

LEARNED = rows("2013-01-01", 60, seed=9)
PROFILE = made_of(LEARNED)


def layout(candidate: str) -> intake.Profile | str:
    """Every release learned from the same rows, but for `bbbb`, which learned from others."""
    return made_of(rows("2012-01-01", 40, seed=4)) if candidate == "bbbb" else PROFILE


def kept(state: intake.IntakeState) -> pd.DataFrame:
    """Every row that was taken in."""
    paths = [path for day in state.asked for path in intake.files_of_day(MODEL, state, day)]
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True).sort_values("id")


def summary(state: intake.IntakeState, candidate: str) -> bytes:
    """The bytes of a release's day summaries."""
    made = intake.profile(MODEL, state, candidate)
    assert made is not None
    wanted = intake.columns(made, state.releases[candidate].new)
    return daily_summaries.to_bytes(intake.summaries(MODEL, state, candidate, wanted))


def expected(asked: pd.DataFrame, made: dict[str, Any] = PROFILE) -> bytes:
    """The day summaries of rows, made at once."""
    wanted = intake.columns(made)
    del wanted["label"]
    return daily_summaries.to_bytes(daily_summaries.summarise(asked, wanted))


# ── once ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_row_is_kept_with_what_was_answered_and_summarised_by_day(world: Path) -> None:
    """By the day that the client says; the summaries are those of all rows at once."""
    asked = rows()
    ask(asked, at_once=5)
    state = observe(layout)
    found = kept(state)
    assert list(found) == [*intake.COLUMNS, "slice:station", "prediction", "p_0", "p_1"]
    assert sorted(found["hash"]) == sorted(row_hashes(asked["id"]))
    both = found.merge(asked.assign(hash=row_hashes(asked["id"])), on="hash")
    assert len(both) == len(asked)
    assert (both["p_1_x"] == both["p_1_y"]).all()
    assert state.rows == len(asked) == state.releases["aaaa"].rows
    # a request of five rows has one time, that of its first
    times = asked.assign(time=asked.groupby(np.arange(len(asked)) // 5)["time"].transform("first"))
    assert list(state.asked) == sorted(set(times["time"].dt.date.astype(str)))
    assert summary(state, "aaaa") == expected(times)


@pytest.mark.parametrize("compacted", [False, True])
def test_looks_add_up_to_one_look(world: Path, compacted: bool) -> None:
    """What was asked between two looks is all that the second one takes in; compacting makes no difference."""
    asked = rows()
    for number, part in enumerate(np.array_split(np.arange(len(asked)), 5)):
        ask(asked.iloc[part], number=number, at_once=7)
        if compacted and number % 2:
            prediction_log.compact(MODEL, LATER)
        several = observe(layout)
    assert several.batch == 5
    one_by_one, counted = summary(several, "aaaa"), intake.service(MODEL, several)
    shutil.rmtree(intake.folder(MODEL))
    at_once = observe(layout)
    assert at_once.batch == 1
    assert summary(at_once, "aaaa") == one_by_one
    assert intake.service(MODEL, at_once) == counted
    assert at_once.rows == several.rows == len(asked)


def test_nothing_new_changes_nothing(world: Path) -> None:
    """Not a file is written, and nobody is asked for a profile."""
    ask(rows())
    observe(layout)
    before = {path: path.stat().st_mtime_ns for path in intake.folder(MODEL).rglob("*")}
    observe(lambda _: pytest.fail("was asked"))
    assert {path: path.stat().st_mtime_ns for path in intake.folder(MODEL).rglob("*")} == before


def test_what_is_not_settled_is_left_for_the_next_look(world: Path) -> None:
    """A request that was answered a moment ago may have been asked twice."""
    asked = rows(days=4)
    ask(asked)
    assert observe(layout, now=NOON + timedelta(seconds=1)).rows == 0
    assert observe(layout).rows == len(asked)


# ── killed ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_killed_between_any_two_writes_it_goes_on_without_loss_or_doubling(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a kill leaves, the next look ends in the same bytes as if there had been none."""
    monkeypatch.setattr(intake, "MANY", 2)  # so that days are merged too
    asked = rows(days=3)
    ask(asked.iloc[:40], number=0)
    observe(layout)
    ask(asked.iloc[20:], number=1)  # some are asked again
    ask(asked.iloc[:10], "bbbb", number=2)
    before = shutil.copytree(intake.folder(MODEL), world / "before")
    observe(layout)
    wanted = files.tree(intake.folder(MODEL))
    assert until_unkilled(lambda: observe(layout), before, wanted, monkeypatch) > 12


def test_a_registry_that_is_gone_costs_no_row(world: Path) -> None:
    """Nothing is taken in; the next look takes it all."""
    ask(rows(days=3))

    def gone(candidate: str) -> intake.Profile:
        raise RegistryUnavailable("locked")

    with pytest.raises(RegistryUnavailable):
        observe(gone)
    assert observe(layout).rows == len(rows(days=3))


# ── releases and features ─────────────────────────────────────────────────────────────────────────


def test_two_releases_in_one_log_are_told_apart(world: Path) -> None:
    """Each is summarised by its own profile, as if the other had not been there."""
    asked = rows()
    ask(asked.iloc[::2], "aaaa")
    ask(asked.iloc[1::3], "bbbb")
    state = observe(layout)
    assert summary(state, "aaaa") == expected(asked.iloc[::2])
    assert summary(state, "bbbb") == expected(asked.iloc[1::3], layout("bbbb"))  # type: ignore[arg-type]


def test_of_two_classes_the_same_one_is_summarised_at_every_look(world: Path) -> None:
    """The profile of the first look is in the order of the classes, that of later ones in the order of their texts."""
    answers = LEARNED[["p_0", "p_1"]].set_axis(["p_2", "p_10"], axis=1)
    made = profile.reference_profile(LEARNED, FEATURES, answers)
    asked = rows(days=14)
    for number, part in enumerate((asked[: 24 * 7], asked[24 * 7 :])):
        answered = NOON + timedelta(hours=number)
        ask(part, classes=("2", "10"), number=number, answered=answered)
        state = observe(lambda _: made, answered + timedelta(hours=1))
    wanted = intake.columns(made)
    assert len(intake.summaries(MODEL, state, "aaaa", wanted)["p_2"].days) == 14


def test_a_release_that_nobody_knows_is_kept_and_named(world: Path) -> None:
    """Its rows wait for labels as the others; that they are not summarised has its reason beside it."""
    asked = rows(days=3)
    ask(asked, "cccc")
    state = observe(lambda candidate: f"the registry does not know release {candidate}")
    assert state.rows == len(asked)
    assert state.releases["cccc"].days is None
    assert state.releases["cccc"].lacking == "the registry does not know release cccc"
    assert intake.profile(MODEL, state, "cccc") is None


@pytest.mark.parametrize(
    ("names", "moved", "text"),
    [
        ([*FEATURES, "brand"], "brand", "brand was not in the training rows: there is nothing to compare it with"),
        (
            [name for name in FEATURES if name != "pressure"],
            "pressure",
            "pressure is missing in 100.0% of rows, before in 0.0%, since 2013-04-01",
        ),
    ],
)
def test_a_feature_that_is_new_or_gone_is_named(world: Path, names: list[str], moved: str, text: str) -> None:
    """The others are as in training."""
    ask(rows().assign(brand=7.0), features=names)
    state = observe(layout)
    wanted = intake.columns(PROFILE, state.releases["aaaa"].new)
    report = drift.detect(
        wanted, daily_summaries.summarise(LEARNED, wanted), intake.summaries(MODEL, state, "aaaa", wanted)
    )
    assert report.findings[moved].text == text
    assert {one.status for one in report.findings.values() if one.name != moved and one.role == "feature"} == {"ok"}


# ── kept, and for how long ────────────────────────────────────────────────────────────────────────


def test_a_day_of_many_files_gets_one(world: Path) -> None:
    """A look a quarter of an hour makes a hundred a day; no row is lost by it."""
    asked = rows(days=1, per_day=60)
    for number in range(20):
        ask(asked.iloc[number * 3 : number * 3 + 3], number=number)
        state = observe(layout)
        assert len(state.asked["2013-04-01"]) < intake.MANY
    assert sorted(kept(state)["hash"]) == sorted(row_hashes(asked["id"]))
    there = {path.name for path in intake.folder(MODEL).glob("asked/*/*.parquet")}
    assert there == {f"{one.name}.parquet" for one in state.asked["2013-04-01"]}


def test_what_was_answered_too_long_ago_is_forgotten(world: Path) -> None:
    """As the log itself is, by when it was answered and not by what a client says; the days' summaries stay."""
    ask(rows("2013-04-01", 3), answered=NOON - timedelta(days=80))
    ask(rows("2013-05-01", 3), number=1)
    state = observe(layout)
    assert len(state.asked) == 6
    before = summary(state, "aaaa")
    after = observe(layout, now=LATER + timedelta(days=11))
    assert sorted(after.asked) == ["2013-05-01", "2013-05-02", "2013-05-03"]
    assert not (intake.folder(MODEL) / "asked" / "2013-04-01").exists()
    assert summary(after, "aaaa") == before
    assert observe(layout, now=LATER + timedelta(days=200)).releases == {}


def test_a_row_that_is_asked_again_is_known_whenever_that_is(world: Path) -> None:
    """In the same file, in another batch, on an earlier day: its newest time is kept."""
    asked = rows(days=2, per_day=4)
    ask(asked, number=0)
    observe(layout)
    later = asked.iloc[:3].assign(time=asked["time"].iloc[:3] + pd.Timedelta(days=3))
    earlier = asked.iloc[5:6].assign(time=asked["time"].iloc[5:6] - pd.Timedelta(days=9))
    ask(pd.concat([later, earlier]), number=1)
    ask(asked.iloc[6:7], "bbbb", number=2)  # another release: that is no repetition
    ask(asked.iloc[7:], number=3, keys=False)
    state = observe(layout)
    keys, times = intake.repeated(MODEL, state)
    assert len(keys) == 4
    assert sorted(times.tolist()) == sorted(pd.concat([later, asked.iloc[5:6]])["time"].astype("int64"))
    assert set(state.repeated) == {"2013-04-01", "2013-04-02", "2013-04-04", "2013-03-24"}


@pytest.mark.slow
def test_keys_that_were_asked_again_are_forgotten_with_their_rows(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of them is bounded, over 20 days; and those that are kept still say which row counts."""
    wanted, counts = replace(WANTED, keep_days=7), []
    for n in range(20):
        asked, now = rows("2013-04-01", 1, per_day=12), NOON + timedelta(days=n)
        asked = asked.assign(id=asked["id"] + f"-{n}", time=asked["time"] + pd.Timedelta(days=n))
        ask(asked, number=2 * n, answered=now)
        intake.ingest(MODEL, wanted, layout, now + timedelta(hours=1))
        ask(asked, number=2 * n + 1, answered=now + timedelta(hours=2))
        before = intake.read(MODEL)
        kept_before = shutil.copytree(intake.folder(MODEL), world / "before", dirs_exist_ok=n > 0)
        state = intake.ingest(MODEL, wanted, layout, now + timedelta(hours=3))
        keys, times = intake.repeated(MODEL, state)
        counts.append(len(keys))
        assert set(times // local_time.DAY) == {int(np.datetime64(day, "D").astype(int)) for day in state.asked}
        if n < 19:
            shutil.rmtree(kept_before)
    assert counts[-1] == max(counts) == 12 * len(state.asked)
    assert len(state.asked) == 7
    # nothing is asked any more: the last keys go with the last rows
    assert len(before.asked) == 8  # the hour at which the first of these was answered was not reached
    later = intake.ingest(MODEL, wanted, layout, now + timedelta(days=5))
    assert (len(intake.repeated(MODEL, later)[0]), len(later.asked)) == (12 * 3, 3)
    tree = files.tree(intake.folder(MODEL))

    def look() -> None:
        intake.ingest(MODEL, wanted, layout, now + timedelta(days=5))

    assert until_unkilled(look, kept_before, tree, monkeypatch) > 3
    assert intake.ingest(MODEL, wanted, layout, now + timedelta(days=30)).again is None
    assert not list(intake.folder(MODEL).glob("again.*"))


def test_a_key_stays_while_an_older_day_has_it(world: Path) -> None:
    """A client may say that an answer of today is of long ago: that one does not count, whatever was forgotten."""
    asked = rows("2013-04-01", 1, per_day=4)
    ask(asked.assign(time=asked["time"] + pd.Timedelta(days=9)), number=0, answered=NOON - timedelta(days=80))
    ask(asked.iloc[:3], number=1)
    known = intake.repeated(MODEL, observe(layout))
    after = observe(layout, now=LATER + timedelta(days=11))
    assert list(after.asked) == ["2013-04-01"]
    assert [one.tolist() for one in intake.repeated(MODEL, after)] == [one.tolist() for one in known]
    assert len(known[0]) == 3


# ── the model's own days ──────────────────────────────────────────────────────────────────────────


def at_work(first: str, count: int, seed: int) -> pd.DataFrame:
    """Rows of working hours only, as flights are: from 5 to 23, by the clock of the place."""
    made = rows(first, count, seed=seed, per_day=48)
    hours = np.random.default_rng(seed + 5).integers(5, 24, len(made))
    time = made["time"].dt.normalize() + pd.to_timedelta(hours, unit="h")
    return made.assign(time=time, hour=hours.astype(float), weekday=time.dt.day_of_week + 1.0)


def in_zone(zone: str, now: timedelta = timedelta()) -> intake.IntakeState:
    """One look, by the days of a zone."""
    return intake.ingest(MODEL, replace(WANTED, timezone=zone), layout, LATER + now)


def in_utc(asked: pd.DataFrame, zone: str) -> pd.DataFrame:
    """As the log has them: rows whose times are of this zone."""
    return asked.assign(time=asked["time"].dt.tz_localize(zone).dt.tz_convert("UTC").dt.tz_localize(None))


@pytest.mark.parametrize("zone", ["UTC", "Etc/GMT+5", "Etc/GMT-9", "America/New_York", "Asia/Tokyo"])
def test_the_same_distribution_is_no_drift_wherever_a_model_is(world: Path, zone: str) -> None:
    """The days are its own; the log's would hold two weekdays each."""
    learned, asked = at_work("2013-01-01", 90, seed=9), at_work("2013-04-01", 60, seed=3)
    made = made_of(learned)
    ask(in_utc(asked, zone))

    def report(by: str) -> drift.DriftReport:
        shutil.rmtree(intake.folder(MODEL), ignore_errors=True)
        state = intake.ingest(MODEL, replace(WANTED, timezone=by), lambda _: made, LATER)
        wanted = intake.columns(made)
        del wanted["label"]
        stream = intake.summaries(MODEL, state, "aaaa", wanted)
        return drift.detect(wanted, daily_summaries.summarise(learned, wanted), stream)

    assert not report(zone).open
    assert len(report(zone).days) == 60
    if zone != "UTC":
        assert "weekday" in report("UTC").open[0].text  # what is guarded against here


def test_an_hour_before_midnight_is_of_the_day_that_ends(world: Path) -> None:
    """By the clock of the zone, in winter as in summer; rows and summaries agree. Rows are kept in UTC."""
    local = ["2013-01-05 23:00", "2013-01-06 00:10", "2013-07-05 23:00", "2013-07-06 00:10"]
    asked = rows(days=1, per_day=4).assign(time=pd.to_datetime(local))
    ask(in_utc(asked, "America/New_York"))
    state = in_zone("America/New_York")
    named = sorted({time[:10] for time in local})
    assert list(state.asked) == named
    times = kept(state)["time"].dt.tz_convert("America/New_York").dt.tz_localize(None)
    assert sorted(times.astype(str)) == [f"{time}:00" for time in local]
    assert summary(state, "aaaa") == expected(asked)


def test_a_day_of_23_or_25_hours_is_one_day(world: Path) -> None:
    """When clocks are put forward and back: every hour from midnight to midnight is in it, and none is lost."""
    spring = pd.date_range("2013-03-10 05:00", periods=23, freq="h")  # midnight of New York is 05:00 UTC, then 04:00
    autumn = pd.date_range("2013-11-03 04:00", periods=25, freq="h")
    asked = rows(days=2, per_day=24)
    ask(asked.assign(time=[*spring, *autumn]), number=0)
    state = in_zone("America/New_York")
    assert {day: sum(one.rows for one in found) for day, found in state.asked.items()} == {
        "2013-03-10": 23,
        "2013-11-03": 25,
    }


def test_how_the_service_is_goes_by_the_day_of_the_answer_in_the_zone_of_the_model(world: Path) -> None:
    """Whatever day the client speaks of."""
    ask(rows("2013-04-01", 3), answered=datetime(2026, 11, 21, 3, tzinfo=UTC))
    found = intake.service(MODEL, in_zone("America/New_York"))
    assert {day: said["requests"] for day, said in found.items()} == {"2026-11-20": 72}


@pytest.mark.slow
def test_another_zone_begins_anew_killed_or_not(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is read again from its beginning: as if that had been the zone from the start. Also back again."""
    asked = at_work("2013-04-01", 3, seed=3)
    ask(in_utc(asked.iloc[:100], "Asia/Tokyo"))
    in_zone("UTC")
    ask(in_utc(asked.iloc[90:], "Asia/Tokyo"), number=1)
    before = in_zone("UTC")
    known = shutil.copytree(intake.folder(MODEL), world / "before")
    after = in_zone("Asia/Tokyo")
    assert (after.timezone, after.batch, after.rows) == ("Asia/Tokyo", before.batch + 1, before.rows)
    assert list(after.asked) == ["2013-04-01", "2013-04-02", "2013-04-03"] != list(before.asked)
    tree = files.tree(intake.folder(MODEL))
    assert until_unkilled(lambda: in_zone("Asia/Tokyo"), known, tree, monkeypatch) > 5
    found, service = summary(after, "aaaa"), intake.service(MODEL, after)
    assert in_zone("Asia/Tokyo") == after
    back = in_zone("UTC")
    assert (list(back.asked), back.rows) == (list(before.asked), before.rows)
    shutil.rmtree(intake.folder(MODEL))
    at_once = in_zone("Asia/Tokyo")
    assert (summary(at_once, "aaaa"), intake.service(MODEL, at_once)) == (found, service)


def test_another_zone_with_nothing_in_the_log_is_noted(world: Path) -> None:
    """What was kept goes: it is of other days."""
    ask(rows(days=2))
    in_zone("UTC")
    shutil.rmtree(paths.predictions(MODEL))
    assert in_zone("Asia/Tokyo") == intake.IntakeState(batch=1, timezone="Asia/Tokyo", layout=intake.LAYOUT)
    assert [one.name for one in intake.folder(MODEL).rglob("*") if one.is_file()] == ["state.json"]


# ── times that cannot be ──────────────────────────────────────────────────────────────────────────


def at(asked: pd.DataFrame, *times: str) -> pd.DataFrame:
    """The first rows, said to be asked at these times."""
    some = asked.head(len(times))
    return some.assign(time=np.array(times, dtype="datetime64[us]"), id=[f"k{i}" for i in range(len(times))])


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
@pytest.mark.parametrize("compacted", [False, True])
def test_a_row_that_is_asked_after_its_answer_counts_for_nothing(world: Path, zone: str, compacted: bool) -> None:
    """Nor does one of a clock that was never set. A clock that is minutes ahead is heard, and so is an old request."""
    wrong = ["2199-01-01T12:00", "9999-12-31T23:59", "2026-11-21T12:06", "1970-01-01T00:00", "0001-01-01"]
    well = ["2026-11-21T12:04", "2013-04-01T12:00", "1987-06-05T12:00"]
    ask(at(rows(), *wrong, *well), at_once=1)
    if compacted:
        prediction_log.compact(MODEL, LATER)
    state = intake.ingest(MODEL, replace(WANTED, timezone=zone), layout, LATER)
    assert {day[:4] for day in state.asked} == {"1987", "2013", "2026"}
    assert state.rows == state.releases["aaaa"].rows == len(well)
    (said,) = intake.service(MODEL, state).values()
    assert (said["requests"], said["untimed"]) == (len(wrong) + len(well), len(wrong))
    assert intake.newest_day(state) <= LATER.date() + timedelta(days=1)


def test_who_answers_and_who_watches_agree_on_what_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """One setting, one default."""
    assert prediction_log.ahead() == timedelta(minutes=5)
    monkeypatch.setenv("EVERGREEN_MAX_AHEAD_S", "7200")
    assert prediction_log.ahead() == timedelta(hours=2)


def test_a_row_from_the_future_does_not_stand_in_the_way_of_the_right_one(world: Path) -> None:
    """Of several answers to one row the newest counts, of those that may be."""
    asked = rows(days=1, per_day=2)
    ask(asked.assign(time=np.datetime64("2199-01-01", "us")), number=1)
    ask(asked, number=2)
    state = observe(layout)
    assert list(state.asked) == ["2013-04-01"]
    assert state.again is None


def test_a_machine_whose_clock_was_wrong_leaves_no_day_to_come(world: Path) -> None:
    """It answered in 2199, by its own clock, and nobody says otherwise; then its clock was set."""
    path = ask(rows("2199-01-01", 1), answered=NOON.replace(year=2199))
    right = ask(rows("2026-11-20", 1), number=1)
    path.write_bytes(path.read_bytes() + right.read_bytes())
    right.unlink()
    state = observe(layout)
    assert list(state.asked) == ["2026-11-20"]
    assert observe(layout, LATER + timedelta(days=91)).asked == {}


def test_what_stands_in_files_of_before_is_made_again(world: Path) -> None:
    """Their days may lie in 2199: the log is read once more."""
    ask(rows(days=2))
    state = observe(layout)
    path = intake.folder(MODEL) / "state.json"
    said = files.read_json(path)
    files.write_json(path, {name: value for name, value in said.items() if name != "layout"})
    again = observe(layout)
    assert (again.layout, again.rows, list(again.asked)) == (intake.LAYOUT, state.rows, list(state.asked))


def test_a_day_is_judged_when_it_is_over_on_the_clocks_of_the_model(world: Path) -> None:
    """And when what was answered on it has settled."""
    at = datetime(2026, 11, 30, 5, 0, 1, tzinfo=UTC)  # a second after midnight in New York
    soon = at + prediction_log.settling(MODEL)
    assert intake.last_day_over(MODEL, "America/New_York", at).isoformat() == "2026-11-28"
    assert intake.last_day_over(MODEL, "America/New_York", soon).isoformat() == "2026-11-29"
    assert intake.last_day_over(MODEL, "Asia/Tokyo", at).isoformat() == "2026-11-29"
    assert intake.last_day_over(MODEL, "Pacific/Kiritimati", at).isoformat() == "2026-11-29"
    assert intake.last_day_over(MODEL, "UTC", at).isoformat() == "2026-11-29"


# ── service ───────────────────────────────────────────────────────────────────────────────────────


def test_requests_are_counted_once_and_their_times_to_a_hundredth(world: Path) -> None:
    """Also those whose rows stand in two tables; of one row and of several are told apart."""
    asked = rows(days=2, per_day=350)
    ask(asked.iloc[:350], at_once=11, answered=NOON - timedelta(days=1))
    ask(asked.iloc[350:], number=1)
    prediction_log.compact(MODEL, LATER)
    found = intake.service(MODEL, observe(layout))
    assert [found[day]["requests"] for day in sorted(found)] == [32, 350]
    assert [found[day]["rows"] for day in sorted(found)] == [350, 350]
    assert sum(found["2026-11-20"]["single"].values()) == 0
    times = [2.0 + i % 7 for i in range(350)]
    for share in (0.5, 0.95, 0.99):
        told = service_counts.quantile(found["2026-11-21"]["ms"], share)
        assert told == pytest.approx(np.quantile(times, share, method="inverted_cdf"), rel=0.011)
    assert service_counts.quantile({}, 0.5) is None


def test_what_was_not_answered_stands_beside_what_was(world: Path) -> None:
    """Also on a day on which nobody was answered; and as long as answers are kept."""
    ask(rows("2013-04-01", 1), answered=NOON - timedelta(days=1))
    error_counts.add(MODEL, {("2026-11-20", "refused"): 3, ("2026-11-21", "failed"): 7}, 90)
    state = observe(layout)
    found = intake.service(MODEL, state)
    assert {day: [said[kind] for kind in ("requests", *error_counts.KINDS)] for day, said in found.items()} == {
        "2026-11-20": [24, 3, 0, 0],
        "2026-11-21": [0, 0, 0, 7],
    }
    error_counts.add(MODEL, {("2026-11-21", "shed"): 1}, 90)
    again = observe(layout)
    assert again != state  # there is something new to be told
    assert intake.service(MODEL, again)["2026-11-21"]["shed"] == 1
    assert intake.service(MODEL, again)["2026-11-20"] == found["2026-11-20"]
    assert observe(layout, LATER + timedelta(days=90)).unanswered == {
        "2026-11-21": {"refused": 0, "shed": 1, "failed": 7}
    }
    assert observe(layout, LATER + timedelta(days=91)).unanswered == {}
