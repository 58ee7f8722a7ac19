"""`evergreen try`: one stage on the last inputs, and nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks import steps
from tasks.ground import files, settings
from tasks.ground.errors import DataMissing, Mistake, ModelCodeError, StageFailed
from tasks.lifecycle import trial_stage
from tests.conftest import Project, copy_project

pytestmark = [
    pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning"),  # Great Expectations imports it
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC uses it
]

ROWS = "models/tiny/rows/__init__.py"


@pytest.fixture(scope="module")
def evaluated(
    small_copied: Path, tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]
) -> Path:
    """A project whose stages have run, up to the evaluation; not to be written to."""
    root = tmp_path_factory.mktemp("tried") / "project"
    project = enter_module(copy_project(small_copied, root))
    for stage in ("environment", "validate", "prepare", "train", "evaluate"):
        steps.run(stage, ["tiny"])
    return project.root


@pytest.fixture
def project(evaluated: Path, tmp_path: Path, enter: Callable[[Path], Project]) -> Project:
    """A copy of it."""
    return enter(copy_project(evaluated, tmp_path / "project"))


def tried(stage: str, **more: str) -> list[str]:
    """What is told of a stage."""
    return list(trial_stage.run(stage, "tiny", **more))


def test_rows_are_shown_and_compared_with_the_last_ones(project: Project) -> None:
    """Of the newest partition: some rows, a line per column, and how many rows an edit changed."""
    lines = tried("prepare")
    assert lines[0] == "2013-03: 224 rows, 9 columns"
    assert any(line.split()[:4] == ["label", "int64", "0", "2"] for line in lines)
    assert "beside build/tiny/rows/2013-03.parquet: none changed of 224 rows" in lines
    project.edit(ROWS, "weekday=", "pressure=readings['pressure'].where(readings['hour'] > 6, 0.5),\n        weekday=")
    changed = next(line for line in _again("prepare") if line.startswith("beside"))
    assert "(pressure " in changed
    assert tried("prepare", partition="2013-01")[0].startswith("2013-01: ")


def _again(stage: str) -> list[str]:
    """As a new process would: the code is imported anew."""
    import sys

    for name in [name for name in sys.modules if name.startswith("models.tiny")]:
        del sys.modules[name]
    return tried(stage)


def test_nothing_is_recorded(project: Project) -> None:
    """build/, dvc.lock, MLflow and the Bento store are as they were; the results lie aside."""
    before = {name: sha for name, sha in files.tree(project.root).items() if not _may_change(name)}
    told = tried("evaluate", first="prepare")
    assert any(line.strip().startswith("log_loss") and "[" in line for line in told)
    assert told[-1] == "nothing was recorded; the results of this try are in var/try/tiny"
    assert {name: sha for name, sha in files.tree(project.root).items() if not _may_change(name)} == before
    assert (project.root / "var/try/tiny/tiny/evaluation/metrics.json").exists()
    assert project.root / "build" == settings.BUILD


def _may_change(name: str) -> bool:
    return name.startswith(("var/try/", "var/memo/", "var/locks/")) or "__pycache__" in name


@pytest.mark.slow
def test_a_candidate_is_packaged_aside(project: Project) -> None:
    """Its sizes are told, and the store does not have it."""
    told = tried("package")
    assert "it answers as it was evaluated" in told[0]
    assert not (project.root / "var/bentoml").exists()


def test_a_warning_of_the_training_is_told(project: Project) -> None:
    """With the size of the model and the rows it learned from."""
    pipeline = project.root / "models/tiny/pipeline/__init__.py"
    pipeline.write_text(pipeline.read_text() + "\n\nimport warnings\n\nwarnings.warn('it is coarse', stacklevel=1)\n")
    lines = _again("train")
    assert "  warning: UserWarning: it is coarse" in lines
    assert any("on 448 rows; model.skops" in line for line in lines)


@pytest.mark.parametrize("code", ["1 / 0", "unknown_name", "tables['readings']['nothing']"])
def test_a_failure_shows_the_frames_of_the_teams_code_alone(project: Project, code: str) -> None:
    """Whether the platform expects such a failure or not."""
    project.edit(ROWS, "def rows(", "def helper(tables):\n    return " + code + "\n\n\ndef rows(")
    text = (project.root / ROWS).read_text()
    begin = text.index(":\n", text.index("def rows(")) + 2
    (project.root / ROWS).write_text(f"{text[:begin]}    helper(tables)\n{text[begin:]}")
    with pytest.raises(ModelCodeError) as caught:
        _again("prepare")
    lines = str(caught.value).splitlines()
    assert [line.strip() for line in lines if "in helper" in line or "in rows" in line] == [
        line.strip() for line in lines[1::2]
    ]
    assert lines[-1].strip() == f"return {code}"
    assert "site-packages" not in str(caught.value)


def test_what_fails_of_a_partition_is_told(project: Project) -> None:
    """Each check of it, without the others."""
    assert "all passed" in tried("validate", partition="2013-02")[0]
    path = project.root / "data/readings/2013-02.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))
    with pytest.raises(StageFailed, match="1 of 1 partitions do not pass"):
        tried("validate", partition="2013-02")


@pytest.mark.parametrize(
    ("stage", "more", "said"),
    [
        ("prepar", {}, "there is no stage 'prepar' to try; did you mean 'prepare'?"),
        ("train", {"first": "evaluate"}, "--from evaluate comes after train"),
        ("train", {"partition": "2013-01"}, "--partition is of validate or prepare alone, and not of train"),
        ("prepare", {"partition": "2013-11"}, "rows cannot be made of partition '2013-11'; did you mean '2013-01'?"),
        ("validate", {"partition": "2013-11"}, "data/ has no partition 2013-11 of readings"),
    ],
)
def test_what_cannot_be_tried_is_told(project: Project, stage: str, more: dict[str, str], said: str) -> None:
    """Before anything runs."""
    with pytest.raises(Mistake) as caught:
        tried(stage, **more)
    assert said in str(caught.value)


def test_inputs_that_are_not_there_are_named(project: Project) -> None:
    """With the command that makes them."""
    files.remove(project.root / "build/tiny/model")
    with pytest.raises(DataMissing, match=r"build/tiny has no model, which evaluate reads: `evergreen try evaluate"):
        tried("evaluate")


def test_a_first_try_needs_nothing_in_build(project: Project) -> None:
    """The command that is told works, before any stage has ever run."""
    files.remove(project.root / "build")
    with pytest.raises(DataMissing, match=r"`evergreen try train tiny --from validate` makes it aside"):
        tried("train")
    assert any("on 448 rows; model.skops" in line for line in tried("train", first="validate"))
    assert not (project.root / "build").exists()
