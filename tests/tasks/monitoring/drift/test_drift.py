"""Drift: what moved is named, with its size and its day; what did not move is not; and days are all that counts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import drift as benchmark
from tasks.modelling import daily_summaries, profile
from tasks.monitoring import chart
from tasks.monitoring.drift import drift, thresholds

FEATURES = {
    "carrier": {"type": "category"},
    "hour": {"type": "integer"},
    "temp": {"type": "number"},
    "dewp": {"type": "number"},
    "seats": {"type": "number"},
    "gust": {"type": "number"},
    "never": {"type": "number"},
    "country": {"type": "category"},
}
UNITS = {"temp": "°F", "dewp": "°F"}


def rows(first: str, count: int, seed: int, per_day: int = 60) -> pd.DataFrame:
    """Days with a weather of their own: rows of one day are alike, and temp and dewp go together."""
    rng = np.random.default_rng(seed)
    day = np.repeat(np.arange(count), per_day)
    n = len(day)
    weather = rng.normal(55, 12, count)[day]
    temp = weather + rng.normal(0, 4, n)
    gust = np.where(rng.random(n) < rng.uniform(0.2, 0.6, count)[day], np.nan, rng.gamma(9, 2, n))
    p = np.clip(rng.beta(2, 6, n) + rng.normal(0, 0.05, count)[day], 0.01, 0.99)
    return pd.DataFrame(
        {
            "carrier": pd.Series(rng.choice(["UA", "B6", "AA", "F9"], n, p=[0.5, 0.3, 0.198, 0.002]), dtype="str"),
            "hour": rng.integers(5, 24, n).astype(float),
            "temp": temp,
            "dewp": weather - 10 + rng.normal(0, 1, count)[day] + rng.normal(0, 4, n),
            "seats": rng.choice([50.0, 150.0, 180.0], n),
            "gust": gust,
            "never": np.nan,
            "country": pd.Series(["US"] * n, dtype="str"),
            "p_1": p,
            "label": (rng.random(n) < p).astype(int),
            "time": pd.Timestamp(first)
            + pd.to_timedelta(day, unit="D")
            + pd.to_timedelta(rng.integers(0, 24, n), unit="h"),
        }
    )


LEARNED = rows("2013-01-01", 200, seed=0)
WANTED = daily_summaries.columns(
    profile.reference_profile(LEARNED, FEATURES, LEARNED[["p_1"]]), expected=[*FEATURES, "gate"]
)
REFERENCE = daily_summaries.summarise(LEARNED, WANTED)
BEGINS = date(2014, 1, 31)


def changed(change: Callable[[pd.DataFrame], dict[str, Any]], count: int = 75, seed: int = 5) -> pd.DataFrame:
    """A stream that changes after 30 days."""
    stream = rows("2014-01-01", count, seed).assign(gate=1.0)
    after = stream["time"].dt.date >= BEGINS
    moved = stream.assign(**change(stream))
    return pd.concat([stream[~after], moved[after]], ignore_index=True)


def detect(stream: pd.DataFrame) -> drift.DriftReport:
    """What is said of these rows."""
    return drift.detect(WANTED, REFERENCE, daily_summaries.summarise(stream, WANTED), UNITS)


def detect_from(min_effect: float, stream: pd.DataFrame) -> drift.DriftReport:
    """What is said of these rows where an effect of this size matters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "MIN_EFFECT", min_effect)
        return detect(stream)


# ── what moved is named ───────────────────────────────────────────────────────────────────────────


