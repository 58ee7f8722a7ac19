"""The flow monitor beside a real Prefect server and a real MLflow store: a spring in which a sensor goes wrong."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.prefect_support import api, run_local
from tasks import steps
from tasks.ground import files, params, settings
from tasks.lifecycle import retrain_facts
from tasks.monitoring import alarms
from tasks.monitoring.intake import intake
from tasks.release.package import package
from tasks.release.registry import desired_state, registry, tracking
from tasks.runtime import model_file
from tests.conftest import write_readings
from tests.deployments.alone import Alone, server
from tests.deployments.conftest import until
from tests.tasks.monitoring.asked import ask

pytestmark = pytest.mark.timeout(240)

MODEL = "tiny"


@dataclass
class World:
    """The small project, trained on January and February; April and May are still to come."""

    alone: Alone
    rows: dict[str, pd.DataFrame]
    """Month → its rows, with the answers of the model."""
    base: Path
    made: int = 0

    def release(self) -> desired_state.ReleaseRef:
        """A version more in the registry."""
        self.made += 1
        release = settings.BUILD / MODEL / "release"
        files.remove(release)
        shutil.copytree(self.base, release)
        facts = files.read_json(release / "release.json")
        files.write_json(release / "release.json", {**facts, "about": f"release {self.made}"})
        (release / "candidate.json").unlink()
        candidate = files.digest(files.tree(release))[:16]
        files.write_json(release / "candidate.json", {"candidate": candidate})
        tracking.track(MODEL, release, settings.BUILD / MODEL, {"latency_ms": 3.0, "size_mb": 0.1})
        return desired_state.ReleaseRef(
            candidate, registry.register(MODEL, candidate).number, "2026-11-21T06:00:00.000Z"
        )

    def goes_live(self, one: desired_state.ReleaseRef) -> desired_state.ReleaseRef:
        """As a rollout says it."""
        desired_state.write(MODEL, desired_state.read(MODEL).gone_live(one))
        return one

    def label(self, month: str, count: int | None = None) -> None:
        """The labels of a month come, or the first of them."""
        rows = self.rows[month].drop(columns=["p_0", "p_1"])
        files.write_parquet(settings.BUILD / MODEL / "rows" / f"{month}.parquet", rows.head(count or len(rows)))


@pytest.fixture(scope="module")
def world(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A project with a release that was tracked, and a Prefect server."""
    root = tmp_path_factory.mktemp("monitor") / "project"
    with server(small_copied, root) as alone:
        alone.project.edit("params.yaml", "serving: {max_rows: 50}", "serving: {max_rows: 50, timeout_s: 0.1}")
        for step in steps.STEPS:
            steps.run(step, [MODEL])
        base = shutil.copytree(settings.BUILD / MODEL / "release", root / "base")
        trained = shutil.copytree(settings.BUILD, root / "trained")
        for month in (4, 5):
            write_readings(root, month)
        for step in ("validate", "prepare"):
            steps.run(step, [MODEL])
        found = {month: answered(month) for month in ("2013-04", "2013-05")}
        shutil.rmtree(settings.BUILD)
        shutil.copytree(trained, settings.BUILD)
        yield World(alone, found, base)


def answered(month: str) -> pd.DataFrame:
    """The rows of a month, with what the model answers."""
    build = settings.BUILD / MODEL
    rows = pd.read_parquet(build / "rows" / f"{month}.parquet")
    pipeline = model_file.load(build / "model" / "model.skops", sha256=None)
    features = rows[list(params.load().model(MODEL).features)]
    answers = model_file.predict(pipeline, features, "classification")
    return rows.join(answers).sort_values("time", kind="stable", ignore_index=True)


def log(rows: pd.DataFrame, one: desired_state.ReleaseRef, number: int) -> None:
    """Production asks; a minute ago, so that it is settled."""
    ask(rows, one.candidate, number=number, answered=datetime.now(UTC) - timedelta(seconds=30))


def monitor() -> Any:
    """Run the flow here; gives its state."""
    return run_local.run("monitor", MODEL)


def report() -> dict[str, Any]:
    """What the last run has said."""
    return dict(files.read_json(intake.folder(MODEL) / "report.json"))


def page() -> str:
    """The page that the last run has left in the UI."""
    key = {"artifacts": {"key": {"any_": [f"monitor-{MODEL}"]}}, "sort": "CREATED_DESC", "limit": 1}
    return str(api.call("/artifacts/filter", key)[0]["data"])


def told(world: World, what: str) -> list[str]:
    """The messages that people got."""
    return [one["text"] for one in world.alone.told if one["subject"].startswith(what)]


