"""The tools' own commands, as their users type them: in a clone, a worktree, an experiment, with a linked cache."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks import steps
from tasks.training import dvc_graph
from tests.conftest import BIN, Project, copy_project

pytestmark = pytest.mark.long

TEMPLATE = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost")


@pytest.fixture(scope="module")
def trained(
    small_copied: Path, tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]
) -> Project:
    """A project whose graph has run, committed and pushed, in a shell that was activated for it. Not to be changed."""
    project = enter_module(copy_project(small_copied, tmp_path_factory.mktemp("tools") / "project"))
    project.run("git", "config", "user.name", "t")
    project.run("git", "config", "user.email", "t@localhost")
    dvc_graph.reproduce("tiny", steps.run)
    project.commit()
    project.dvc("push", "-q")
    return project


def clone(project: Project, folder: Path) -> Project:
    """A fresh clone with the same remote, entered by `cd` alone: the shell stays activated for the other."""
    subprocess.run(["git", "clone", "-q", str(project.root), str(folder)], check=True)
    cloned = Project(folder)
    cloned.dvc("remote", "add", "--local", "-q", "-d", "shared", str(project.root / "var" / "remote"))
    return cloned


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_dvc_pull_brings_a_clone_all_there_is(trained: Project, tmp_path: Path) -> None:
    """Data and results; then nothing has to be run, and no graph of a test is taken for one of the project."""
    cloned = clone(trained, tmp_path / "clone")
    cloned.dvc("pull", "-q")
    assert tree(cloned.root / "build" / "tiny" / "model") == tree(trained.root / "build" / "tiny" / "model")
    status = cloned.dvc("status")
    assert "tests/" not in status
    assert "evaluate@tiny" not in status
    shutil.copytree(Path(__file__).parents[1] / "toy", cloned.root / "tests" / "toy")
    assert "toy" not in cloned.dvc("stage", "list", "--all", "--name-only")


def test_a_command_works_on_the_checkout_that_it_is_typed_in(trained: Project, tmp_path: Path) -> None:
    """Also in a shell that was activated for another one, whose folders and stores nobody meant; and it says so."""
    cloned = clone(trained, tmp_path / "clone")
    code = (
        "import json, os; from tasks.ground import settings; settings.apply(); "
        "print(json.dumps({name: os.environ[name] for name in settings.environment() if name != 'PATH'}))"
    )
    asked = cloned.run(sys.executable, "-c", code)
    told = json.loads(asked.stdout)
    assert not [name for name, value in told.items() if str(trained.root) in value]
    assert (
        told["MLFLOW_TRACKING_URI"]
        == told["MLFLOW_BACKEND_STORE_URI"]
        == f"sqlite:///{cloned.root}/var/mlflow/mlflow.db"
    )
    assert f"this shell is activated for {trained.root}; working on {cloned.root}" in asked.stderr
    sourced = cloned.run(
        "bash", "-c", f'eval "$({sys.executable} -m deployments.cli env)"; echo "$EVERGREEN_ROOT|$BENTOML_HOME"'
    )
    assert sourced.stdout == f"{cloned.root}|{cloned.root}/var/bentoml\n"


def test_a_store_that_a_person_names_stays_where_it_is(
    trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the other checkout's activation set is forgotten."""
    cloned = clone(trained, tmp_path / "clone")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    code = "import os; from tasks.ground import settings; settings.apply(); print(os.environ['MLFLOW_TRACKING_URI'])"
    assert cloned.python(code) == "http://127.0.0.1:1\n"


def test_an_experiment_in_a_folder_of_its_own_leaves_the_workspace_alone(trained: Project) -> None:
    """`dvc exp run --temp`: its results are its own, and `dvc exp show` has them."""
    before = {**tree(trained.root / "build"), "params": (trained.root / "params.yaml").read_bytes()}
    trained.dvc("exp", "run", "--temp", "-n", "few", "-S", "models.tiny.estimator.params.C=0.01", "evaluate@tiny")
    assert {**tree(trained.root / "build"), "params": (trained.root / "params.yaml").read_bytes()} == before
    assert trained.run("git", "status", "--short").stdout == ""
    table = trained.run(BIN / "dvc", "exp", "show", "--csv").stdout
    losses = {row["Experiment"] or row["rev"]: row["log_loss"] for row in csv.DictReader(table.splitlines())}
    assert losses["few"] not in {"", losses["workspace"]}


