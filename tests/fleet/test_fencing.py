"""MLflow on the database of the leases: also who is stopped in the middle of a promotion moves no alias late."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.ground import leases, settings
from tests.conftest import REPOSITORY, work_on
from tests.fleet.conftest import Database
from tests.tasks.release import small_project
from tests.tasks.release.small_project import MEASURED, MODEL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.group("team", "psycopg"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

STOPPED = """
import os, signal, sys
from mlflow import MlflowClient
from tasks.ground import leases
from tasks.release.registry import fencing, promotions, registry, verdict_records
leases.LONGEST_WRITE = fencing.IDLE_SECONDS = 4
write = MlflowClient.set_registered_model_alias

def stopped(*arguments):
    if arguments[2] == "champion":
        print("stopped", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    return write(*arguments)

MlflowClient.set_registered_model_alias = stopped
with leases.hold("train-late"):
    promotions.promote("late", int(sys.argv[1]), sys.argv[2])
"""


def test_a_promotion_that_was_stopped_before_its_alias_is_refused(
    fleet: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction sees the token of who took over; that one's champion stays."""
    from tasks.release import comparison
    from tasks.release.registry import promotions, registry, tracking, verdict_records

    root = tmp_path / "project"
    root.mkdir()
    work_on(root, monkeypatch)
    store = fleet.make("registry")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.replace("postgresql://", "postgresql+psycopg://"))
    monkeypatch.setenv(leases.ADDRESS, store)
    monkeypatch.setenv("EVERGREEN_ROOT", str(root))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    small_project.make_project(root)
    judged = []
    for months, columns in ((3, ("origin",)), (4, ("origin", "temp"))):
        small_project.make_build(root, months, columns)
        build = settings.BUILD / MODEL
        run = tracking.track(MODEL, build / "release", build, MEASURED)
        version = registry.register(MODEL, run.candidate)
        verdict = comparison.judge_candidate(MODEL)
        verdict_records.record(MODEL, version.number, verdict)
        judged.append((version.number, verdict.id))
    command = [sys.executable, "-c", STOPPED.replace('"late"', f'"{MODEL}"'), str(judged[0][0]), judged[0][1]]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY) as late:
        assert late.stdout
        assert late.stdout.readline() == "stopped\n"
        monkeypatch.setattr(settings, "VAR", tmp_path / "elsewhere")
        begin = time.monotonic()
        with leases.hold("train-late"):
            assert time.monotonic() - begin < 20
            promotions.promote(MODEL, *judged[1])
            late.send_signal(signal.SIGCONT)
            _, told = late.communicate(timeout=60)
    assert late.returncode == 1
    assert "LeaseLost" in told
    assert registry.champion(MODEL).number == judged[1][0]
