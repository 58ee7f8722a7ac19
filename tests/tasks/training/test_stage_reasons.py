"""The words for why a stage would run, on a small project in which everything is up to date."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tasks.ground import files, model_environment
from tasks.ground.errors import SourceUnavailable
from tasks.training import dvc_graph, stage_cache, stage_reasons
from tests.conftest import Project, copy_project, write_readings


def run(step: str, arguments: list[str]) -> None:
    """Steps that write what dvc.yaml says, in no time: words are about inputs, not about results."""
    root = Path.cwd() / "build"
    (model,) = arguments
    if step == "environment":
        for purpose in model_environment.ROOTS:
            files.write_text(model_environment.path(model, purpose), "joblib==1.5.0\nnumpy==2.4.0\n")
        return
    made = {
        "validate": ["partitions.json"],
        "prepare": ["rows/a.parquet", "split.json"],
        "train": ["model/model.skops"],
        "evaluate": ["predictions.parquet", "slices.json", "metrics.json", "plots/a.json"],
        "package": ["release/candidate.json"],
    }
    for name in made[step]:
        below = root / model / "evaluation" if step == "evaluate" else root / model
        (below / name).parent.mkdir(parents=True, exist_ok=True)
        files.write_text(below / name, f'{{"{step}": 1}}\n')


@pytest.fixture(scope="module")
def made(
    small_copied: Path, tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]
) -> Project:
    """The small project, with everything made; not to be written to."""
    root = copy_project(small_copied, tmp_path_factory.mktemp("reasons") / "project")
    project = enter_module(root)
    dvc_graph.reproduce("tiny", run)
    return project


@pytest.fixture
def small(made: Project, tmp_path: Path, enter: Callable[[Path], Project]) -> Project:
    """A copy of it."""
    return enter(copy_project(made.root, tmp_path / "project"))


def test_a_parameter_is_told_with_both_values(small: Project) -> None:
    """The key itself, not the section; what comes after follows."""
    small.edit("params.yaml", "{C: 1.0}", "{C: 2.5}")
    assert dvc_graph.reasons("tiny") == {
        "environment@tiny": None,
        "validate@tiny": None,
        "prepare@tiny": None,
        "train@tiny": "params.yaml: models.tiny.estimator.params.C 1.0 → 2.5",
        "evaluate@tiny": "follows train@tiny, if that changes",
        "package@tiny": "params.yaml: models.tiny.estimator.params.C 1.0 → 2.5",
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("options: {fails_above: 0}", "options: {fails_above: 0, late: true}", "models.tiny.options.late is new: true"),
        ("options: {fails_above: 0}", "options: {}", "models.tiny.options.fails_above is gone (was 0)"),
        ("holdout: 1", "holdout: 2", "models.tiny.split.holdout 1 → 2"),
    ],
)
def test_a_key_that_came_or_went_is_told(small: Project, old: str, new: str, said: str) -> None:
    """With the value it has, or had."""
    small.edit("params.yaml", old, new)
    assert dvc_graph.pending("tiny")["prepare@tiny"] == f"params.yaml: {said}"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("{C: 1.0, early_stopping: false}", "{C: 1.0, early_stopping: 0}", "early_stopping false → 0"),
        ("{C: 1.0, early_stopping: 1}", "{C: 1.0, early_stopping: true}", "early_stopping 1 → true"),
        ("{C: 1.0, steps: [1, {a: false}]}", "{C: 1.0, steps: [1, {a: 0}]}", 'steps [1, {"a": false}] → [1, {"a": 0}]'),
        ("{class_weight: {0: 1, 1: 5}}", "{class_weight: {0: 1, 1: 7}}", "class_weight.1 5 → 7"),
        ("{class_weight: {0: 1, 1: 5}}", "{class_weight: {'0': 1, '1': 5}}", "class_weight.0 is gone (was 1)"),
        ("{class_weight: {0: 1, 1: 5}}", "{}", 'class_weight is gone (was {"0": 1, "1": 5})'),
    ],
)
def test_a_change_of_type_is_a_change(small: Project, before: str, after: str, said: str) -> None:
    """DVC takes False for 0, and stumbles over keys that are numbers; what ran again is unchanged after it."""
    small.edit("params.yaml", "{C: 1.0}", before)
    dvc_graph.reproduce("tiny", run)
    small.edit("params.yaml", before, after)
    assert dvc_graph.reasons("tiny")["train@tiny"] == f"params.yaml: models.tiny.estimator.params.{said}"
    how = {outcome.stage: outcome.how for outcome in dvc_graph.reproduce("tiny", run)}
    assert (how["prepare@tiny"], how["train@tiny"]) == ("unchanged", "ran")
    assert not any(dvc_graph.reasons("tiny").values())


@pytest.mark.parametrize("value", ["1.0", "1"])
def test_a_whole_number_is_the_same_however_it_is_written(small: Project, value: str) -> None:
    """Code cannot tell them apart (tasks/ground/params.py), so nothing runs again."""
    small.edit("params.yaml", "{C: 1.0}", f"{{C: {value}}}")
    assert not any(dvc_graph.reasons("tiny").values())


def test_data_is_told_by_its_partitions(small: Project) -> None:
    """First as what lies in data/ and is in no version, then, with a version, as what differs from the last one."""
    write_readings(small.root, 4)
    (small.root / "data/readings/2013-01.csv").unlink()
    said = dvc_graph.pending("tiny")
    assert said["data.dvc"] == ("data: readings/2013-04.csv is new, readings/2013-01.csv is gone: in no data version")
    assert said["validate@tiny"] == "follows data.dvc, if that changes"
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=small.root, check=True)
    assert dvc_graph.pending("tiny")["validate@tiny"] == (
        "data: readings/2013-04.csv is new, readings/2013-01.csv is gone"
    )


def test_the_partitions_of_another_model_are_not_named(small: Project) -> None:
    """A stage depends on all of data/; what it does not read is none of its business."""
    files.write_text(small.root / "data" / "prices" / "2013-04.csv", "a\n")
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=small.root, check=True)
    assert dvc_graph.pending("tiny")["validate@tiny"] == "data: only datasets that it does not read changed"
    write_readings(small.root, 4)
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=small.root, check=True)
    assert dvc_graph.pending("tiny")["validate@tiny"] == "data: readings/2013-04.csv is new"


def test_an_edit_is_told_from_new_data(small: Project) -> None:
    """Whether a person changed something, or only time went by."""
    assert dvc_graph.edited("tiny") == ""
    write_readings(small.root, 4)
    small.dvc("add", "-q", "data")
    assert dvc_graph.pending("tiny")
    assert dvc_graph.edited("tiny") == ""
    small.edit("params.yaml", "{C: 1.0}", "{C: 2.5}")
    assert dvc_graph.edited("tiny") == "params.yaml: models.tiny.estimator.params.C 1.0 → 2.5"
    small.edit("models/tiny/rows/__init__.py", "> fails_above", ">= fails_above")
    assert dvc_graph.edited("tiny") == "models/tiny/rows is modified"


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("deps", "deployments/serving/api_keys.py", "deployments/serving/api_keys.py was none of its inputs before"),
        ("params", "landing", 'params.yaml: landing is new: "var/landing"'),
    ],
)
def test_an_input_that_is_new_in_the_graph_is_told(small: Project, kind: str, name: str, said: str) -> None:
    """dvc.lock has no word of it yet."""
    graph_file = small.root / "dvc.yaml"
    whole = yaml.safe_load(graph_file.read_text())
    whole["stages"]["train"]["do"][kind].append(name)
    graph_file.write_text(yaml.safe_dump(whole, sort_keys=False))
    assert dvc_graph.pending("tiny")["train@tiny"] == said


def test_a_part_of_the_graph_can_be_brought_up_to_date(small: Project) -> None:
    """As far as it is asked for, and no further."""
    small.edit("models/tiny/rows/__init__.py", "> fails_above", ">= fails_above")
    ran = [outcome.stage for outcome in dvc_graph.reproduce("tiny", run, until="prepare") if outcome.how == "ran"]
    assert ran == ["environment@tiny", "prepare@tiny"]


def test_a_package_is_told_with_both_versions(small: Project) -> None:
    """When the pins of a purpose changed: here the environment stage ran with a new lock, and nothing after it did."""

    def bumped(step: str, arguments: list[str]) -> None:
        if step != "environment":
            raise SourceUnavailable("stop here")
        for purpose in model_environment.ROOTS:
            files.write_text(model_environment.path("tiny", purpose), "joblib==1.6.0\nnumpy==2.4.0\n")

    (small.root / "requirements.lock").write_text("joblib==1.6.0\n")
    assert dvc_graph.pending("tiny")["environment@tiny"] == "requirements.lock: joblib 1.5.0 → 1.6.0 (and 1 more)"
    with pytest.raises(SourceUnavailable, match="stop here"):
        dvc_graph.reproduce("tiny", bumped)
    said = dvc_graph.pending("tiny")
    assert said["validate@tiny"] == "build/tiny/environment/validation.txt: joblib 1.5.0 → 1.6.0"
    assert said["prepare@tiny"] == "build/tiny/environment/preparation.txt: joblib 1.5.0 → 1.6.0"
    assert said["package@tiny"] == "build/tiny/environment/serving.txt: joblib 1.5.0 → 1.6.0"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("joblib==1\nnumpy==2\n", "joblib==2\nnumpy==2\n", "x: joblib 1 → 2"),
        ("joblib==1\n", "joblib==1\nnumpy==2\npandas==3\n", "x: numpy 2 is new (and 1 more)"),
        ("joblib==1\nnumpy==2\n", "joblib==1\n", "x: numpy 2 is gone"),
        ("joblib==1\n", "joblib==1\n", "x is modified"),
        ("a==1 ; python_version < '3.12'\na==2\n", "a==1\n", "x: a 1 | 2 → 1"),
        ("a==1 ; python_version < '3.12'\n", "a==1\n", "x: a 1: on other machines than before"),
        ("# Haswell\n# f.py 1\na==1\n", "# Haswell\n# f.py 2\na==1\n", "x: f.py 1 → f.py 2"),
        ("# Haswell\na==1\n", "# Haswell\n# f.py 2\na==1\n", "x: nothing → f.py 2"),
    ],
)
def test_pins_are_compared_by_package(old: str, new: str, said: str) -> None:
    """The first that differs, and how many more do."""
    assert stage_reasons._environment("x", old, new) == said


def test_a_lock_is_told_by_the_packages_that_steps_use(small: Project) -> None:
    """Any other bump is only «modified»."""
    lock = (small.root / "requirements.lock").read_text()
    pins = {name: pins[0].version for name, pins in stage_reasons.locked_packages.read_lock(lock).items()}
    used = f"joblib=={pins['joblib']}\nnumpy=={pins['numpy']}\n"
    for path in (small.root / "build" / "tiny" / "environment").glob("*.txt"):
        files.write_text(path, used)
    small.edit("requirements.lock", f"joblib=={pins['joblib']}", "joblib==99.0")
    assert stage_reasons._locked("requirements.lock") == f"requirements.lock: joblib {pins['joblib']} → 99.0"
    (small.root / "requirements.lock").write_text(lock.replace(f"prefect=={pins['prefect']}", "prefect==99.0"))
    assert stage_reasons._locked("requirements.lock") == "requirements.lock is modified"


def test_an_output_lost_from_the_cache_alone_is_no_reason(small: Project) -> None:
    """It is here as it should be: reproducing puts it into the cache again and calls nothing."""
    shutil.rmtree(small.root / ".dvc" / "cache" / "files")
    assert dvc_graph.pending("tiny") == {}
    assert {outcome.how for outcome in dvc_graph.reproduce("tiny", run)} == {"unchanged"}
    shutil.rmtree(small.root / "build")
    assert {outcome.how for outcome in dvc_graph.reproduce("tiny", run)} == {"restored"}


def test_the_second_question_is_answered_without_dvc(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was touched since the first."""
    dvc_graph.pending("tiny")
    monkeypatch.setattr(stage_cache, "SETTLED_NS", 0)
    time.sleep(0.02)
    dvc_graph.pending("tiny")
    code = "import sys; from tasks.training import dvc_graph; print(dvc_graph.pending('tiny'), 'dvc' in sys.modules)"
    assert small.python(code) == "{} False\n"
    small.edit("params.yaml", "{C: 1.0}", "{C: 2.5}")
    assert "train@tiny" in dvc_graph.pending("tiny")
