"""What holds for every model of this project, whatever it is; what is true of one alone is tested beside this file."""

from __future__ import annotations

import yaml

from tasks.ground import import_closure, params, settings
from tasks.modelling import user_code
from tasks.tables import contract

MODELS = params.load().models
OWN_CODE = {"prepare": "rows", "train": "pipeline", "evaluate": "pipeline", "package": "pipeline"}


def test_params_can_be_read() -> None:
    """Every key is known, every value possible."""
    assert params.load()


def test_every_contract_can_be_read() -> None:
    """Each dataset of a model has its expectation suite."""
    for name, model in MODELS.items():
        for dataset in model.datasets:
            assert contract.load(name, dataset).columns


def test_every_pipeline_can_be_built() -> None:
    """The estimator that params.yaml names takes its hyper-parameters."""
    for name, model in MODELS.items():
        assert user_code.build_pipeline(name, model)


def test_a_stage_names_every_file_that_a_model_imports() -> None:
    """A helper outside the model's folder that dvc.yaml does not name would make stale results count as up to date."""
    graph = yaml.safe_load((settings.ROOT / "dvc.yaml").read_text())["stages"]
    for model in MODELS:
        for stage, own in OWN_CODE.items():
            code = settings.ROOT / "models" / model / own / "__init__.py"
            named = {settings.ROOT / dep.replace("${key}", model) for dep in graph[stage]["do"]["deps"]}
            for path in import_closure.closure(code, settings.ROOT) - {settings.ROOT / "models" / "__init__.py"}:
                assert path.name == "__init__.py" or named & {path, *path.parents}, f"dvc.yaml: {stage} lacks {path}"
