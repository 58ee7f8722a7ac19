"""How the graph is reproduced: with real DVC, on steps that take no time (tests/toy)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from tasks import steps
from tasks.ground import dvc_files, files
from tasks.ground.errors import DataMissing, DataVersionDiffers, InUse, Mistake, StageFailed
from tasks.training import dvc_graph
from tests.conftest import REPOSITORY, Project, copy_project, copy_repository, write_readings

REPRODUCE = """
import sys
from tasks import steps
from tasks.training import dvc_graph
for outcome in dvc_graph.reproduce(sys.argv[1], steps.run):
    print(outcome.stage, outcome.how)
"""


@pytest.fixture(scope="session")
def toy_copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of tests/toy; not to be written to."""
    return copy_repository(tmp_path_factory.mktemp("toy") / "project", REPOSITORY / "tests" / "toy")


@pytest.fixture
def toy(toy_copied: Path, tmp_path: Path, enter: Callable[[Path], Project]) -> Project:
    """A project whose graph is tests/toy/dvc.yaml: count → own → package, for the models a and b."""
    return enter(copy_project(toy_copied, tmp_path / "project"))


def run(step: str, arguments: list[str]) -> None:
    """The steps of tests/toy, called in this process."""
    spec = spec_from_file_location("toy_steps", REPOSITORY / "tests" / "toy" / "tasks" / "steps.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.run(step, arguments)


def reproduce(model: str = "a", run_: dvc_graph.Run = run) -> dict[str, str]:
    """Stage → how it was brought up to date."""
    return {outcome.stage: outcome.how for outcome in dvc_graph.reproduce(model, run_)}


def called(toy: Project) -> list[str]:
    """The steps that were called, in this or another process."""
    path = toy.root / "var" / "called"
    return path.read_text().splitlines() if path.exists() else []


def start(toy: Project, model: str, waits: str = "") -> subprocess.Popen[str]:
    """Another process that reproduces a model; with `waits`, it is in the middle of that step, and waits for `go`."""
    command = [sys.executable, "-c", REPRODUCE, model]
    environment = {**os.environ, "TOY_WAITS": waits}
    started = subprocess.Popen(
        command, cwd=toy.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while waits and not (toy.root / "var" / "at-work").exists():
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return started


def go(toy: Project, after: float = 0) -> None:
    """Let the process that waits go on, after some seconds."""
    threading.Timer(after, (toy.root / "var" / "go").touch).start()


def finished(process: subprocess.Popen[str]) -> dict[str, str]:
    """What a process that reproduced a model did."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return dict(line.split() for line in out.splitlines())


RAN = {"count@a": "ran", "own@a": "ran", "package@a": "ran"}
UNCHANGED = dict.fromkeys(RAN, "unchanged")


def test_a_first_reproduction_runs_every_stage_and_says_why(toy: Project) -> None:
    """Nothing has been made yet: that is the reason, also of what `pending` says will run."""
    assert dvc_graph.pending("a") == dict.fromkeys(RAN, "it has not run yet")
    outcomes = dvc_graph.reproduce("a", run)
    assert {o.stage: (o.how, o.reason) for o in outcomes} == dict.fromkeys(RAN, ("ran", "it has not run yet"))
    assert (toy.root / "build" / "a" / "release" / "count.txt").read_text() == "2\n"
    assert not (toy.root / "build" / "b").exists()


def test_dvc_repro_has_nothing_to_do_afterwards(toy: Project) -> None:
    """What was reproduced in process is in dvc.lock as `dvc repro` would have written it."""
    for model in ("a", "b"):
        reproduce(model)
    before = called(toy), (toy.root / "dvc.lock").read_text()
    assert "up to date" in toy.dvc("repro")
    assert "up to date" in toy.dvc("status")
    assert (called(toy), (toy.root / "dvc.lock").read_text()) == before


def test_nothing_is_to_do_after_dvc_repro(toy: Project) -> None:
    """The other way round: what a data scientist's `dvc repro` made is not made again; no step finds that out."""
    toy.dvc("repro", "package@a")
    assert called(toy) == ["count a", "package a"]
    assert dvc_graph.pending("a") == {}
    outcomes = dvc_graph.reproduce("a", run)
    assert [(o.how, o.reason) for o in outcomes] == [("unchanged", "nothing it depends on has changed")] * 3
    assert called(toy) == ["count a", "package a"]


def test_both_runners_write_the_same_lock(toy: Project) -> None:
    """dvc.lock does not show who ran the stages."""
    reproduce()
    in_process = (toy.root / "dvc.lock").read_text()
    shutil.rmtree(toy.root / "build")
    shutil.rmtree(toy.root / ".dvc" / "cache")
    (toy.root / "dvc.lock").unlink()
    toy.dvc("repro", "package@a")
    assert (toy.root / "dvc.lock").read_text() == in_process


def test_an_edited_parameter_redoes_what_depends_on_it(toy: Project) -> None:
    """And says which parameter; a stage whose inputs come out equal is left alone."""
    reproduce()
    toy.edit("params.yaml", "{times: 1}", "{times: 3}")
    assert dvc_graph.pending("a")["count@a"] == "params.yaml: models.a.times 1 → 3"
    assert reproduce() == RAN
    assert (toy.root / "build" / "a" / "release" / "count.txt").read_text() == "6\n"
    toy.edit("source.txt", "two\nwords", "words\ntwo")
    assert dvc_graph.pending("a") == {
        "count@a": "source.txt is modified",
        "own@a": "source.txt is modified",
        "package@a": "follows count@a, if that changes",
    }
    assert reproduce() == {"count@a": "ran", "own@a": "ran", "package@a": "unchanged"}


def test_an_edit_that_is_undone_gives_the_earlier_result_back(toy: Project) -> None:
    """From DVC's run cache: no step is called, and the outputs are the former bytes."""
    reproduce()
    first = files.tree(toy.root / "build" / "a")
    toy.edit("params.yaml", "{times: 1}", "{times: 3}")
    reproduce()
    before = called(toy)
    toy.edit("params.yaml", "{times: 3}", "{times: 1}")
    assert reproduce() == {"count@a": "restored", "own@a": "restored", "package@a": "restored"}
    assert called(toy) == before
    assert files.tree(toy.root / "build" / "a") == first


def test_outputs_that_are_gone_come_back_from_the_cache(toy: Project) -> None:
    """`rm -rf build` loses nothing."""
    reproduce()
    first, before = files.tree(toy.root / "build" / "a"), called(toy)
    shutil.rmtree(toy.root / "build")
    assert dvc_graph.pending("a")["count@a"] == "its output build/a/count.txt is deleted"
    assert reproduce() == dict.fromkeys(RAN, "restored")
    assert (files.tree(toy.root / "build" / "a"), called(toy)) == (first, before)


@pytest.mark.parametrize(
    ("file", "old", "new", "count"),
    [("source.txt", "two", "one two", 3), ("params.yaml", "{times: 1}", "{times: 3}", 6)],
)
def test_an_input_that_changes_while_its_stage_runs_is_an_error(
    toy: Project, file: str, old: str, new: str, count: int
) -> None:
    """A parameter as well as a file: else it would be recorded as what the old result was made from."""

    def run_while_somebody_edits(step: str, arguments: list[str]) -> None:
        run(step, arguments)
        toy.edit(file, old, new)

    with pytest.raises(StageFailed, match=rf"^count@a: {file} changed while the stage ran\. Run again\.$"):
        dvc_graph.reproduce("a", run_while_somebody_edits)
    assert not (toy.root / "dvc.lock").exists()
    assert reproduce() == RAN
    assert (toy.root / "build" / "a" / "count.txt").read_text() == f"{count}\n"


def test_what_a_step_raises_comes_out_as_it_is(toy: Project) -> None:
    """An error of ours says what to do. The stage counts as not run, and DVC starts commands as before."""
    from dvc.stage import run as dvc_run

    before = dvc_run.cmd_run
    (toy.root / "source.txt").write_text("\n")
    with pytest.raises(DataMissing, match=r"^source\.txt holds no words$"):
        reproduce()
    assert dvc_run.cmd_run is before
    assert dvc_graph.pending("a")["count@a"] == "it has not run yet"
    (toy.root / "source.txt").write_text("word\n")
    assert reproduce() == RAN
    assert dvc_run.cmd_run is before


def test_a_defect_in_a_step_names_the_stage_and_keeps_its_traceback(toy: Project) -> None:
    """What is no error of ours is a defect: it comes as StageFailed, caused by what was raised."""

    def broken(step: str, arguments: list[str]) -> None:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(StageFailed, match=r"failed to reproduce 'count@a': division by zero") as caught:
        dvc_graph.reproduce("a", broken)
    causes, cause = [], caught.value.__cause__
    while cause is not None:
        causes.append(type(cause))
        cause = cause.__cause__
    assert ZeroDivisionError in causes


def test_a_users_own_command_that_fails_names_the_stage_and_the_command(toy: Project) -> None:
    """A stage need not be one of ours; its failure is told all the same."""
    toy.edit("dvc.yaml", "sort source.txt", "sort nothing.txt")
    with pytest.raises(StageFailed, match=r"failed to reproduce 'own@a': failed to run: sort nothing\.txt"):
        reproduce()


def test_a_runner_may_put_something_around_each_stage(toy: Project) -> None:
    """As a flow does to show each stage as a task."""
    seen: list[str] = []

    def around(stage: str, go: Callable[[], dvc_graph.StageOutcome]) -> dvc_graph.StageOutcome:
        outcome = go()
        seen.append(f"{stage} {outcome.how}")
        return outcome

    dvc_graph.reproduce("a", run, around=around)
    assert seen == ["count@a ran", "own@a ran", "package@a ran"]


def test_a_file_that_is_not_here_is_named(toy: Project) -> None:
    """A stage whose input nobody makes cannot run."""
    (toy.root / "source.txt").unlink()
    with pytest.raises(StageFailed, match=r"failed to reproduce 'count@a': .*No such file.*source\.txt"):
        reproduce()


def test_a_data_version_that_is_not_here_is_told_with_what_brings_it(small: Project) -> None:
    """A fresh clone names a data version and has none of its files."""
    shutil.rmtree(small.root / "data")
    shutil.rmtree(small.root / ".dvc" / "cache")
    with pytest.raises(DataMissing, match=r"missing data 'source': data\..*`evergreen data` brings them"):
        dvc_graph.reproduce("tiny", steps.run)


def test_nothing_is_made_from_data_that_has_no_name(small: Project) -> None:
    """A kill between the partitions and data.dvc leaves files that are in no version yet."""
    (small.root / "data.dvc").unlink()
    with pytest.raises(DataMissing, match=r"there is no data\.dvc: no data version was made yet\. .*run ingest"):
        dvc_graph.reproduce("tiny", steps.run)
    assert {path.name for path in (small.root / "build" / "tiny").iterdir()} <= {"environment", ".gitignore"}


@pytest.mark.parametrize("lost", [True, False])
def test_training_does_not_move_the_data_version(small: Project, lost: bool) -> None:
    """DVC would name whatever lies in data/: also when a partition was lost, or came past ingest."""
    named = (small.root / "data.dvc").read_text()
    if lost:
        (small.root / "data" / "readings" / "2013-03.csv").unlink()
    else:
        write_readings(small.root, 4)
    with pytest.raises(DataVersionDiffers) as caught:
        dvc_graph.reproduce("tiny", run)
    assert str(caught.value) == (
        "data does not hold the version that data.dvc names. While an ingest is at work that is so: it ends with a "
        "version, and the training that it triggers finds it. Else put it back (dvc checkout "
        "data.dvc), or let ingest make a version of what has arrived."
    )
    assert (small.root / "data.dvc").read_text() == named
    assert called(small) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("stages:", "stages: [", "dvc.yaml"),
        ("deps: [source.txt]", "dips: [source.txt]", "dvc.yaml"),
        ("${key}.times", "${kee}.times", "dvc.yaml"),
    ],
)
def test_a_graph_that_cannot_be_read_is_a_mistake(toy: Project, old: str, new: str, said: str) -> None:
    """It was written so: no retry will mend it."""
    toy.edit("dvc.yaml", old, new)
    with pytest.raises(Mistake, match=said):
        dvc_graph.pending("a")
    with pytest.raises(Mistake, match=said):
        reproduce()