MOVES: dict[str, tuple[str, str, str, float, Callable[[pd.DataFrame], Any]]] = {
    "shifted": (
        "seats",
        "mean",
        r"seats is 2\d(\.\d)? higher, 0\.4\d standard deviations \(12\d\.\d → 1[45]\d\.\d\) since",
        0.45,
        lambda f: f["seats"] + 25,
    ),
    "shifted, among seasons": (
        "temp",
        "fit",
        r"temp is 5\.9\d °F higher than dewp and \w+ go with, 0\.\d\d standard deviations, since",
        0.48,
        lambda f: f["temp"] + 6,
    ),
    "in another unit": (
        "temp",
        "mean",
        r"temp is 4\d\.?\d* °F lower, 3\.\d\d standard deviations \(5\d\.\d+ → 1\d\.\d+\) since",
        3.4,
        lambda f: (f["temp"] - 32) * 5 / 9,
    ),
    "stuck": (
        "temp",
        "spread",
        r"temp varies less within a day \((4|3\.9)\d* → 0 °F\) since",
        1.0,
        lambda f: f["temp"] * 0 + 57,
    ),
    "missing": (
        "gust",
        "missing",
        r"gust is missing in (79|80)\.\d% of rows, before in [34]\d\.\d%, since",
        0.41,
        lambda f: f["gust"].where(f.index % 3 == 0),
    ),
    "gone": (
        "hour",
        "missing",
        r"hour is missing in 100\.0% of rows, before in 0\.0%, since",
        1.0,
        lambda f: f["hour"] * np.nan,
    ),
    "there, for the first time": (
        "never",
        "missing",
        r"never is missing in 0\.0% of rows, before in 100\.0%, since",
        1.0,
        lambda f: f["temp"],
    ),
    "renamed": (
        "carrier",
        "unknown",
        r"carrier has values that training did not know in 3\d\.\d% of rows, before in 0\.0%, since",
        0.3,
        lambda f: f["carrier"].replace("B6", "JetBlue"),
    ),
    "constant no more": (
        "country",
        "unknown",
        r"country has values that training did not know in 100\.0% of rows, before in 0\.0%, since",
        1.0,
        lambda f: f["country"] + "A",
    ),
    "prediction": (
        "p_1",
        "mean",
        r"p_1 is 0\.09\d* higher, 0\.6\d standard deviations \(0\.2\d+ → 0\.3\d+\) since",
        0.61,
        lambda f: f["p_1"] + 0.1,
    ),
    "label": (
        "label",
        "share",
        r"label is 1 in 6\d\.\d% of rows, before in 2\d\.\d%, since",
        0.38,
        lambda f: f["label"].where(f.index % 2 == 0, 1),
    ),
}


@pytest.mark.parametrize("what", MOVES)
def test_what_moved_is_named(what):
    """One alarm, for one column first, with its size in its own unit and the day on which it began."""
    column, aspect, text, effect, change = MOVES[what]
    report = detect(changed(lambda frame: {column: change(frame)}))
    assert len(report.alarms) == 1
    alarm = report.alarms[0]
    first = alarm.moved[0]
    assert (first.column, first.aspect) == (column, aspect)
    assert re.match(text, alarm.text)
    assert first.effect == pytest.approx(effect, rel=0.1)
    assert abs((first.since - BEGINS).days) <= 1
    assert 0 <= (alarm.opened - BEGINS).days <= 21
    assert alarm.closed is None
    assert report.findings[column].status == "drift"
    assert report.findings[column].text == first.text
    assert report.findings[column].q <= 0.05
    assert report.open == report.alarms


def test_effect_sizes_stand_beside_p_values():
    """A number's shift, a category's Cramér's V and the stability index are near 0 without drift, and not with it."""
    quiet, loud = (
        detect(changed(change)).findings
        for change in (
            lambda _: {},
            lambda f: {"seats": f["seats"] + 60, "carrier": f["carrier"].replace("B6", "UA")},
        )
    )
    assert abs(quiet["seats"].shift) < 0.1
    assert quiet["carrier"].cramers_v < 0.03
    assert quiet["seats"].psi < 0.01
    assert (quiet["seats"].p, quiet["seats"].q) == (1, 1) or quiet["seats"].q > 0.05
    assert loud["seats"].shift == pytest.approx(60 / LEARNED["seats"].std(), rel=0.05)
    assert loud["carrier"].cramers_v > 0.1
    assert loud["seats"].psi > 0.25
    assert loud["seats"].p < 1e-4


