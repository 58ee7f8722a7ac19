"""A study of a model's training rows: it reads no row of the holdout, proposes an edit, and survives what is killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from deployments import cli
from tasks import steps
from tasks.engine import engine, local
from tasks.engine.protocol import ThisProcess
from tasks.ground import files, json_lines, params, paths, settings
from tasks.ground.errors import DataMissing, Mistake
from tasks.lifecycle import tune
from tests.conftest import Project, copy_project
from tests.deployments.conftest import until

pytestmark = [
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),  # Great Expectations imports it
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC uses it
]

TUNE = "tune: {space: {C: {low: 0.001, high: 100, log: true}, solver: {choices: [lbfgs, newton-cg]}}, trials: 12}"


@pytest.fixture(scope="module")
def prepared(
    small_copied: Path, tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]
) -> Path:
    """The small project with rows, and something to search."""
    root = copy_project(small_copied, tmp_path_factory.mktemp("tuned") / "project")
    (root / "params.yaml").write_text((root / "params.yaml").read_text().rstrip("\n") + f"\n    {TUNE}\n")
    enter_module(root)
    steps.run("environment", ["tiny"])
    for stage in ("validate", "prepare"):
        steps.run(stage, ["tiny"])
    return root


@pytest.fixture
def project(prepared: Path, tmp_path: Path, enter: Callable[[Path], Project]) -> Project:
    """A copy for a test of its own."""
    return enter(copy_project(prepared, tmp_path / "project"))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started: the same fits, one after the other."""
    in_this_process(monkeypatch)


def in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Whatever is asked for, this process does."""
    patch.setattr(engine, "opened", lambda *_, **__: nullcontext(ThisProcess()))


def search(**request: Any) -> tune.TuneResult:
    """A study of the small model."""
    return tune.run("tiny", params.load(), tune.TuneRequest(workers=1, **request), log=lambda _: None)


@pytest.mark.usefixtures("here")
def test_the_holdout_is_never_read(project: Project) -> None:
    """Its file is garbage: the study is the same."""
    before = search(trials=6)
    (newest,) = files.read_json(settings.BUILD / "tiny" / "split.json")["holdout"]
    holdout = settings.BUILD / "tiny" / "rows" / f"{newest}.parquet"
    holdout.write_bytes(b"no rows at all")
    shutil.rmtree(paths.tunings("tiny"))
    assert search(trials=6).study.digest == before.study.digest


@pytest.mark.usefixtures("here")
def test_rows_of_the_holdout_in_a_file_of_both_sides_do_not_count(project: Project) -> None:
    """Split at random: labels and features of holdout rows are turned around, and nothing changes."""
    from tasks.modelling import rows

    split = settings.BUILD / "tiny" / "split.json"
    names = [path.stem for path in sorted((settings.BUILD / "tiny" / "rows").glob("*.parquet"))]
    files.write_json(split, {"by": "random", "share": 0.3, "partitions": names})
    project.edit("params.yaml", "split: {by: time, holdout: 1}", "split: {by: random, holdout: 0.3}")
    before = search(trials=6)
    for name in names:
        path = settings.BUILD / "tiny" / "rows" / f"{name}.parquet"
        frame = pd.read_parquet(path)
        held_out = rows.in_holdout(frame["id"], 0.3)
        frame.loc[held_out, "label"] = 1 - frame.loc[held_out, "label"]
        frame.loc[held_out, "pressure"] = -1e9
        frame.to_parquet(path, index=False)
    shutil.rmtree(paths.tunings("tiny"))
    after = search(trials=6)
    assert after.folds[0] == "fold 1"
    assert after.study.digest == before.study.digest


@pytest.mark.usefixtures("here")
def test_a_study_proposes_an_edit_a_page_and_a_run(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """`--apply` writes the edit; MLflow has one run, however often it is asked for."""
    from mlflow import MlflowClient

    project.edit("params.yaml", "params: {C: 1.0}", "params: {C: 0.01}   # as ever")
    assert cli.main(["tune", "tiny", "--workers", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    folder = paths.tunings("tiny")
    assert shown == files.read_json(folder / "study.json")
    assert shown["best"] > 0
    assert shown["trials"][0]["params"] == {"C": 0.01}
    page = (folder / "report.html").read_text()
    assert "Slices, the best trial" in page
    assert "aria-label" in page
    project.run("git", "apply", "--check", str(folder / "proposal.patch"))
    assert cli.main(["tune", "tiny", "--workers", "1", "--apply"]) == 0
    printed = capsys.readouterr()
    assert "params.yaml is written; `evergreen train tiny` has the gate judge it" in printed.out
    assert "trial 12 of 12" not in printed.err, "every fit was taken from the journal"
    best = shown["trials"][shown["best"]]["params"]
    assert params.load().model("tiny").estimator.params == best
    assert "# as ever" in (project.root / "params.yaml").read_text()
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("tiny-tuning")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["best"] < run.data.metrics["present"]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"report.html", "proposal.patch"}
    left = {path.name for path in folder.iterdir() if not path.name.startswith("fits-")}
    assert left == {"report.html", "proposal.patch", "study.json"}, "rows are removed"


@pytest.mark.usefixtures("here")
def test_what_costs_is_searched_by_cost(project: Project) -> None:
    """The gate's loss, its threshold chosen on the learning rows of each fold."""
    project.edit(
        "params.yaml", "      seed: 0", "      seed: 0\n      decision: {cost: {false_positive: 1, false_negative: 5}}"
    )
    project.edit("params.yaml", "loss: log_loss", "loss: cost")
    project.edit("params.yaml", "trials: 12}", "trials: 2, folds: {count: 2}}")
    result = search()
    assert 0 < result.study.best.score <= 5
    assert "cost" in result.sentence()


