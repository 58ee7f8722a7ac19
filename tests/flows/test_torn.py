"""After a power cut: whatever of the state below var/ is torn, ingest, train, monitor and the live release go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from deployments.status_page import page
from flows.prefect_support import run_local
from tasks.ground import params, settings
from tasks.lifecycle import retrain_decision
from tasks.monitoring import alarms
from tasks.prediction_log import error_counts, prediction_log
from tasks.release.gate import verdicts
from tasks.release.registry import desired_state, registry
from tasks.runtime import model_file
from tests.conftest import write_readings
from tests.deployments.alone import Alone, server
from tests.tasks.monitoring.asked import ask

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MODEL = "tiny"

NOT_OURS = ("prefect", "dvc", "locks", "log", "landing", "torn", "run", "status")
"""Below var/: what other tools keep in databases that mend themselves, what nobody reads again, what is made anew."""

TEAR = {
    "empty": lambda _: b"",
    "half": lambda content: content[: len(content) // 2],
    "garbage": lambda content: bytes(byte ^ 0xA5 for byte in content),
    "zeros": lambda content: b"\0" * len(content),
}


@pytest.fixture(scope="module")
def alone(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """The small project after a loop: a month ingested, trained, live, asked, watched."""
    with server(small_copied, tmp_path_factory.mktemp("torn") / "project") as alone:
        alone.project.edit("params.yaml", "serving: {max_rows: 50}", "serving: {max_rows: 50, timeout_s: 0.1}")
        alone.project.commit()
        land(alone, 4)
        loop()
        desired_state.write(MODEL, desired_state.DesiredState(live()))
        desired_state.note(MODEL, live(), "live")
        error_counts.add(MODEL, {("2026-11-21", "shed"): 1}, 90)
        ask(answered("2013-04"), live().candidate, number=0, answered=datetime.now(UTC) - timedelta(seconds=30))
        prediction_log.compact(MODEL)
        ask(answered("2013-03"), live().candidate, number=1, answered=datetime.now(UTC) - timedelta(seconds=30))
        loop()
        yield alone


def land(alone: Alone, month: int) -> None:
    """A month arrives, whole; and something that can only be refused."""
    landing = alone.project.root / "var" / "landing" / "readings"
    landing.mkdir(parents=True, exist_ok=True)
    write_readings(alone.project.root, month).replace(landing / f"2013-{month:02}.csv")
    (landing / f"2014-{month:02}.csv").write_text("no table\n")


def live() -> desired_state.ReleaseRef:
    """The champion, as it serves."""
    champion = registry.champion(MODEL)
    assert champion is not None
    return desired_state.ReleaseRef(champion.candidate, champion.number, "2026-11-21T06:00:00.000Z")


def answered(month: str) -> pd.DataFrame:
    """The rows of a month, with what the model answers."""
    build = settings.BUILD / MODEL
    rows = pd.read_parquet(build / "rows" / f"{month}.parquet")
    pipeline = model_file.load(build / "model" / "model.skops", sha256=None)
    answers = model_file.predict(pipeline, rows[list(params.load().model(MODEL).features)], "classification")
    return rows.join(answers).sort_values("time", kind="stable", ignore_index=True)


def loop() -> None:
    """What runs by itself: all flows but the rollout, which needs a router, and what that reads; the page."""
    for flow, *arguments in (("ingest",), ("train", MODEL, False, True), ("monitor", MODEL)):
        state = run_local.run(flow, *arguments)
        assert state.is_completed(), f"{flow}: {state.message}"
    desired_state.forget([MODEL])
    assert desired_state.unfinished(MODEL) is None
    prediction_log.compact(MODEL)
    prediction_log.sweep(MODEL, 90, 10**9)
    retrain_decision.last(MODEL)
    alarms.read(MODEL)
    verdicts.summary(MODEL, 1)
    page.write()


def state_files() -> list[Path]:
    """The map of var/."""
    found = [path for path in sorted(settings.VAR.rglob("*")) if path.is_file() and not path.is_symlink()]
    found = [path for path in found if path.relative_to(settings.VAR).parts[0] not in NOT_OURS]
    return [path for path in found if path.relative_to(settings.VAR).parts[:2] not in _MLFLOW]


_MLFLOW = (("mlflow", "mlflow.db"), ("mlflow", "artifacts"))
"""The registry itself: it is the truth, and comes back from a backup only (docs/how-to/back-up-and-move.md)."""


def test_the_map_is_what_it_was(alone: Alone) -> None:
    """A folder that is new here is torn below as well."""
    tops = {path.relative_to(settings.VAR).parts[0] for path in state_files()}
    assert tops >= {"memo", "serving", "journal", "monitoring", "predictions", "champions"}


@pytest.mark.parametrize("how", TEAR)
def test_whatever_is_torn_the_loop_goes_on(alone: Alone, caplog: pytest.LogCaptureFixture, how: str) -> None:
    """It is named and made again, and the champion stays. Only the journal knew the live release."""
    served, champion = desired_state.read(MODEL).live, registry.champion(MODEL)
    torn = state_files()
    for path in torn:
        path.write_bytes(TEAR[how](path.read_bytes()))
    with caplog.at_level(logging.WARNING, logger="evergreen"):
        loop()
    named = {path.relative_to(settings.VAR).parts[0] for path in torn if str(path) in caplog.text}
    assert named >= {"memo", "serving", "monitoring", "mlflow"}
    assert registry.champion(MODEL) == champion
    assert desired_state.read(MODEL).live in (served, None)
    desired_state.note(MODEL, live(), "live")
    desired_state.write(MODEL, desired_state.DesiredState(live()))