def test_statuses_say_why_nothing_is_said():
    """Always missing, constant, new and too few days are told from «as in training»."""
    found = {name: finding.status for name, finding in detect(changed(lambda _: {})).findings.items()}
    assert found == {
        **dict.fromkeys(("carrier", "hour", "temp", "dewp", "seats", "gust", "p_1", "label"), "ok"),
        "never": "always missing",
        "country": "constant",
        "gate": "new",
    }
    few = detect(rows("2014-01-01", 6, seed=5)).findings
    assert few["temp"].status == "not enough data"
    assert few["temp"].text == "temp has 6 of the 7 days that a comparison takes"
    thin = detect(rows("2014-01-01", 12, seed=5, per_day=4)).findings
    assert thin["temp"].status == "not enough data"
    assert thin["temp"].text == "temp has 6 of the 7 days that a comparison takes"
    none = drift.detect(WANTED, REFERENCE, {})
    assert {finding.status for finding in none.findings.values()} == {"not enough data", "new"}
    assert none.alarms == ()
    short = {name: column.since(column.days[-20]) for name, column in REFERENCE.items()}
    stream = daily_summaries.summarise(rows("2014-01-01", 60, seed=5), WANTED)
    assert drift.detect(WANTED, short, stream).findings["temp"].text == (
        "temp shows no gross change (training has 20 days)"
    )
    del short["temp"]
    assert drift.detect(WANTED, short, stream).findings["temp"].status == "new"


def test_many_rows_of_few_days_are_few_data():
    """Evidence counts days: two days of ten thousand rows, both warm, are no drift."""
    warm = rows("2014-01-01", 2, seed=11, per_day=10_000)
    warm["temp"] += 15
    warm["dewp"] += 15
    report = detect(warm)
    assert report.alarms == ()
    assert report.findings["temp"].status == "not enough data"


def test_a_change_that_is_sure_and_tiny_is_no_alarm():
    """What is beyond doubt and too small to matter has its p-value, and raises nothing."""
    tiny = changed(lambda f: {"seats": f["seats"] + 6}, count=150)
    sure, tolerant = detect_from(0, tiny), detect_from(0.2, tiny)
    assert [alarm.moved[0].column for alarm in sure.alarms] == ["seats"]
    assert tolerant.alarms == ()
    assert tolerant.findings["seats"].status == "ok"
    assert tolerant.findings["seats"].q < 0.05
    assert [name for name, one in tolerant.findings.items() if one.slight] == ["seats"]
    assert "by less than what matters" in tolerant.findings["seats"].text


def test_a_share_that_moves_by_less_than_matters_is_no_alarm():
    """Half of the rows are of one carrier: three points more are sure after a year, and too little."""
    every = np.random.default_rng(3).random(365 * 60)
    more = changed(lambda f: {"carrier": f["carrier"].where((f["carrier"] != "B6") | (every > 0.1), "UA")}, count=365)
    assert [alarm.moved[0].column for alarm in detect_from(0, more).alarms] == ["carrier"]
    assert detect(more).alarms == ()


# ── one alarm per cause, open until it is over ────────────────────────────────────────────────────


def test_columns_that_move_together_are_one_alarm():
    """Two columns that change on one day, and the prediction with them, are one alarm; the features stand first."""
    report = detect(changed(lambda f: {"seats": f["seats"] + 90, "hour": f["hour"] + 9, "p_1": f["p_1"] + 0.3}))
    assert len(report.alarms) == 1
    assert [moved.column for moved in report.alarms[0].moved][-1] == "p_1"
    assert {"seats", "hour"} <= {moved.column for moved in report.alarms[0].moved}
    assert "; with it moved " in report.alarms[0].text


