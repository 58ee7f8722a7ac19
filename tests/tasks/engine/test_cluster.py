"""A Dask cluster of processes of their own gives the same results; what its workers die of is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.engine import cluster, engine, task
from tasks.ground import files, http, settings
from tasks.ground.errors import EnvironmentDiffers, Mistake, SourceUnavailable

pytestmark = pytest.mark.group("dask", "distributed")

DEEDS = "tests.tasks.engine.deeds"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers, each a process, on loopback."""
    folder, port = tmp_path_factory.mktemp("dask"), http.free_port()
    environment = {**settings.environment(), **os.environ, "PYTHONPATH": str(settings.ROOT), **settings.arithmetic()}
    environment["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "2"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    dask_worker = [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1"]
    dask_worker += ["--host", "127.0.0.1", "--nworkers", "2", "--local-directory", str(folder)]
    with (folder / "log").open("w") as log:
        processes = [
            subprocess.Popen([*command, "--no-dashboard"], env=environment, stdout=log, stderr=log)
            for command in (dask, dask_worker)
        ]
    yield f"dask://127.0.0.1:{port}"
    for process in reversed(processes):
        process.terminate()
        process.wait(20)


@pytest.fixture
def asked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is the cluster."""
    monkeypatch.setenv(engine.SETTING, address)


@pytest.mark.usefixtures("asked")
def test_a_cluster_gives_the_same_results_as_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the items."""
    items = [[{"at": at, "half": at / 2}] for at in range(20)]
    far = engine.each("tasks.ground.files:digest", items, "try")
    monkeypatch.setenv(engine.SETTING, "local:1")
    assert files.digest(far) == files.digest(engine.each("tasks.ground.files:digest", items, "try"))


@pytest.mark.usefixtures("asked")
def test_a_worker_of_a_cluster_that_dies_costs_its_task(tmp_path: Path) -> None:
    """The scheduler has it done again elsewhere; what every worker dies of is named."""
    assert engine.each(f"{DEEDS}:once_killed", [[str(tmp_path / "0"), 0], [str(tmp_path / "1"), 1]], "try", fewest=1)
    with pytest.raises(task.WorkersLost, match=r"deeds:die: again and again, .* died"):
        engine.each(f"{DEEDS}:die", [["SIGKILL"], ["SIGKILL"]], "try", fewest=1)


@pytest.mark.usefixtures("asked")
def test_a_worker_of_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would give other results."""
    monkeypatch.setattr(cluster, "_code", lambda: "of another commit")
    with pytest.raises(EnvironmentDiffers, match="the code or the lock there is another"):
        engine.each("tasks.ground.files:digest", [[1], [2]], "try", fewest=1)


def test_a_scheduler_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to do without it."""
    monkeypatch.setenv(engine.SETTING, f"dask://127.0.0.1:{http.free_port()}")
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    with pytest.raises(SourceUnavailable, match="no Dask scheduler answers"), engine.opened(2):
        pass


def test_without_dask_the_group_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is imported before."""
    monkeypatch.setenv(engine.SETTING, "dask://127.0.0.1:8786")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(Mistake, match="make setup WITH=dask"), engine.opened(2):
        pass
