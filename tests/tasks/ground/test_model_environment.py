"""Which locked packages a model stands on."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from tasks.ground import arithmetic, files, model_environment, params, settings
from tasks.ground.errors import EnvironmentDiffers, ModelCodeError

MODEL = "tiny"
FAMILIES = settings.ROOT / "tasks" / "runtime" / "families"
LOCK = (settings.ROOT / "requirements.lock").read_text(encoding="utf-8")
LIGHTGBM = (settings.ROOT / "locks" / "lightgbm.lock").read_text(encoding="utf-8")
ROWS, PIPELINE = f"models/{MODEL}/rows/__init__.py", f"models/{MODEL}/pipeline/__init__.py"


def pin(name: str, lock: str = LOCK) -> str:
    """The line of a package in the real lock."""
    return next(line for line in lock.splitlines() if line.startswith(f"{name}=="))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a lock, a build folder of its own, and a model whose estimator can be chosen."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "ROOT", root)
        patch.setattr(settings, "BUILD", root / "build")
        shutil.copytree(FAMILIES, root / "tasks" / "runtime" / "families")
        yield root


def written(
    project, lock=LOCK, groups=LIGHTGBM, estimator="sklearn.dummy.DummyClassifier", code=None
) -> dict[str, list[str]]:
    """Purpose → the lines of its file, freshly made of a lock, an estimator and code."""
    (project / "requirements.lock").write_text(lock)
    files.write_text(project / "locks" / "lightgbm.lock", groups)
    code = {ROWS: "import pandas as pd\n", PIPELINE: "from sklearn.pipeline import Pipeline\n"} | (code or {})
    files.remove(project / "models")
    for path, text in code.items():
        files.write_text(project / path, text)
    model = SimpleNamespace(estimator=SimpleNamespace(class_=estimator))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(params, "load", lambda: SimpleNamespace(model=lambda _: model))
        model_environment.environment(MODEL)
    return {p: model_environment.path(MODEL, p).read_text().splitlines() for p in model_environment.ROOTS}


@pytest.fixture(scope="module")
def lines(project) -> dict[str, list[str]]:
    """Purpose → the lines of its file, of the real lock."""
    return written(project)


@pytest.fixture(scope="module")
def names(lines) -> dict[str, set[str]]:
    """Purpose → the packages in its file."""
    return {purpose: {line.split("==")[0] for line in lines[purpose]} for purpose in lines}


def test_each_purpose_gets_exact_sorted_pins(lines):
    """Where something is computed, the arithmetic stands above them: another processor may give another model."""
    for purpose in model_environment.ROOTS:
        pins = [line for line in lines[purpose] if line != f"# {arithmetic.in_effect()}"]
        assert (len(pins) < len(lines[purpose])) == (purpose in {"preparation", "training", "evaluation"})
        assert pins == sorted(pins)
        assert all("==" in line and "hash" not in line and "\\" not in line for line in pins)


def test_requirements_of_requirements_are_included(names):
    """Joblib changes what scikit-learn computes, though nobody here imports it; what Windows needs is named as well."""
    assert {"scikit-learn", "joblib", "threadpoolctl", "numpy", "pydantic-core", "tzdata"} <= names["training"]


def test_what_draws_does_not_train(names):
    """Matplotlib and what it brings are the evaluation's: a bump of pillow does not train a model again."""
    drawing = {"matplotlib", "pillow", "fonttools", "contourpy"}
    pins = {name for name in names["training"] if not name.startswith("#")}
    assert not pins & drawing
    assert names["evaluation"] >= pins | drawing


def test_serving_needs_no_tool_of_training(names):
    """A serving image holds no MLflow, Prefect, DVC or Great Expectations."""
    assert {"bentoml", "skops", "orjson", "prometheus-client"} <= names["serving"]
    others = {"mlflow", "mlflow-skinny", "prefect", "dvc", "great-expectations", "fastapi"}
    assert not names["serving"] & others


def test_a_bump_of_an_unrelated_package_changes_nothing(project, lines):
    """Another Prefect does not train a model again."""
    assert written(project, LOCK.replace(pin("prefect"), "prefect==99.0 \\")) == lines


def test_versions_that_depend_on_the_machine_keep_their_markers(project):
    """The file is the same on every machine: it holds every machine's line."""
    here = pin("joblib").replace(" \\", " ; python_full_version < '4' \\")
    there = "joblib==99.0 ; python_full_version >= '4'"
    lock = LOCK.replace(pin("joblib"), f"{here}\n    --hash=sha256:0\n{there} \\")
    joblib = [line for line in written(project, lock)["training"] if line.startswith("joblib==")]
    assert joblib == [here.removesuffix(" \\"), there]


def test_another_installed_version_is_refused(project, lines):
    """The message says what is installed, what is locked, and what to type; nothing is written."""
    before = files.tree(project / "build")
    with pytest.raises(EnvironmentDiffers, match=r"pandas 3\S* is installed; .* names 1\.0\.0\n.*make setup"):
        written(project, LOCK.replace(pin("pandas"), "pandas==1.0.0 \\"))
    assert files.tree(project / "build") == before