def metric_history(one: desired_state.ReleaseRef, name: str) -> list[tuple[int, float]]:
    """Step and value of a metric of the release's monitoring run."""
    with registry.connect() as client:
        (run,) = client.search_runs([client.get_experiment_by_name(f"{MODEL}-monitoring").experiment_id],
                                    f"tags.`evergreen.monitors` = '{one.candidate}'")  # fmt: skip
        history = client.get_metric_history(run.info.run_id, name)
    return sorted((entry.step, entry.value) for entry in history)


@pytest.fixture(scope="module")
def first(world: World) -> desired_state.ReleaseRef:
    """The release that serves, which was asked for the rows of April; nobody has labels yet."""
    state = monitor()
    assert state.is_completed()
    assert report()["data"]["text"] == "no release is live: there is nothing to compare with"
    one = world.goes_live(world.release())
    log(world.rows["2013-04"], one, number=0)
    assert monitor().is_completed()
    return one


# ── a month without labels ────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_without_labels_the_loss_is_estimated(world: World, first: desired_state.ReleaseRef) -> None:
    """And what was asked is held against what the release learned from."""
    said = report()
    assert (said["release"]["candidate"], said["release"]["version"]) == (first.candidate, first.version)
    assert (said["data"]["status"], said["data"]["days"], said["data"]["rows"]) == ("ok", 28, 224)
    columns = {one["name"]: one for one in said["data"]["columns"]}
    assert list(columns) == ["hour", "pressure", "starts", "station", "vibration", "weekday", "p_1", "label"]
    assert (columns["pressure"]["unit"], columns["pressure"]["role"]) == ("bar", "feature")
    assert said["data"]["evidence"]["days"][0] == "2013-04-01"
    assert len(said["data"]["evidence"]["columns"]["pressure"]) == 28
    quality = said["quality"]
    assert quality["promised"]["low"] < quality["promised"]["value"] < quality["promised"]["high"]
    assert [week["since"] for week in quality["windows"]] == [f"2013-04-{day:02d}T00:00:00Z" for day in (1, 8, 15, 22)]
    for week in quality["windows"]:
        assert [week[name] for name in ("rows", "labels", "measured", "slices", "off")] == [56, 0, None, None, None]
        assert week["estimated"]["low"] < week["estimated"]["value"] < week["estimated"]["high"]
    times, unanswered = {"p50": 4.97, "p95": 8.0, "p99": 8.0}, {"refused": 0, "shed": 0, "failed": 0}
    (day,) = said["service"]["days"]  # on which it was answered
    assert {**day, "day": ""} == {"day": "", "requests": 224, "rows": 224, "untimed": 0, **unanswered, **times}
    assert said["alarms"] == []
    assert set(said) == {"model", "at", "release", "service", "data", "quality", "alarms"}
    assert "![drift and quality over time](data:image/svg+xml;base64," in page()


def test_nothing_new_is_found_out_before_anything_heavy_is_imported(
    world: World, first: desired_state.ReleaseRef
) -> None:
    """Neither pandas nor MLflow, and no file is written."""
    code = """
import sys, time
from flows.prefect_support import run_local
import flows.monitor
begin = time.process_time()
state = run_local.run("monitor", "tiny")
heavy = {"pandas", "mlflow", "scipy", "matplotlib", "sklearn"} & set(sys.modules)
print(state.message, sorted(heavy), sep="\\n")
"""
    before = {path: path.stat().st_mtime_ns for path in intake.folder(MODEL).rglob("*")}
    *_, message, heavy = world.alone.project.python(code).splitlines()
    assert message == f"nothing to do: no request and no label came since {report()['at']}"
    assert heavy == "[]"
    assert {path: path.stat().st_mtime_ns for path in intake.folder(MODEL).rglob("*")} == before


def test_it_stands_in_mlflow_beside_the_version(world: World, first: desired_state.ReleaseRef) -> None:
    """A run per release, a step per week, with the numbers, the table and the picture."""
    assert [step for step, _ in metric_history(first, "estimate/log_loss")] == [2256, 2257, 2258, 2259]
    assert len(metric_history(first, "data/vibration/missing")) == 4
    assert len(metric_history(first, "service/p95")) == 1  # of the week in which it was answered
    version = registry.find(MODEL, first.candidate)
    assert version is not None
    with registry.connect() as client:
        run = client.get_run(version.tags["evergreen.monitoring_run"])
        assert run.info.status == "FINISHED"
        names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {"monitor.svg", "numbers.json", "report.json", "windows.parquet"}
    table = pd.read_parquet(intake.folder(MODEL) / "windows.parquet")
    assert set(table["kind"]) == {"quality", "estimate", "data", "service"}
    assert set(table["release"]) == {"all", first.candidate}


# ── labels ────────────────────────────────────────────────────────────────────────────────────────