@pytest.mark.usefixtures("here")
def test_what_cannot_be_searched_is_told(project: Project) -> None:
    """No section, no rows, rows of before a column was named, an edit meanwhile."""
    result = search(trials=3)
    project.edit("params.yaml", "C: 1.0", "C: 1.5")
    if result.patch:
        with pytest.raises(Mistake, match=r"edited since the study began: `git apply var/tune/tiny/proposal\.patch`"):
            tune.apply(result)
    project.edit("params.yaml", "slices: [station]", "slices: [station, side]")
    with pytest.raises(DataMissing, match="rows have no side: they were made before"):
        search()
    project.edit("params.yaml", f"    {TUNE}\n", "")
    with pytest.raises(Mistake, match=r"models.tiny has no `tune`, which says what is tried"):
        search()
    shutil.rmtree(settings.BUILD / "tiny")
    with pytest.raises(DataMissing, match="`evergreen train tiny` makes them"):
        search(configured=params.Tune.model_validate({"space": {"C": {"low": 1, "high": 2}}}))


@pytest.mark.slow
def test_processes_that_die_are_replaced_and_the_table_is_the_same(project: Project) -> None:
    """Two workers, one of which is killed at its first fit, against this process alone."""
    deaths, start = [], local.LocalWorkers._start

    def started(self: local.LocalWorkers) -> local.Worker:
        worker = start(self)
        if not deaths:
            deaths.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)
        return worker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local.LocalWorkers, "_start", started)
        pair = tune.run("tiny", params.load(), tune.TuneRequest(workers=2), log=lambda _: None)
    assert deaths
    assert not [child for child in psutil.Process().children() if "tasks.engine.worker" in child.cmdline()]
    shutil.rmtree(paths.tunings("tiny"))
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        assert search().study.digest == pair.study.digest


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_kills_leave_the_table_as_it_is_and_nothing_behind(project: Project) -> None:
    """Workers and their parent are killed at any moment; no process stays, and no fit that ended is made again."""
    slow = "sklearn.ensemble.HistGradientBoostingClassifier"
    project.edit("params.yaml", TUNE, "tune: {classes: {" + slow + ": {learning_rate: {low: 0.01, high: 0.2}, "
                 "max_iter: {choices: [300, 600]}}}, trials: 16}")  # fmt: skip
    digests = {}
    for count in (1, 2, 4):
        shutil.rmtree(paths.tunings("tiny"), ignore_errors=True)
        digests[count] = tune.run(
            "tiny", params.load(), tune.TuneRequest(workers=count), log=lambda _: None
        ).study.digest
    assert len(set(digests.values())) == 1
    shutil.rmtree(paths.tunings("tiny"))
    draw, command = (
        random.Random(0),
        [sys.executable, "-m", "deployments.cli", "tune", "tiny", "--workers", "2", "--json"],
    )
    kills, run = 0, None
    while kills < 20:
        if run is None or run.poll() is not None:
            run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if _kill(run, draw):
            kills += 1
    run.wait()
    until(lambda: not [each for each in psutil.process_iter(["cmdline"]) if _is_worker(each, project.root)], 60)
    done = json.loads(project.run(*command).stdout)
    assert done["study"] == digests[1]
    (journal,) = paths.tunings("tiny").glob("fits-*.jsonl")
    fits_made = [(line["estimator"], line["fold"]) for line in json_lines.lines(journal)]
    assert len(fits_made) == len(set(fits_made))


def _kill(run: subprocess.Popen[bytes], draw: random.Random) -> bool:
    """Kill a worker, or now and then the parent, once there are workers."""
    time.sleep(draw.uniform(0.2, 1.5))
    try:
        at_work = psutil.Process(run.pid).children()
        if not at_work:
            return False
        (run if draw.random() < 0.25 else draw.choice(at_work)).kill()
    except psutil.NoSuchProcess:
        return False
    return True


def _is_worker(process: psutil.Process, root: Path) -> bool:
    command = " ".join(process.info["cmdline"] or [])
    return "tasks.engine.worker" in command and process.cwd() == str(root)


def test_the_form_has_the_whole_search() -> None:
    """The flow's parameters have types, so that Prefect's UI makes a form of them."""
    from prefect.utilities.callables import parameter_schema

    from flows.tune import tune as tune_flow

    schema = parameter_schema(tune_flow).model_dump()
    assert schema["required"] == ["model"]
    assert {"trials", "budget_s", "workers", "configured"} <= set(schema["properties"])
    assert {"Tune", "Searched", "TuneFolds"} <= set(schema["definitions"])