def test_an_alarm_closes_and_another_cause_opens_another():
    """A drift that ends closes its alarm; what moves much later, or again, is another alarm."""
    stream = rows("2014-01-01", 330, seed=6)
    day = (stream["time"] - pd.Timestamp("2014-01-01")).dt.days
    stream.loc[day.between(30, 69), "seats"] += 90
    stream.loc[day.between(150, 189), "hour"] += 9
    stream.loc[day.between(270, 329), "seats"] += 90
    alarms = detect(stream).alarms
    assert [alarm.moved[0].column for alarm in alarms] == ["seats", "hour", "seats"]
    assert [alarm.closed is None for alarm in alarms] == [False, False, True]
    assert date(2014, 3, 12) < alarms[0].moved[0].closed < date(2014, 5, 1)
    assert len({alarm.key for alarm in alarms}) == 3


# ── the same days, the same report ────────────────────────────────────────────────────────────────


def test_batches_and_late_rows_make_no_difference():
    """Days that came at once, one by one, or row by row and out of order are told the same."""
    stream = changed(lambda f: {"seats": f["seats"] + 90})
    whole = detect(stream)
    at = np.random.default_rng(0).integers(0, 9, len(stream))
    parts = [daily_summaries.summarise(stream[at == part], WANTED) for part in (4, 0, 8, 7, 1, 2, 6, 5, 3)]
    assert drift.detect(WANTED, REFERENCE, daily_summaries.merge(parts), UNITS) == whole


def test_what_was_said_of_a_day_stands():
    """A report of the first days has the alarms that a later one says were opened on them, under the same keys."""
    stream = rows("2014-01-01", 150, seed=7)
    day = (stream["time"] - pd.Timestamp("2014-01-01")).dt.days
    stream.loc[day.between(40, 79), "seats"] += 90
    stream.loc[day >= 100, "carrier"] = "Z"
    later = detect(stream).alarms
    assert len(later) == 2
    for until in (30, 55, 90, 120):
        seen = detect(stream[day < until]).alarms
        last = date(2014, 1, 1) + pd.Timedelta(days=until - 1)
        assert [alarm.key for alarm in seen] == [alarm.key for alarm in later if alarm.opened <= last]
        closed = [alarm.closed if alarm.closed and alarm.closed <= last else None for alarm in later]
        assert [alarm.closed for alarm in seen] == closed[: len(seen)]


def test_labels_that_come_late_change_no_alarm_of_a_feature():
    """What evidence a column needs does not depend on labels; and labels that come late end in the same numbers."""
    stream = changed(lambda f: {"seats": f["seats"] + 90}).astype({"label": "float64"})
    complete = detect(stream)
    without = detect(stream.assign(label=np.nan))
    assert without.alarms == complete.alarms
    assert without.findings["label"].status == "not enough data"
    early = stream.assign(label=stream["label"].where(stream.index % 2 == 0))
    late = stream[stream.index % 2 == 1][["label", "time"]]
    label = {"label": WANTED["label"]}
    both = daily_summaries.merge([daily_summaries.summarise(early, WANTED), daily_summaries.summarise(late, label)])
    assert drift.detect(WANTED, REFERENCE, both, UNITS) == complete


def test_a_report_is_plain_data():
    """Reports go to JSON and Parquet: they hold numbers that are finite, texts and dates."""
    report = dataclasses.asdict(detect(changed(lambda f: {"country": f["country"] + "A"})))

    def check(value: Any) -> None:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            for one in value:
                check(one)
        else:
            assert value is None or type(value) in (str, int, bool, date) or np.isfinite(value)
            assert type(value).__module__ in ("builtins", "datetime")

    check(report)


# ── far outside, and a short reference ────────────────────────────────────────────────────────────


def short(count: int, seed: int = 3) -> tuple[dict[str, daily_summaries.ColumnLayout], daily_summaries.DaySummaries]:
    """A reference of so many days, and how it is laid out."""
    learned = rows("2013-01-01", count, seed=seed)
    wanted = daily_summaries.columns(profile.reference_profile(learned, FEATURES, learned[["p_1"]]))
    return wanted, daily_summaries.summarise(learned, wanted)