def test_labels_that_come_in_parts_end_in_the_measured_loss(world: World, first: desired_state.ReleaseRef) -> None:
    """With its metrics and slices, and how far off the estimate was; a week that is written again is not doubled."""
    world.label("2013-04", 100)
    assert monitor().is_completed()
    parts = report()["quality"]["windows"]
    assert [week["labels"] for week in parts] == [56, 44, 0, 0]
    assert parts[1]["off"] is None
    world.label("2013-04")
    assert monitor().is_completed()
    windows = report()["quality"]["windows"]
    assert [week["labels"] for week in windows] == [56] * 4
    assert windows[0]["measured"] == parts[0]["measured"]
    for week in windows:
        found = week["measured"]["log_loss"]
        assert found["low"] < found["value"] < found["high"]
        assert week["off"] == pytest.approx(found["value"] - week["estimated"]["value"], abs=2e-6)
        assert set(week["slices"]["station"]) == {"north", "south"}
        assert list(week["releases"]) == [first.candidate]
    asked = retrain_facts._measured(MODEL, params.load().model(MODEL), first.candidate)  # what the policy hears of
    assert asked is not None
    assert (asked.labels, asked.until - asked.since) == (28 * 8, timedelta(days=27, hours=18))
    assert asked.loss == pytest.approx(np.mean([week["measured"]["log_loss"]["value"] for week in windows]), abs=1e-5)
    # the second week was measured of 44 labels first; what did not change with it is there once
    assert [step for step, _ in metric_history(first, "log_loss")] == [2256, 2257, 2257, 2258, 2259]
    assert [step for step, _ in metric_history(first, "rows")] == [2256, 2257, 2258, 2259]
    with registry.connect() as client:
        experiment = client.get_experiment_by_name(f"{MODEL}-monitoring").experiment_id
        (run,) = client.search_runs([experiment])
    assert run.data.metrics["log_loss"] == pytest.approx(windows[-1]["measured"]["log_loss"]["value"], rel=1e-5)


