"""Which locked packages a purpose stands on."""

from __future__ import annotations

import pytest

from tasks.ground import arithmetic, files, locked_packages, settings
from tasks.ground.errors import EnvironmentDiffers

LOCK = (settings.ROOT / "requirements.lock").read_text(encoding="utf-8")


def pin(name: str) -> str:
    """The line of a package in the real lock."""
    return next(line for line in LOCK.splitlines() if line.startswith(f"{name}=="))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a lock and a build folder of its own."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "ROOT", root)
        patch.setattr(settings, "BUILD", root / "build")
        yield root


def written(project, lock: str = LOCK) -> dict[str, list[str]]:
    """Purpose → the lines of its file, freshly made of a lock."""
    (project / "requirements.lock").write_text(lock)
    locked_packages.environment()
    folder = project / "build" / "environment"
    return {purpose: (folder / f"{purpose}.txt").read_text().splitlines() for purpose in locked_packages.ROOTS}


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
    for purpose in locked_packages.ROOTS:
        pins = [line for line in lines[purpose] if line != f"# {arithmetic.in_effect()}"]
        assert (len(pins) < len(lines[purpose])) == (purpose in {"training", "evaluation"})
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
    with pytest.raises(EnvironmentDiffers, match=r"joblib is needed, but requirements\.lock has no line for it"):
        written(project, LOCK.replace(f"{pin('joblib')}\n", ""))