def against(count: int, stream: pd.DataFrame) -> drift.DriftReport:
    """What is said of these rows by who knows so many days."""
    wanted, reference = short(count)
    return drift.detect(wanted, reference, daily_summaries.summarise(stream, wanted), units=UNITS)


FAR: dict[str, tuple[str, str, Callable[[pd.DataFrame], Any]]] = {
    "a thousand times": ("temp", "mean", lambda f: f["temp"] * 1000),
    "a thousandth": ("seats", "spread", lambda f: f["seats"] * 0 + 0.15),
    "a third of the rows a thousand times": ("gust", "mean", lambda f: f["gust"] * np.where(f.index % 3, 1, 1000)),
    "all missing": ("hour", "missing", lambda f: f["hour"] * np.nan),
    "unknown values": ("carrier", "unknown", lambda f: f["carrier"].replace("AA", "American")),
    "stuck": ("temp", "spread", lambda f: f["temp"] * 0 + 57.3),
    "predictions in per cent": ("p_1", "mean", lambda f: f["p_1"] * 100),
    "there at last": ("never", "missing", lambda f: f["never"].fillna(1.0)),
}


@pytest.mark.parametrize("count", [28, 60, 200])
@pytest.mark.parametrize("what", FAR)
def test_what_lies_far_outside_is_told_on_its_first_day_however_short_the_reference(what, count):
    """It is one alarm, from that day on; and it is over three days after the last such day."""
    column, aspect, change = FAR[what]
    stream = changed(lambda frame: {column: change(frame)}, count=50)
    well = rows("2014-02-20", 10, seed=6)
    report = against(count, pd.concat([stream, well], ignore_index=True))
    (alarm,) = report.alarms
    assert [(one.column, one.aspect) for one in alarm.moved] == [(column, aspect)]
    assert alarm.since == alarm.opened == BEGINS
    assert alarm.closed == date(2014, 2, 22)


def test_a_season_that_training_has_not_seen_is_no_extreme():
    """Who knows a hot month is not told of a wrong unit when it freezes: half of the values lie outside, not far."""
    summer, winter = rows("2013-07-01", 28, seed=3), rows("2014-01-01", 28, seed=4)
    summer["temp"] += 25
    winter["temp"] -= 30
    wanted = daily_summaries.columns(profile.reference_profile(summer, FEATURES, summer[["p_1"]]))
    report = drift.detect(wanted, daily_summaries.summarise(summer, wanted), daily_summaries.summarise(winter, wanted))
    assert not any(one.aspect == "mean" and one.column == "temp" and one.opened < date(2014, 1, 8)
                   for alarm in report.alarms for one in alarm.moved)  # fmt: skip


def test_one_broken_row_is_no_extreme():
    """A typing error of a day is none of its feature; ten a day are."""
    stream = rows("2014-01-01", 20, seed=5)
    for broken, alarms in ((1, 0), (10, 1)):
        at = stream.index[stream["time"].dt.date == date(2014, 1, 10)][:broken]
        report = against(28, stream.assign(temp=stream["temp"].where(~stream.index.isin(at), 999_999.0)))
        assert len(report.alarms) == alarms


def test_a_flag_that_was_never_up_is_no_extreme_when_it_is():
    """A number that was always 0 says nothing of what is far from it."""
    wanted = daily_summaries.columns(profile.reference_profile(
        rows("2013-01-01", 28, seed=3).assign(seats=0.0), FEATURES, None))  # fmt: skip
    reference = daily_summaries.summarise(rows("2013-01-01", 28, seed=3).assign(seats=0.0), wanted)
    holiday = daily_summaries.summarise(rows("2014-01-01", 10, seed=4).assign(seats=1.0), wanted)
    assert not drift.detect(wanted, reference, holiday).alarms


