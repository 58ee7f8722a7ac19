"""`evergreen reproduce`: a candidate made again of its commit, data and packages, level by level."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deployments import cli
from tasks import steps
from tasks.data import versions
from tasks.ground import files, params, paths, settings
from tasks.ground.errors import Mistake, SourceUnavailable
from tasks.lifecycle import reproduce
from tasks.release import comparison
from tasks.release.gate import gate
from tasks.release.package import package
from tasks.release.registry import registry, verdict_records
from tasks.training import dvc_graph
from tests.conftest import Project, copy_project

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")]


def judged() -> str:
    """Run the graph of `tiny`, register what came out and record its verdict; gives the candidate."""
    dvc_graph.reproduce("tiny", lambda step, arguments: steps.run_as_stage(step, *arguments))
    candidate = package.identity_of(settings.BUILD / "tiny" / "release")
    version = registry.register("tiny", candidate)
    config = params.load().model("tiny")
    case = comparison.comparison("tiny", config, registry.champion("tiny"))
    verdict_records.record("tiny", version.number, gate.judge(case, config.gate, config.evaluate.resamples))
    return candidate


@pytest.fixture(scope="module")
def made(
    small_copied: Path, tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]
) -> tuple[Project, str]:
    """A project of which one candidate was made with all that it needs in commits."""
    project = enter_module(copy_project(small_copied, tmp_path_factory.mktemp("again") / "project"))
    return project, judged()


def levels(candidate: str) -> dict[str, reproduce.Level]:
    """What came out, by name."""
    origin = reproduce.find(candidate, params.load())
    return {each.name: each for each in reproduce.run(origin) if isinstance(each, reproduce.Level)}


def test_everything_comes_out_as_it_was(made: tuple[Project, str], capsys: pytest.CaptureFixture[str]) -> None:
    """All five levels, also after the project has gone on; nothing of it changes, and nothing is left behind."""
    project, candidate = made
    project.edit("params.yaml", "C: 1.0", "C: 0.5")
    project.commit()
    shutil.rmtree(project.root / "build")
    before = files.tree(project.root / "var" / "mlflow")
    assert cli.main(["reproduce", candidate, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["levels"]
    assert [(level["name"], level["proven"]) for level in found] == [
        ("answers", True),
        ("rows", True),
        ("model", True),
        ("release", True),
        ("verdict", True),
    ]
    assert candidate in found[3]["why"]
    assert not paths.reproduced(candidate).exists()
    assert files.tree(project.root / "var" / "mlflow") == before


@pytest.mark.long
def test_what_no_commit_has_is_named(made: tuple[Project, str]) -> None:
    """A candidate of edited parameters: its rows come out again, its model does not, and the origin says why."""
    project, _ = made
    project.edit("params.yaml", "C: 0.5", "C: 0.1")
    candidate = judged()
    assert "with changes that no commit has" in str(reproduce.find(candidate, params.load()))
    found = levels(candidate)
    assert [name for name, level in found.items() if level.proven] == ["answers", "rows"]
    assert "model.skops" in found["release"].why
    assert "judged otherwise" in found["verdict"].why


def test_a_candidate_that_nobody_knows_is_a_mistake(made: tuple[Project, str]) -> None:
    """Its message says where the known ones are."""
    with pytest.raises(Mistake, match="evergreen history"):
        reproduce.find("0123456789abcdef", params.load())


def test_a_commit_that_is_not_here_is_named(made: tuple[Project, str]) -> None:
    """Before anything is made."""
    origin = replace(reproduce.find(made[1], params.load()), commit="c" * 40)
    with pytest.raises(Mistake, match="git fetch --all"):
        list(reproduce.run(origin))


def test_a_project_in_a_folder_of_its_repository_is_found_in_the_clone(small: Project, tmp_path: Path) -> None:
    """Its data version comes from the cache, whatever has become of the remote."""
    shutil.rmtree(small.root / ".git")
    Project(small.root.parent).run("git", "init", "-q")
    small.commit()
    commit = small.run("git", "rev-parse", "HEAD").stdout.strip()
    place = reproduce._clone(commit, tmp_path / "again")
    assert place == tmp_path / "again" / small.root.name
    (small.root / ".dvc" / "config").write_text("")
    reproduce._bring_data(str(versions.current()), place)
    assert versions.tree(place / "data") == versions.tree()
    assert (place / ".dvc" / "config.local").stat().st_mode & 0o077 == 0


def test_a_data_version_that_is_gone_is_named(small: Project, tmp_path: Path) -> None:
    """No code of the candidate's is blamed for it."""
    place = reproduce._clone(small.run("git", "rev-parse", "HEAD").stdout.strip(), tmp_path / "again")
    with pytest.raises(SourceUnavailable, match=f"{'0' * 32}.dir"):
        reproduce._bring_data("0" * 32 + ".dir", place)
