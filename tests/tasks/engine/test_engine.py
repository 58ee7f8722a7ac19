"""The same results in the same order, whoever does the work; a worker that dies costs its task."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.engine import engine, local, task
from tasks.engine.protocol import ThisProcess
from tasks.ground import files, settings
from tasks.ground.errors import ContractError, Mistake
from tests.deployments.conftest import until

DIGEST = "tasks.ground.files:digest"
DEEDS = "tests.tasks.engine.deeds"


def digests(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hash of forty results."""
    monkeypatch.setenv(engine.SETTING, url)
    return files.digest(engine.each(DIGEST, [[{"at": at, "half": at / 2}] for at in range(40)], "try"))


def test_one_two_and_four_workers_give_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the items, whoever ends first."""
    assert len({digests(f"local:{count}", monkeypatch) for count in (1, 2, 4)}) == 1


def test_little_work_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One item, or fewer than a process is worth."""
    monkeypatch.setenv(engine.SETTING, "local:4")
    with engine.opened(1) as workers:
        assert isinstance(workers, ThisProcess)
    monkeypatch.setattr(local.LocalWorkers, "_start", lambda _: pytest.fail("a process was started"))
    assert len(engine.each(DIGEST, [[1], [2], [3]], "try", fewest=2)) == 3


@pytest.mark.parametrize("url", ["local:1", "local:2"])
def test_the_first_failure_is_raised_as_what_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of this project by its class; and of several that of the first item, not the first to end."""
    monkeypatch.setenv(engine.SETTING, url)
    items = [["flight_delay", "flights", "2013-01"], ["flight_delay", "nothing", "1"], ["flight_delay", "nought", "2"]]
    with pytest.raises(ContractError, match="nothing"):
        engine.each("tasks.tables.contract:digest", items, "try", fewest=1)


def test_a_defect_comes_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no error of this project: no text of it alone."""
    monkeypatch.setenv(engine.SETTING, "local:2")
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*words\.py.*TypeError"):
        engine.each("tasks.ground.words:many", [[at, 1] for at in range(4)], "try")


def test_a_worker_that_dies_costs_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of twenty first tries is killed: every result is there, once."""
    monkeypatch.setenv(engine.SETTING, "local:2")
    items = [[str(tmp_path / str(at)), at] for at in range(6)]
    assert engine.each(f"{DEEDS}:once_killed", items, "try") == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("deed", "arguments", "url", "named"),
    [
        ("die", ["SIGKILL"], "local:2", "10 times, the process that did it was killed by SIGKILL .*want of memory"),
        ("leave", [3], "local:2", "ended with 3"),
        ("hungry", [], "local:2", "had not enough memory"),
        ("sleep", [60], "local:2?limit_s=1", "the process that did it took longer than the limit"),
    ],
)
def test_what_every_worker_dies_of_is_named(
    deed: str, arguments: list[Any], url: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By signal, memory, exit code or time; after so many tries, and not for ever."""
    monkeypatch.setenv(engine.SETTING, url)
    before = psutil.Process().children()  # of other tests in this process
    with pytest.raises(task.WorkersLost, match=named):
        engine.each(f"{DEEDS}:{deed}", [arguments, arguments], "try", fewest=1)
    assert not {*psutil.Process().children()} - {*before}


SLEEPS = f"""
from tasks.engine import engine
engine.each("{DEEDS}:sleep", [[60], [60]], "try", fewest=1)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whoever_ends_the_parent_ends_its_workers(number: signal.Signals) -> None:
    """Whatever they are at; nothing is left that nobody waits for."""
    environment = {**os.environ, engine.SETTING: "local:2", "PYTHONPATH": str(settings.ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", SLEEPS], env=environment, stderr=subprocess.DEVNULL)
    until(lambda: len(psutil.Process(parent.pid).children()) == 2, 30)
    workers = psutil.Process(parent.pid).children()
    time.sleep(0.5)
    parent.send_signal(number)
    parent.wait(10)
    until(lambda: not any(worker.is_running() for worker in workers), 10)


def test_what_a_task_prints_is_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what a library in C writes to the standard output."""
    monkeypatch.setenv(engine.SETTING, "local:2")
    given = engine.each(f"{DEEDS}:chatter", [['{"result": 1}'], ["nonsense"]], "try", fewest=1)
    assert given == ["local:1", "local:1"], "what is wide within a task stays in its process"


@pytest.mark.parametrize("url", ["local:0", "local:many", "local?limit_s=-1", "dask://nowhere", "spark://host:1", "8"])
def test_what_is_no_engine_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started, with what could be meant."""
    monkeypatch.setenv(engine.SETTING, url)
    with pytest.raises(Mistake, match=r"EVERGREEN_ENGINE: .*local:4"), engine.opened(2):
        pass


def test_a_task_names_a_function_of_this_project_only() -> None:
    """Whoever can write to a worker can have it do what this project does, and nothing else."""
    with pytest.raises(ValueError, match="no function of this project"):
        task.call(task.task("os:system", "true"))


def test_a_result_that_is_no_json_is_a_defect_with_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not ten workers that died of it."""
    monkeypatch.setenv(engine.SETTING, "local:2")
    monkeypatch.setattr(local, "MOST_DEATHS", 1)
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*not JSON serializable"):
        engine.each(f"{DEEDS}:no_json", [[], []], "try", fewest=1)


def test_who_is_forked_in_a_task_neither_answers_nor_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a copy of all that its worker has."""
    monkeypatch.setenv(engine.SETTING, "local:2")
    monkeypatch.setattr(local, "MOST_DEATHS", 1)
    assert engine.each(f"{DEEDS}:twice", [[], []], "try", fewest=1) == ["parent", "parent"]
    began = time.monotonic()
    with pytest.raises(task.WorkersLost, match="ended with 7"):
        engine.each(f"{DEEDS}:leave_a_child", [[20], [20]], "try", fewest=1)
    assert time.monotonic() - began < 15
