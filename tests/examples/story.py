"""An example from its first delivery to a champion that serves, a drift that is found and a release that is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from deployments.local import servers
from deployments.tools import simulate_year
from flows.prefect_support import run_local
from tasks.data import delivery
from tasks.ground import files, http, params, paths, settings
from tasks.lifecycle import backtest_history
from tasks.modelling import rows
from tasks.prediction_log import prediction_log
from tasks.release.gate import verdicts
from tasks.release.package import package
from tasks.release.registry import desired_state
from tasks.runtime import model_file
from tests.conftest import BIN, LISTED_FILES, REPOSITORY, Project, forget_models
from tests.deployments.alone import Alone, server

EXAMPLES = REPOSITORY / "examples"

QUICK = "    rollout: {start_s: 30, bake_s: 1, min_requests: 5, latency_ms: 200}\n    serving: {timeout_s: 1, "
"""In place of the beginning of `serving`: what is waited for is waited for briefly."""


@dataclass(frozen=True)
class Scenario:
    """What an example's README says of it."""

    history: int
    """Partitions that its first champion is made of."""
    drift: str
    """The partition whose requests are of another world."""
    moved: str
    """The column that the alarm names."""
    spoil: tuple[str, str, str]
    """An edit that makes a bad release: file, what stands there, what a person makes of it."""
    refused: str
    """What the refusal says."""


@dataclass
class Story:
    """What happened."""

    first: dict[str, Any] = field(default_factory=dict)
    """The verdict on the first candidate."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    answered: list[dict[str, Any]] = field(default_factory=list)
    expected: pd.DataFrame = field(default_factory=pd.DataFrame)
    before: list[str] = field(default_factory=list)
    """Columns of which the partitions before the drift have raised an alarm."""
    alarms: list[str] = field(default_factory=list)
    """The same, once the drift was asked as well."""
    bad: str = ""
    """What became of the bad release."""
    live: tuple[int, int] = (0, 0)
    """The version that was live before and after that."""
    seconds: dict[str, float] = field(default_factory=dict)


def make_project(name: str, folder: Path) -> Path:
    """What `evergreen new --example` makes of a checkout with all that Git would take of this one."""
    platform = Project(folder / "platform")
    listed = subprocess.run(LISTED_FILES, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for path in filter(lambda path: (REPOSITORY / path).is_file(), listed.splitlines()):
        (platform.root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / path, platform.root / path)
    (platform.root / ".venv").symlink_to(BIN.parent)
    platform.run("git", "init", "-q", "-b", "main")
    platform.commit()
    new = ["bin/evergreen", "new", folder / "made", "--example", name]
    platform.run("env", "-u", "EVERGREEN_ROOT", "-u", "PYTHONPATH", *new)
    (folder / "made" / "var").mkdir(exist_ok=True)
    return folder / "made"


def live_through(name: str, scenario: Scenario, folder: Path) -> Story:
    """Live through an example."""
    with server(make_project(name, folder), folder / "project") as alone, pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVERGREEN_PORT", str(http.free_port()))
        alone.project.edit("params.yaml", "    serving: {", QUICK)
        alone.project.commit()
        with servers.process([sys.executable, "-m", "deployments.serving.router"], "router"):
            return _live(name, scenario, alone, patch)


def _live(name: str, scenario: Scenario, alone: Alone, patch: pytest.MonkeyPatch) -> Story:
    story, config = Story(), params.load()
    partitions = import_module(str(config.upstream)).partitions()
    drifts = partitions.index(scenario.drift)
    with _timed(story, "champion"):
        _arrive(config, partitions[: scenario.history])
        _run("train", name)
        story.first = _verdict(name)
        assert story.first["promoted"], story.first["summary"]
    with _timed(story, "serve"):
        _run("rollout", name)
        _ask(name, config, story)
    with _timed(story, "drift"):
        history = backtest_history.read(name, config, "upstream").rows
        for partition in partitions[scenario.history : drifts]:
            _ask_a_partition(name, config, history, partition)
        story.before = _alarms(name)
        _ask_a_partition(name, config, history, scenario.drift)
        story.alarms = _alarms(name)
    with _timed(story, "refusal"):
        before = _live_version(name)
        _arrive(config, partitions[scenario.history : drifts])
        alone.project.edit(*scenario.spoil)
        forget_models(patch)  # as each flow run of a worker is a process of its own
        alone.project.commit()
        story.bad = _release(name)
        story.live = before, _live_version(name)
    return story


def _arrive(config: params.Params, partitions: list[str]) -> None:
    delivery.deliver(config, partitions, lambda _: None)
    time.sleep(config.settle_seconds + 0.1)
    state = _run("ingest")
    assert "quarantined" not in state.message, state.message


def _run(flow: str, *arguments: Any) -> Any:
    state = run_local.run(flow, *arguments)
    assert state.is_completed(), f"{flow}: {state.message}"
    return state


def _verdict(name: str) -> dict[str, Any]:
    return verdicts.newest(name)[-1]


def _ask_a_partition(name: str, config: params.Params, history: pd.DataFrame, partition: str) -> None:
    simulate_year.request(name, config.model(name), simulate_year.of_partition(history, partition), 1000)


def _ask(name: str, config: params.Params, story: Story) -> None:
    """Rows of the holdout, over HTTP and of the pipeline itself."""
    model, build = config.model(name), settings.BUILD / name
    sample = rows.read(build, "holdout").sample(20, random_state=0)
    story.asked = package.request_rows(sample, model)
    story.answered = http.call(f"{_url()}/{name}/predict", {"rows": story.asked}, timeout=30)["predictions"]
    pipeline = model_file.load(build / "model" / "model.skops", None, own=f"models.{name}")
    story.expected = model_file.predict(pipeline, sample[model.columns], model.task)


def _url() -> str:
    return f"http://127.0.0.1:{os.environ['EVERGREEN_PORT']}"


def _alarms(name: str) -> list[str]:
    time.sleep(prediction_log.settling(name).total_seconds() + 0.1)
    _run("monitor", name)
    report = files.read_json(paths.monitoring_report(name))
    moved = [column["name"] for column in report["data"]["columns"] if column["status"] == "drift"]
    assert bool(moved) == bool(report["alarms"])
    return moved


def _live_version(name: str) -> int:
    running = desired_state.read(name).live
    assert running is not None
    return running.version


def _release(name: str) -> str:
    """Train, and roll out what the gate lets through; gives the refusal."""
    _run("train", name)
    verdict = _verdict(name)
    if not verdict["promoted"]:
        return "\n".join(f"{check['name']}: {check['reason']}" for check in verdict["checks"] if not check["passed"])
    return str(run_local.run("rollout", name).message)


@contextmanager
def _timed(story: Story, part: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    story.seconds[part] = round(time.monotonic() - begin, 1)