def test_a_needed_package_without_a_line_is_refused(project):
    """A lock that was cut by hand is not believed."""
    with pytest.raises(EnvironmentDiffers, match=r"joblib is needed, but the lock has no line for it"):
        written(project, LOCK.replace(f"{pin('joblib')}\n", ""))


# ── what only some models use ─────────────────────────────────────────────────────────────────────


def changed(before: dict[str, list[str]], after: dict[str, list[str]]) -> set[str]:
    """The purposes whose files differ."""
    return {purpose for purpose in before if before[purpose] != after[purpose]}


MODELLING = {"training", "evaluation", "serving"}
OWN, NET = (f"models/{MODEL}/pipeline/{name}.py" for name in ("own", "net"))
CAUGHT = "try:\n    import lightgbm\nexcept ImportError:\n    pass\n"
TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lightgbm\n"


@pytest.mark.group("lightgbm")
@pytest.mark.parametrize(
    ("uses", "stands_on_it"),
    [
        ({}, set()),
        ({"estimator": "lightgbm.LGBMClassifier"}, MODELLING),
        ({"code": {PIPELINE: "def build(estimator):\n    import lightgbm\n"}}, MODELLING),
        ({"code": {PIPELINE: "from . import net\n", NET: "import lightgbm.sklearn\n"}}, MODELLING),
        ({"code": {PIPELINE: CAUGHT}}, MODELLING),
        ({"code": {PIPELINE: TYPES}}, set()),
        ({"estimator": f"models.{MODEL}.pipeline.own.Own", "code": {OWN: "import lightgbm\n"}}, MODELLING),
        ({"code": {ROWS: "from lightgbm import Dataset\n"}}, {"preparation"}),
    ],
)
def test_a_bump_of_a_library_reaches_what_the_model_uses_it_for(project, uses, stands_on_it):
    """Its estimator, its pipeline, its rows; another model's files stay as they are."""
    before = written(project, **uses)
    assert {p for p in before if pin("lightgbm", LIGHTGBM).removesuffix(" \\") in before[p]} == stands_on_it
    bumped = LIGHTGBM.replace(pin("lightgbm", LIGHTGBM), "lightgbm==99.0 \\")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_environment.locked_packages, "refuse_difference", lambda *_: None)
        assert changed(before, written(project, groups=bumped, **uses)) == stands_on_it


@pytest.mark.group("lightgbm")
def test_a_net_of_the_platform_needs_pytorch_to_be_trained_and_not_to_serve(project, tmp_path):
    """What `tasks.runtime` itself needs to answer stands in ROOTS."""
    net = {"tasks/runtime/some_net.py": "def fit():\n    import lightgbm\n"}
    after = written(project, estimator="tasks.runtime.some_net.Net", code=net)
    assert changed(written(project), after) == {"training"}


def test_packages_that_bring_another_name_are_known(project):
    """`yaml` is PyYAML's."""
    after = written(project, code={PIPELINE: "import yaml\n"})
    assert any(line.startswith("pyyaml==") for line in after["serving"])


@pytest.mark.parametrize(
    ("uses", "told"),
    [
        (
            {"code": {PIPELINE: "import numpy\nimport no_such_thing.deep\n"}},
            rf"^{PIPELINE}, line 2, imports no_such_thing, which is not installed: add no_such_thing to a group",
        ),
        (
            {"estimator": "no_such_thing.Regressor"},
            r"^params.yaml: estimator.class is of the package no_such_thing, which is not installed: add",
        ),
        (
            {"code": {PIPELINE: "import pytest\n"}, "lock": LOCK.replace(pin("pytest"), "")},
            rf"^{PIPELINE}, line 1, imports pytest \(pytest\), which is installed but not locked, .*: add pytest to",
        ),
        (
            {"estimator": "absent.Regressor", "groups": f"{LIGHTGBM}absent==1.0 \\\n"},
            "^params.yaml: .* absent, which is not installed: `make setup WITH=lightgbm` installs it",
        ),
    ],
)
def test_a_package_that_is_not_there_or_not_locked_is_told_with_its_place(project, uses, told):
    """What, where, and what to type."""
    with pytest.raises(EnvironmentDiffers, match=told):
        written(project, **uses)


def test_code_that_is_not_python_is_told_with_its_line(project):
    """Before anything is trained."""
    with pytest.raises(ModelCodeError, match=rf"{PIPELINE}, line 1"):
        written(project, code={PIPELINE: "import (\n"})


@pytest.mark.group("lightgbm")
def test_what_the_platform_knows_of_a_library_counts_for_the_models_that_use_it(project):
    """An edit of tasks/runtime/families/lightgbm.py trains those again, and no other."""
    used, unused = written(project, estimator="lightgbm.LGBMClassifier"), written(project)
    file = project / "tasks" / "runtime" / "families" / "lightgbm.py"
    file.write_text(file.read_text() + "\n# an edit\n")
    assert changed(unused, written(project)) == set()
    assert changed(used, written(project, estimator="lightgbm.LGBMClassifier")) == MODELLING
