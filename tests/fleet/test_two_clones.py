"""Two machines at one model: each has a clone, a state folder and a process; Git, the data and MLflow are shared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.ground import http, leases
from tests.conftest import REPOSITORY, Project, copy_project
from tests.deployments.alone import Alone, server
from tests.fleet.conftest import Database

pytestmark = [pytest.mark.slow, pytest.mark.group("team", "psycopg")]

STOPPED = """
import os, signal, sys
from tasks.release.registry import promotions

promote = promotions.promote

def stop_before(*arguments):
    promotions.promote = promote
    os.kill(os.getpid(), signal.SIGSTOP)
    return promote(*arguments)

promotions.promote = stop_before
from deployments import cli
sys.exit(cli.main(["train", "tiny"]))
"""


class Machine:
    """A clone with a state of its own."""

    def __init__(self, folder: Path, upstream: Path, shared: dict[str, str], remote: Path) -> None:
        subprocess.run(["git", "clone", "-q", str(upstream), str(folder)], check=True)
        for name, value in (("user.name", "t"), ("user.email", "t@localhost")):
            subprocess.run(["git", "config", name, value], cwd=folder, check=True)
        (folder / ".dvc" / "config.local").write_text(f"['remote \"local\"']\n    url = {remote}\n")
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EVERGREEN_", "MLFLOW_"))}
        for name in ("PYTHONPATH", "BENTOML_HOME", "DVC_SITE_CACHE_DIR"):
            kept.pop(name, None)
        self.environment = {**kept, **shared}

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A command of this machine; its output is text."""
        with (self.folder / "log.txt").open("a") as log:
            return subprocess.Popen(
                [sys.executable, *command], cwd=self.folder, env=self.environment, stdout=log, stderr=log, text=True
            )

    def run(self, *command: str) -> None:
        """A command that has to succeed."""
        process = self.start(*command)
        assert process.wait(timeout=120) == 0, self.log()

    def evergreen(self, *command: str) -> None:
        """A command of `evergreen`."""
        self.run("-m", "deployments.cli", *command)

    def log(self) -> str:
        """All that was printed."""
        return (self.folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def alone(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """A Prefect server."""
    with server(small_copied, tmp_path_factory.mktemp("server") / "project") as alone:
        yield alone


@pytest.fixture
def mlflow(fleet: Database, tmp_path: Path) -> Iterator[str]:
    """MLflow on an empty database of PostgreSQL, which hands out artifacts itself; its address."""
    port, folder = http.free_port(), tmp_path / "artifacts"
    folder.mkdir()
    store = fleet.make("mlflow").replace("postgresql://", "postgresql+psycopg://")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", folder.as_uri()]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        http.wait_until(lambda: http.answers(f"{address}/health"), 90)
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def machines(
    alone: Alone, mlflow: str, fleet: Database, small_copied: Path, tmp_path: Path
) -> tuple[Machine, Machine, Path]:
    """Two of them, and the bare repository to which both push."""
    upstream, remote = tmp_path / "upstream.git", tmp_path / "remote"
    source = Project(copy_project(small_copied, tmp_path / "source"))
    source.edit("params.yaml", "settle_seconds: 0\n", "settle_seconds: 0\ngit: {commit: true, remote: origin}\n")
    source.commit()
    subprocess.run(["git", "clone", "-q", "--bare", str(source.root), str(upstream)], check=True)
    shared = {
        leases.ADDRESS: fleet.address,
        leases.SECONDS: "20",  # a machine that is busy with other things renews late
        "MLFLOW_TRACKING_URI": mlflow,
        "PREFECT_API_URL": os.environ["PREFECT_API_URL"],
    }
    (source.root / ".dvc" / "config.local").write_text(f"['remote \"local\"']\n    url = {remote}\n")
    source.dvc("push", "-q")
    first, second = (Machine(tmp_path / name, upstream, shared, remote) for name in ("first", "second"))
    for machine in (first, second):
        machine.run("-m", "dvc", "pull", "-q", "data.dvc")
    return first, second, upstream


def runs(address: str) -> list[dict[str, Any]]:
    """MLflow's runs of candidates of `tiny`."""
    code = (
        "import json, mlflow; c = mlflow.MlflowClient(); "
        "e = c.get_experiment_by_name('tiny'); "
        "print(json.dumps([[r.info.run_id, r.info.status] for r in c.search_runs([e.experiment_id])] if e else []))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MLFLOW_TRACKING_URI": address},
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    return list(json.loads(done.stdout))


def commits(upstream: Path) -> list[str]:
    """The subjects of the commits that made or changed dvc.lock."""
    log = ["git", "log", "--format=%s", "main", "--", "dvc.lock"]
    return subprocess.run(log, cwd=upstream, capture_output=True, text=True, check=True).stdout.splitlines()


def test_two_trainings_at_once_make_one_run_and_one_commit(
    machines: tuple[Machine, Machine, Path], mlflow: str
) -> None:
    """Whoever waited takes over what the other has made: no stage runs twice."""
    first, second, upstream = machines
    processes = [machine.start("-m", "deployments.cli", "train", "tiny") for machine in (first, second)]
    assert [process.wait(timeout=200) for process in processes] == [0, 0], first.log() + second.log()
    assert len(runs(mlflow)) == 1
    assert len(commits(upstream)) == 1
    late = next(machine.log() for machine in (first, second) if "who holds train-tiny" in machine.log())
    assert " ran " not in late


@pytest.mark.long
def test_a_promotion_of_a_stopped_worker_is_refused(machines: tuple[Machine, Machine, Path]) -> None:
    """It is stopped between gate and promotion, another one promotes, and it wakes: its alias move is refused."""
    first, second, _ = machines
    stopped = first.start("-c", STOPPED)
    deadline = time.monotonic() + 120
    while Path(f"/proc/{stopped.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, first.log()
        assert stopped.poll() is None, first.log()
        time.sleep(0.2)
    second.evergreen("train", "tiny")
    os.kill(stopped.pid, signal.SIGCONT)
    assert stopped.wait(timeout=120) == 1
    assert "train-tiny was taken over by" in first.log()
    assert "promoted" in second.log()
