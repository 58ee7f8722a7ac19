"""dvc.yaml says which step needs which file; the code says it too. Here they must agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.ground import import_closure, params, settings
from tasks.steps import STEPS

GRAPH = yaml.safe_load((settings.ROOT / "dvc.yaml").read_text())["stages"]
MODELS = list(params.load().models)


def declared(stage: str, model: str) -> set[Path]:
    """Every file that the stage's deps name, folders opened."""
    body = GRAPH[stage].get("do", GRAPH[stage])
    found: set[Path] = set()
    for dep in body["deps"]:
        path = settings.ROOT / dep.replace("${key}", model)
        found |= set(path.rglob("*.py")) if path.is_dir() else {path}
    return found


def imported(stage: str, model: str) -> set[Path]:
    """Every file of the repository that the step imports, and the team's code that it loads by name."""
    module = settings.ROOT / (STEPS[stage].replace(".", "/") + ".py")
    found = import_closure.closure(module, settings.ROOT)
    if stage == "environment":  # it writes down their hashes
        found |= set((settings.ROOT / "tasks" / "runtime" / "families").glob("*.py"))
    if stage == "package":  # it copies this folder into the release
        found |= set((settings.ROOT / "tasks" / "runtime").glob("*.py"))
    own = {"prepare": "rows", "train": "pipeline", "evaluate": "pipeline", "package": "pipeline"}.get(stage)
    if own:
        found |= import_closure.closure(settings.ROOT / "models" / model / own / "__init__.py", settings.ROOT)
    return found


def is_only_a_docstring(path: Path) -> bool:
    """A package's __init__ that holds nothing but words cannot change a result."""
    import ast

    return path.name == "__init__.py" and len(ast.parse(path.read_text()).body) <= 1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stage", list(GRAPH))
def test_a_stage_names_every_file_it_imports(stage: str, model: str) -> None:
    """A helper that a step imports and dvc.yaml does not name would make stale results count as up to date."""
    missing = {path for path in imported(stage, model) - declared(stage, model) if not is_only_a_docstring(path)}
    said = sorted(path.relative_to(settings.ROOT).as_posix() for path in missing)
    assert not said, f"dvc.yaml: {stage}: deps lack {said}"


@pytest.mark.parametrize("stage", list(GRAPH))
def test_a_stage_names_no_code_that_it_does_not_use(stage: str) -> None:
    """A dependency that nothing reads makes a stage run for no reason."""
    body = GRAPH[stage].get("do", GRAPH[stage])
    paths = [settings.ROOT / dep for dep in body["deps"] if dep.startswith("tasks/")]
    named = {file for path in paths for file in (path.glob("*.py") if path.is_dir() else [path])}
    used = imported(stage, MODELS[0])
    assert not {path.relative_to(settings.ROOT).as_posix() for path in named - used}


def test_every_stage_calls_a_step_that_exists() -> None:
    """`python -m tasks <stage>` is the command of each stage, so that it can be called in process."""
    for stage, entry in GRAPH.items():
        assert entry.get("do", entry)["cmd"].split()[:4] == ["python", "-m", "tasks", stage]
        assert stage in STEPS