def test_two_processes_reproduce_two_models_at_once(toy: Project) -> None:
    """Neither waits for the other's stages, and both ends are in dvc.lock."""
    first = start(toy, "a", waits="count")
    assert reproduce("b") == {"count@b": "ran", "own@b": "ran", "package@b": "ran"}
    assert first.poll() is None
    go(toy)
    assert finished(first) == RAN
    assert dvc_graph.pending("a") == dvc_graph.pending("b") == {}


@pytest.mark.parametrize("is_asked_only", [False, True])
def test_two_processes_that_reproduce_one_model_run_its_stages_once(toy: Project, is_asked_only: bool) -> None:
    """The second waits for the first, finds the stages done, and says of each once what became of it."""
    first = start(toy, "a", waits="package")
    go(toy, after=0.3)
    if is_asked_only:
        assert dvc_graph.pending("a") == {}
    else:
        assert reproduce() == UNCHANGED
    assert finished(first) == RAN
    assert called(toy) == ["count a", "package a"]


def test_who_waits_for_too_long_is_told_who_is_at_work(toy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs does not hang the others for ever."""
    monkeypatch.setattr(dvc_files, "WAIT_SECONDS", 0)
    first = start(toy, "a", waits="count")
    with pytest.raises(InUse, match=rf"is in use by \(PID {first.pid}\): .*, for 0 s now. When it is done, run again$"):
        reproduce()
    go(toy)
    assert finished(first) == RAN


@pytest.mark.parametrize("step", ["count", "package"])
def test_after_a_kill_the_next_run_completes(toy: Project, step: str) -> None:
    """Killed in the middle of writing a file or a folder: no half is left to be read, and the result is the same."""
    reproduce()
    expected = files.tree(toy.root / "build" / "a")
    lock = (toy.root / "dvc.lock").read_text()
    for made in ("build", ".dvc/cache", "var"):
        shutil.rmtree(toy.root / made)
    (toy.root / "dvc.lock").unlink()
    victim = start(toy, "a", waits=step)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    assert not (toy.root / "build" / "a" / "release").exists()
    assert reproduce() == (RAN if step == "count" else {**UNCHANGED, "package@a": "ran"})
    made = {path: hash_ for path, hash_ in files.tree(toy.root / "build" / "a").items() if ".tmp" not in path}
    assert made == expected
    assert (toy.root / "dvc.lock").read_text() == lock
    assert "up to date" in toy.dvc("status", "package@a")
