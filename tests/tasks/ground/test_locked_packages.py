"""Which locked packages a purpose stands on."""

from __future__ import annotations

import pytest

from tasks.ground import arithmetic, locked_packages, settings
from tasks.ground.errors import EnvironmentDiffers

LOCK = (settings.ROOT / "requirements.lock").read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the real lock, and a build folder of its own."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(settings, "BUILD", tmp_path / "build")
    (tmp_path / "requirements.lock").write_text(LOCK)
    return tmp_path


def written(project, purpose: str) -> list[str]:
    """The lines of one file, freshly made."""
    locked_packages.environment()
    return (project / "build" / "environment" / f"{purpose}.txt").read_text().splitlines()


def test_each_purpose_gets_exact_sorted_pins(project):
    """Every line is a name and an exact version; nothing else of the lock is in it."""
    for purpose in locked_packages.ROOTS:
        head, *lines = written(project, purpose)
        lines = lines if purpose in locked_packages.COMPUTES else [head, *lines]
        assert lines == sorted(lines)
        assert all("==" in line and "hash" not in line and "\\" not in line for line in lines)


def test_where_something_is_learned_or_evaluated_the_arithmetic_is_named(project):
    """Another processor may give another model: then the stages that compute run again, and no other."""
    heads = {purpose: written(project, purpose)[0] for purpose in locked_packages.ROOTS}
    named = {purpose for purpose, head in heads.items() if head == f"# {arithmetic.in_effect()}"}
    assert named == {"training", "evaluation"}


def test_requirements_of_requirements_are_included(project):
    """Joblib changes what scikit-learn computes, though nobody here imports it."""
    names = {line.split("==")[0] for line in written(project, "training")}
    assert {"scikit-learn", "joblib", "threadpoolctl", "numpy", "pydantic-core"} <= names


def test_what_draws_does_not_train(project):
    """Matplotlib and what it brings are the evaluation's: a bump of pillow does not train a model again."""
    drawing = {"matplotlib", "pillow", "fonttools", "contourpy"}
    training, evaluation = (
        {line.split("==")[0] for line in written(project, purpose)} for purpose in ("training", "evaluation")
    )
    assert not training & drawing
    assert evaluation >= training | drawing


def test_serving_needs_no_tool_of_training(project):
    """A serving image holds no MLflow, Prefect, DVC or Great Expectations."""
    names = {line.split("==")[0] for line in written(project, "serving")}
    assert {"bentoml", "skops", "orjson", "prometheus-client"} <= names
    assert not names & {"mlflow", "mlflow-skinny", "prefect", "dvc", "great-expectations", "fastapi"}


def test_a_bump_of_an_unrelated_package_changes_nothing(project):
    """Another Prefect does not train a model again."""
    before = {purpose: written(project, purpose) for purpose in locked_packages.ROOTS}
    lock = project / "requirements.lock"
    prefect = next(line for line in LOCK.splitlines() if line.startswith("prefect=="))
    lock.write_text(LOCK.replace(prefect, "prefect==99.0 \\"))
    assert {purpose: written(project, purpose) for purpose in locked_packages.ROOTS} == before


def test_versions_that_depend_on_the_machine_keep_their_markers(project):
    """The file is the same on every machine: it holds every machine's line."""
    joblib = next(line for line in LOCK.splitlines() if line.startswith("joblib=="))
    here = joblib.replace(" \\", " ; python_full_version < '4' \\")
    (project / "requirements.lock").write_text(
        LOCK.replace(joblib, f"{here}\n    --hash=sha256:0\njoblib==99.0 ; python_full_version >= '4' \\")
    )
    found = [line for line in written(project, "training") if line.startswith("joblib==")]
    assert found == [here.removesuffix(" \\"), "joblib==99.0 ; python_full_version >= '4'"]


def test_what_is_only_needed_elsewhere_is_named_but_not_asked_for(project):
    """Pandas wants tzdata on Windows: that line is in the file, and no reason to refuse a Linux machine."""
    assert any(line.startswith("tzdata==") for line in written(project, "training"))


def test_another_installed_version_is_refused(project):
    """The message says what is installed, what is locked, and what to type."""
    lock = project / "requirements.lock"
    pandas = next(line for line in LOCK.splitlines() if line.startswith("pandas=="))
    lock.write_text(LOCK.replace(pandas, "pandas==1.0.0 \\"))
    with pytest.raises(EnvironmentDiffers, match=r"pandas 3\S* is installed; .* names 1\.0\.0\n.*make setup"):
        locked_packages.environment()
    assert not (project / "build").exists()


def test_a_needed_package_without_a_line_is_refused(project):
    """A lock that was cut by hand is not believed."""
    lock = project / "requirements.lock"
    lock.write_text("".join(line for line in LOCK.splitlines(keepends=True) if not line.startswith("joblib==")))
    with pytest.raises(EnvironmentDiffers, match=r"joblib is needed, but requirements\.lock has no line for it"):
        locked_packages.environment()