def test_days_that_are_as_before_are_no_extreme_whatever_the_reference_is():
    """Of 20 short references, each beside 60 days of the same kind, none calls a day extreme."""
    for seed in range(0, 40, 2):
        wanted, reference = short(7 + seed, seed=100 + seed)
        stream = daily_summaries.summarise(rows("2014-01-01", 60, seed=seed), wanted)
        assert not drift.detect(wanted, reference, stream).alarms


def test_a_short_reference_says_what_it_cannot_see():
    """And a long one has nothing to say."""
    stream = rows("2014-01-01", 10, seed=5)
    text = against(28, stream).sensitivity
    assert re.match(
        r"a shift by one standard deviation of the 28 days to compare with is detected not within half", text
    )
    assert text.endswith("what lies far outside of all that was seen is reported when its day is over")
    within = [int(re.search(r"of any size in about (\d+) days", against(n, stream).sensitivity)[1]) for n in (28, 45)]
    assert within[0] > within[1]
    assert detect(stream).sensitivity == ""


# ── real flights: fewer streams than `python -m benchmarks.drift`, the same code ──────────────────


@pytest.fixture(scope="module")
def flights() -> benchmark.World:
    """A year of flights without a model."""
    from tasks.ground import params

    features = params.load().model(benchmark.MODEL).features
    described = {name: feature.model_dump() for name, feature in features.items()}
    year = benchmark.year(15)
    wanted = daily_summaries.columns(profile.reference_profile(year, described, None))
    return benchmark.World(
        year, wanted, {name: feature.unit for name, feature in features.items()}, lambda _: np.empty(0)
    )


@pytest.fixture(scope="module")
def real(flights: benchmark.World) -> daily_summaries.DaySummaries:
    """Its days."""
    return flights.summaries()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["days", "weeks"])
def test_real_days_in_another_order_raise_no_alarm(scheme, flights, real, monkeypatch):
    """Of ten years drawn from the days or the weeks of a real one, looked at day by day, hardly any alarms."""
    monkeypatch.setattr(benchmark, "WORLD", flights, raising=False)
    monkeypatch.setattr(benchmark, "REAL", real, raising=False)
    outcomes = benchmark.run(benchmark.Case("nothing", "", scheme), 10, seed=99)
    assert sum(outcome.false for outcome in outcomes) <= 1  # 2 of 10 at 5 %: less than one time in ten


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("distance", lambda frame: frame.assign(distance=frame["distance"] + 0.5 * frame["distance"].std())),
        ("temp", lambda frame: frame.assign(temp=frame["temp"] + 0.5 * frame["temp"].std())),
        ("carrier", lambda frame: frame.assign(carrier=frame["carrier"].replace("UA", "United"))),
    ],
)
def test_real_drift_is_found_and_named(column, change, flights, real, monkeypatch):
    """A shift of half a standard deviation and a renamed category are found within five weeks, and named first."""
    monkeypatch.setattr(benchmark, "WORLD", flights, raising=False)
    monkeypatch.setattr(benchmark, "REAL", real, raising=False)
    moved = daily_summaries.summarise(change(flights.rows.copy()), flights.wanted)
    case = benchmark.Case(column, "", "weeks", column=column)
    outcomes = [benchmark._one(case, real, moved, np.random.default_rng([3, number])) for number in range(5)]
    assert all(outcome.delay is not None and outcome.delay <= 35 for outcome in outcomes)
    assert sum(outcome.named for outcome in outcomes) >= 4


def test_a_class_with_two_dollars_is_drawn() -> None:
    """It is a name, and no formula."""
    evidence = {"days": ["2013-01-01", "2013-01-02"], "columns": {"p_$0%$": [0.1, 0.2]}}
    data = {"status": "ok", "text": "", "threshold": 3.0, "evidence": evidence}
    assert chart.draw({"model": "tiny", "data": data, "quality": {"loss": "log_loss", "promised": None, "windows": []}})