def test_a_worktree_is_a_checkout_of_its_own(trained: Project, tmp_path: Path) -> None:
    """Its state is below it; nothing is redone there that the cache has."""
    trained.run("git", "worktree", "add", "-q", str(tmp_path / "tree"))
    other = Project(tmp_path / "tree")
    other.dvc("cache", "dir", "--local", str(trained.root / ".dvc" / "cache"))
    other.dvc("checkout", "-q")
    assert tree(other.root / "data") == tree(trained.root / "data")
    assert "didn't change, skipping" in other.dvc("repro", "--dry", "train@tiny")
    assert "Running" not in other.dvc("repro", "--dry", "train@tiny")
    trained.run("git", "worktree", "remove", "--force", str(other.root))


def test_a_linked_cache_is_never_written_through(trained: Project, tmp_path: Path) -> None:
    """`dvc config cache.type symlink`: stages replace their outputs, so an earlier result is still what it was."""
    cloned = clone(trained, tmp_path / "clone")
    cloned.dvc("config", "--local", "cache.type", "symlink")
    cloned.dvc("pull", "-q")
    model = cloned.root / "build" / "tiny" / "model" / "model.skops"
    assert model.is_symlink()
    first, kept = model.resolve(), model.read_bytes()
    cloned.edit("params.yaml", "C: 1.0", "C: 0.01")
    cloned.dvc("repro", "-q", "train@tiny")
    assert model.read_bytes() != kept
    assert first.read_bytes() == kept
    cloned.edit("params.yaml", "C: 0.01", "C: 1.0")
    cloned.dvc("repro", "-q", "train@tiny")
    assert model.read_bytes() == kept


def test_an_older_commit_is_gone_back_to(trained: Project, tmp_path: Path) -> None:
    """`git checkout` and `dvc checkout`: data, results and `why` are those of then; and again those of now."""
    cloned = clone(trained, tmp_path / "clone")
    cloned.dvc("pull", "-q")
    now = tree(cloned.root / "build" / "tiny" / "evaluation")
    cloned.edit("params.yaml", "C: 1.0", "C: 0.01")
    cloned.dvc("repro", "-q", "evaluate@tiny")
    cloned.run(*TEMPLATE, "commit", "-qam", "another")
    cloned.run("git", "checkout", "-q", "HEAD~1")
    cloned.dvc("checkout", "-q")
    assert tree(cloned.root / "build" / "tiny" / "evaluation") == now
    assert "evaluate@tiny" not in cloned.dvc("status")


def test_what_dvc_gc_keeps_is_enough_to_go_on(trained: Project, tmp_path: Path) -> None:
    """`dvc gc --workspace` leaves what stands in the workspace: nothing is run again."""
    cloned = clone(trained, tmp_path / "clone")
    cloned.dvc("pull", "-q")
    cloned.dvc("gc", "--workspace", "--force", "-q")
    shutil.rmtree(cloned.root / "data")
    cloned.dvc("checkout", "-q")
    assert tree(cloned.root / "data") == tree(trained.root / "data")
    assert "evaluate@tiny" not in cloned.dvc("status")


def test_the_tools_find_their_stores_in_an_activated_shell(trained: Project) -> None:
    """`mlflow`, `bentoml` and `prefect` answer without being told where; nothing is made beside `var/`."""
    before = set(trained.root.iterdir())
    mlflow = trained.run(BIN / "mlflow", "experiments", "search")
    assert "Default" in mlflow.stdout
    assert [bento["tag"].split(":")[0] for bento in _json(trained, BIN / "bentoml", "list", "-o", "json")] == ["tiny"]
    assert (
        str(trained.root / "var" / "prefect") in trained.run(BIN / "prefect", "config", "view", "--show-sources").stdout
    )
    assert set(trained.root.iterdir()) == before


def _json(project: Project, *command: str | Path) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = json.loads(project.run(*command).stdout)
    return listed