def test_a_day_is_judged_when_it_is_over(
    world: World, first: desired_state.ReleaseRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although nothing new was asked since. Its answers are there before, in the weeks."""
    before = report()
    monkeypatch.setattr(intake, "last_day_over", lambda *_: date(2013, 4, 20))
    assert monitor().is_completed()
    assert (report()["data"]["days"], report()["data"]["rows"]) == (20, 160)
    assert report()["quality"] == before["quality"]
    monkeypatch.setattr(intake, "last_day_over", lambda *_: date(2013, 3, 31))  # the first day is not over yet
    assert monitor().is_completed()
    assert (report()["data"]["status"], report()["data"]["days"]) == ("not enough data", 0)
    monkeypatch.undo()
    assert monitor().is_completed()
    assert report()["data"] == before["data"]


def test_rows_of_2199_do_no_harm(world: World, first: desired_state.ReleaseRef) -> None:
    """They are no week and no day; the page says how many there are, and what takes them out of the log."""
    before = report()
    log(world.rows["2013-04"].head(24).assign(time=np.datetime64("2199-01-01", "us"), pressure=9999.0), first, number=9)
    assert monitor().is_completed()
    said = report()
    assert said["quality"] == before["quality"]
    assert said["data"]["text"] == (
        f"{before['data']['text']}; 24 rows count for nothing: their time is after their answer, or before 1971 "
        f"(`evergreen forget` takes them out of the log)"
    )
    assert said["alarms"] == []
    assert monitor().message.startswith("nothing to do")
    world.alone.project.run(sys.executable, "-m", "deployments.cli", "forget", MODEL, "--time-after", "2100-01-01")
    assert monitor().is_completed()
    assert {**report()["data"], "columns": []} == {**before["data"], "columns": []}


# ── a sensor that is off ──────────────────────────────────────────────────────────────────────────


def test_a_sensor_that_is_off_is_told_once_also_by_a_run_that_was_killed(
    world: World, first: desired_state.ReleaseRef
) -> None:
    """Killed after the message was sent and before that was written down: nobody hears of it twice."""
    may = world.rows["2013-05"]
    log(may.assign(pressure=may["pressure"] + 2), first, number=1)
    code = "import os; from tasks.monitoring import alarms; alarms.mark_announced = lambda *_: os._exit(9)\n"
    code += "from flows.prefect_support import run_local; run_local.run('monitor', 'tiny')"
    done = world.alone.project.run(sys.executable, "-c", code, check=False)
    assert done.returncode == 9
    assert monitor().is_completed()
    assert monitor().is_completed()
    (one,) = report()["alarms"]
    assert one["key"].endswith(f"-pressure-v{first.version}")
    assert (one["kind"], one["what"], one["told"], one["closed"]) == ("drift", "pressure", True, None)
    assert "2013-05-01" <= one["since"] <= "2013-05-03T00:00:00Z"
    assert one["text"].startswith("pressure is 1.9")
    assert "; log_loss estimated in the week of 2013-05-20: 0." in one["text"]
    text = world.alone.message("alarm: tiny: pressure")
    assert text.splitlines()[0] == one["text"]
    assert text.splitlines()[1].endswith(f"evergreen acknowledge tiny {one['key']}")
    assert len(told(world, "alarm: ")) == 1
    assert report()["data"]["status"] == "drift"


def test_an_alarm_that_was_acknowledged_stays_open_and_so_does_the_note(
    world: World, first: desired_state.ReleaseRef
) -> None:
    """A look that finds it again changes nothing of that."""
    (key,) = (one["key"] for one in report()["alarms"])
    world.alone.project.run(
        sys.executable, "-m", "deployments.cli", "acknowledge", MODEL, key, "--note", "sent a plumber"
    )
    assert report()["alarms"][0]["acknowledged"]["note"] == "sent a plumber"
    world.label("2013-05", 80)
    assert monitor().is_completed()
    assert report()["alarms"][0]["acknowledged"]["note"] == "sent a plumber"
    assert len(told(world, "alarm: ")) == 1


@pytest.mark.slow
def test_killed_while_it_writes_to_mlflow_nothing_is_doubled(world: World, first: desired_state.ReleaseRef) -> None:
    """The next run ends what was begun; the report is that of a run that was not killed."""
    world.label("2013-05", 150)
    code = "import os; from tasks.release.registry import monitoring_run\n"
    code += "monitoring_run.write_artifacts = lambda *_: os._exit(9)\n"
    code += "from flows.prefect_support import run_local; run_local.run('monitor', 'tiny')"
    assert world.alone.project.run(sys.executable, "-c", code, check=False).returncode == 9
    half = {name: value for name, value in report().items() if name != "at"}
    assert monitor().is_completed()
    assert {name: value for name, value in report().items() if name != "at"} == half
    steps_of = [step for step, _ in metric_history(first, "labels")]
    assert len(steps_of) == len(set(metric_history(first, "labels")))
    assert monitor().message.startswith("nothing to do")
    before = json.dumps(half, sort_keys=True)
    shutil.rmtree(intake.folder(MODEL))  # from the beginning, at once
    assert monitor().is_completed()
    anew = {name: value for name, value in report().items() if name not in ("at", "alarms")}
    assert json.dumps(anew, sort_keys=True) == json.dumps(
        {name: value for name, value in json.loads(before).items() if name != "alarms"}, sort_keys=True
    )


# ── another release ───────────────────────────────────────────────────────────────────────────────


def test_a_new_release_is_held_against_its_own_reference(world: World, first: desired_state.ReleaseRef) -> None:
    """What was wrong with the old one is over and told; of the new one there is not enough to say anything."""
    second = world.goes_live(world.release())
    log(world.rows["2013-05"].head(24), second, number=2)
    assert monitor().is_completed()
    said = report()
    assert said["release"]["candidate"] == second.candidate
    assert (said["data"]["status"], said["data"]["days"], said["data"]["rows"]) == ("not enough data", 3, 24)
    assert said["alarms"][0]["closed"] == "2013-05-28T00:00:00Z"
    assert said["alarms"][0]["text"].endswith("; over: the release that it is about is no longer live")
    assert until(lambda: told(world, "over: tiny: pressure"), 30, "the message that it is over")
    shared = next(week for week in said["quality"]["windows"] if week["since"].startswith("2013-04-29"))
    assert set(shared["releases"]) == {first.candidate, second.candidate}
    assert shared["rows"] == sum(own["rows"] for own in shared["releases"].values())


def test_a_version_of_before_lacks_what_is_kept_today(world: World, first: desired_state.ReleaseRef) -> None:
    """It serves and is watched all the same, and the report says what cannot be said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "TRAINING_FILES", ("training.json", "profile.json", "train_ids.npy"))
        patch.setattr(tracking, "EVALUATION_FILES", ())
        third = world.goes_live(world.release())
    log(world.rows["2013-05"].tail(80), third, number=3)
    assert monitor().is_completed()
    said = report()
    assert said["data"]["status"] == "no reference"
    assert (
        said["data"]["text"]
        == "it was trained before Evergreen kept the days of training rows: drift cannot be detected"
    )
    assert said["quality"]["promised"] is None
    assert said["quality"]["windows"][-1]["estimated"] is None
    assert not (settings.VAR / "champions" / third.candidate / "evaluation").exists()
    assert {"training.json", "profile.json"} <= set(
        files.tree(settings.VAR / "champions" / third.candidate / "training")
    )
    assert package.identity_of(settings.VAR / "champions" / third.candidate / "release") == third.candidate
    assert alarms.read(MODEL)
