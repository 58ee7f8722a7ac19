"""A small project in a folder of its own, with real rows and everything that packaging stands on."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest

from models import upstream
from tasks.ground import files, model_environment, params, settings
from tasks.modelling import rows
from tasks.runtime import model_file
from tasks.training import prepare, train

PROJECT = Path(__file__).resolve().parent.parent
MONTHS = ("2013-01", "2013-02")
LINES = 6000  # of flights, a month; so that training takes no time


def make_project(root: Path, *names: str) -> None:
    """Copy code and parameters, and what two short months of these models come to, prepared, trained and evaluated."""
    shutil.copytree(_made(*names), root, dirs_exist_ok=True)


@cache
def _made(*names: str) -> Path:
    """The same, made once in each process."""
    root = Path(tempfile.mkdtemp(prefix="evergreen-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for folder in ("tasks", "models", "deployments"):
        shutil.copytree(PROJECT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "requirements.lock", root)
    shutil.copytree(PROJECT / "locks", root / "locks")
    text = (PROJECT / "params.yaml").read_text(encoding="utf-8")
    (root / "params.yaml").write_text(re.sub(r"max_iter: \d+", "max_iter: 20", text), encoding="utf-8")
    for dataset in upstream.DATASETS:
        (root / "data" / dataset).mkdir(parents=True)
        for month in MONTHS:
            name, content = upstream.deliver(dataset, month)
            lines = content.splitlines(keepends=True)
            (root / "data" / dataset / name).write_bytes(b"".join(lines[: LINES if dataset == "flights" else None]))
    with project_at(root):
        for name in names:
            model_environment.environment(name)
            _make_build(name)
    return root


def _make_build(name: str) -> None:
    """What validate, prepare, train and evaluate leave behind."""
    build, model = settings.BUILD / name, params.load().model(name)
    held = {d: {f.name: files.md5(f) for f in sorted((settings.ROOT / "data" / d).iterdir())} for d in model.datasets}
    files.write_json(build / "partitions.json", held)
    prepare.prepare(name)
    train.train(name)
    holdout = rows.read(build, "holdout")
    pipeline = model_file.load(build / "model" / "model.skops", None, own=f"models.{name}")
    predictions = model_file.predict(pipeline, holdout[list(model.features)], model.task)
    files.write_parquet(
        build / "evaluation" / "predictions.parquet",
        holdout[["id", "time", "label", *model.evaluate.slices]].join(predictions),
    )
    files.write_json(build / "evaluation" / "metrics.json", {"loss": 0.5})


class project_at:  # noqa: N801  # reads as a word
    """While this lasts, the project is the one at `root`, and its Bento store its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.patch = root, pytest.MonkeyPatch()

    def __enter__(self) -> None:
        self.patch.setattr(settings, "ROOT", self.root)
        self.patch.setattr(settings, "BUILD", self.root / "build")
        self.patch.setattr(settings, "VAR", self.root / "var")
        self.patch.setenv("BENTOML_HOME", str(self.root / "var" / "bentoml"))
        self.patch.setenv("BENTOML_DO_NOT_TRACK", "True")

    def __exit__(self, *_: object) -> None:
        self.patch.undo()
