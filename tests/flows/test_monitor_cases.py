"""What the monitor says in every case: no time, one day, few rows, few labels or none ever. The flow's own steps.

The steps of the flow `monitor` are called without Prefect: intake, drift, quality, alarms, report, page and command.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deployments import cli
from deployments.status_page import page
from flows import monitor
from flows.prefect_support import api
from tasks.ground import files, params, paths
from tasks.modelling import daily_summaries, profile
from tasks.monitoring import alarms
from tasks.monitoring.intake import intake
from tasks.monitoring.intake.reference import Reference
from tasks.release.registry import desired_state
from tests.tasks.monitoring import asked
from tests.tasks.monitoring.asked import FEATURES, MODEL
from tests.tasks.monitoring.conftest import enter_world

NO_TIME = pd.Series([], dtype="datetime64[us]")
BEGINS = "2026-10-05"
ANSWERED = datetime(2026, 11, 28, 12, tzinfo=UTC)
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def rows(first: str, days: int, per_day: int, seed: int, *, wrong: float = 0.005, every: int = 1) -> pd.DataFrame:
    """Rows, one day in so many, and the answers of a model that is sure of itself, of which so many are wrong."""
    frame = asked.rows(first, days, seed=seed, per_day=per_day)
    days_on = (frame["time"].dt.normalize() - pd.Timestamp(first)).dt.days
    frame["time"] += pd.to_timedelta(days_on * (every - 1), unit="D")
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, len(frame))
    p_1 = np.where((rng.random(len(frame)) < wrong) == (label == 1), 0.04, 0.96)
    return frame.assign(label=label, p_0=1 - p_1, p_1=p_1, id=[f"{seed}-{at}" for at in range(len(frame))])


REFERENCES = {
    "no time": lambda: rows("2026-01-05", 5, 60, 1).assign(time=NO_TIME),
    "one day": lambda: rows("2026-01-05", 1, 300, 1),
    "one moment": lambda: rows("2026-01-05", 1, 300, 1).assign(time=pd.Timestamp("2026-01-05 10:00")),
    "a week": lambda: rows("2026-01-05", 7, 50, 1),
    "fifty rows": lambda: rows("2026-01-05", 1, 50, 1),
}


class World:
    """A model that serves, the reference that it was released with, and the monitor."""

    def __init__(self, root: Path, learned: pd.DataFrame) -> None:
        self.folder = root / "champion"
        holdout = learned.iloc[: len(learned) if len(learned) > 100 else 10]
        described = profile.reference_profile(learned, FEATURES, None)
        summaries = daily_summaries.summarise(learned, daily_summaries.columns(described))
        files.write_json(self.folder / "training" / "profile.json", described)
        (self.folder / "training" / "reference.parquet").write_bytes(daily_summaries.to_bytes(summaries))
        kept = holdout[["id", "time", "label", "station", "p_0", "p_1"]].astype({"time": "datetime64[us]"})
        files.write_parquet(self.folder / "evaluation" / "predictions.parquet", kept.reset_index(drop=True))
        live = desired_state.ReleaseRef("aaaa", 1, "2026-10-01T06:00:00.000Z")
        desired_state.write(MODEL, desired_state.read(MODEL).gone_live(live))

    def asks(self, frame: pd.DataFrame, labelled: float = 1.0) -> World:
        """Production asks, and labels come for a share of it."""
        asked.ask(frame, answered=ANSWERED)
        asked.deliver(frame.head(round(labelled * len(frame))), "2026-11")
        return self

    def looks(self) -> dict[str, Any]:
        """One run of the monitor; gives its report."""
        config, releases = params.load().model(MODEL), monitor.Releases(MODEL)
        options = intake.IntakeOptions(config.task, tuple(config.evaluate.slices), config.serving.log_days)
        state = intake.ingest(MODEL, options, releases.layout, NOW)
        last_day = (NOW - timedelta(days=1)).date()
        live = monitor._live(MODEL)
        return monitor._MonitorRun(MODEL, config, releases, state, live, last_day).execute()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], World]:
    """Makes one, by the name of its reference."""
    enter_world(tmp_path, monkeypatch)
    monkeypatch.setattr(monitor, "_step", lambda _, go, retries=0: go())
    monkeypatch.setattr(monitor, "get_run_logger", lambda: logging.getLogger("monitor"))
    monkeypatch.setattr(monitor.events, "stored", lambda _: None)
    monkeypatch.setattr(monitor.events, "alarm", lambda *_: {})
    monkeypatch.setattr(api, "PAUSES", ())  # there is no Prefect that may come back
    monkeypatch.setattr(monitor.Releases, "_fetch", lambda _, candidate: Reference(candidate, tmp_path / "champion"))
    monkeypatch.setattr(paths, "champions", lambda: tmp_path / "champions")
    asked.deliver(rows("2025-01-01", 1, 1, 99), "2025-01")  # labels of other rows
    return lambda name: World(tmp_path, REFERENCES[name]())


def open_alarms() -> list[tuple[str, tuple[str, ...]]]:
    """Kind and columns of what is open."""
    return [(alarm["kind"], tuple(alarm["columns"])) for alarm in alarms.read(MODEL) if alarm["closed"] is None]


def on_the_page() -> str:
    """What the status page says, without its markup."""
    text = re.sub(r"<[^>]+>", " ", page.write().read_text(encoding="utf-8"))
    return html.unescape(" ".join(text.split()))


def by_command(capsys: pytest.CaptureFixture[str]) -> str:
    """What `evergreen alarms` prints."""
    cli.alarms(MODEL)
    return capsys.readouterr().out


# ── no labels ever ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["one day", "one moment"])
def test_without_labels_it_is_said_once_that_quality_is_not_known(
    name: str, world: Callable[[str], World], capsys: pytest.CaptureFixture[str]
) -> None:
    """No alarm, today or tomorrow; report, command and page say the same."""
    here = world(name).asks(rows(BEGINS, 50, 20, 2), labelled=0)
    report = here.looks()
    assert here.looks()["alarms"] == report["alarms"] == []
    assert report["quality"]["status"] == "no labels"
    text = (
        "no label has come for any of 1,000 predictions since the week of 2026-10-05: drift and service are watched; "
    )
    assert report["quality"]["text"] == f"{text}quality is not known"
    assert report["data"]["status"] == "ok"
    assert report["data"]["text"].startswith("no gross change in 50 days of requests; ")
    told = by_command(capsys)
    assert f"{MODEL}: no alarm is open" in told
    assert f"quality: {report['quality']['text']}" in told
    assert f"data: {report['data']['text']}" in told


def test_the_page_says_the_same_without_labels(world: Callable[[str], World]) -> None:
    """What is not known, and what would be told."""
    report = world("no time").asks(rows(BEGINS, 50, 20, 2), labelled=0).looks()
    shown = on_the_page()
    assert f"N{report['quality']['text'][1:]}." in shown
    assert f"T{report['quality']['basis'][1:]}." in shown
    assert f"N{report['data']['text'][1:]}." in shown
    assert "live, no alarm" in shown


# ── labels ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["no time", "one moment", "a week"])
@pytest.mark.parametrize("pace", [{"days": 1, "per_day": 300}, {"days": 20, "per_day": 60}, {"days": 30, "per_day": 3}])
def test_a_model_that_fails_is_an_alarm_whatever_the_reference(
    name: str, pace: dict[str, int], world: Callable[[str], World], capsys: pytest.CaptureFixture[str]
) -> None:
    """A log loss of 0.7 against 0.06: by labels of a day, of a tenth of the rows, of three a day."""
    share = 0.1 if pace["per_day"] == 60 else 1.0
    report = world(name).asks(rows(BEGINS, seed=2, wrong=0.21, **pace), share).looks()
    assert ("quality", ("log_loss",)) in open_alarms()
    assert report["quality"]["status"] in ("measured", "few labels")
    assert report["quality"]["promised"]["value"] < 0.1
    assert "how days differ is assumed, so a mean log_loss that stays above about 0." in report["quality"]["basis"]
    told = by_command(capsys)
    assert "above the promised 0.0" in told
    assert f"quality: {report['quality']['text']}; {report['quality']['basis']}" in told


@pytest.mark.parametrize("name", ["no time", "fifty rows"])
def test_a_model_that_is_as_promised_is_none(name: str, world: Callable[[str], World]) -> None:
    """With all of its labels."""
    assert world(name).asks(rows(BEGINS, 50, 20, 3)).looks()["alarms"] == []


def test_a_holdout_of_ten_rows_promises_nothing(world: Callable[[str], World]) -> None:
    """And it is said how many it takes."""
    report = world("fifty rows").asks(rows(BEGINS, 50, 20, 2)).looks()
    assert report["quality"]["promised"] is None
    assert (
        report["quality"]["basis"] == "nothing was promised: the holdout has 10 rows with a label, a promise takes 30"
    )
    assert report["quality"]["text"].startswith("1,000 of 1,000 predictions have a label; log_loss is 0.")


# ── few requests ──────────────────────────────────────────────────────────────────────────────────


def test_a_release_of_today_says_that_nothing_was_asked(world: Callable[[str], World]) -> None:
    """Of data and of quality."""
    report = world("one day").looks()
    assert (report["data"]["status"], report["data"]["text"]) == (
        "not enough data", "not enough data: no day on which this release was asked is over yet",
    )  # fmt: skip
    assert report["quality"]["text"] == "no answer of the live release is counted yet: a day counts when it is over"
    assert "No requests yet." in on_the_page()


def test_three_rows_a_week_are_told_of_a_unit(world: Callable[[str], World]) -> None:
    """In a fortnight, when five rows are there."""
    frame = rows(BEGINS, 20, 1, 2, every=2)
    world("one day").asks(frame.assign(pressure=frame["pressure"] * 1000)).looks()
    assert open_alarms() == [("drift", ("pressure",))]


def test_a_request_a_month_says_when_there_will_be_enough(world: Callable[[str], World]) -> None:
    """Years from now, at this pace; what is watched until then is named."""
    report = world("one day").asks(rows("2026-09-06", 3, 1, 2, every=30)).looks()
    assert report["alarms"] == []
    assert report["data"]["status"] == "not enough data"
    assert report["data"]["text"].startswith(
        "not enough data: 0 of 7 days are there (days of fewer than 5 rows are put together); at this pace the last "
        "one is over on 2028-"
    )
    assert report["quality"]["status"] == "few labels"
    assert report["quality"]["text"] == (
        "3 of 3 predictions have a label; no week has the 30 that a week's log_loss takes; alarms are of all labels "
        "together"
    )


@pytest.mark.parametrize("name", ["no time", "one day"])
def test_new_values_are_told_on_the_day_of_one_moment(name: str, world: Callable[[str], World]) -> None:
    """All requests of one moment, and one day to compare with."""
    frame = rows(BEGINS, 1, 300, 2).assign(station="west", time=pd.Timestamp(f"{BEGINS} 10:00"))
    world(name).asks(frame).looks()
    assert open_alarms() == [("drift", ("station",))]
