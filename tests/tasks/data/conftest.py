"""A project of its own for each test, with real months of the example's upstream."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from models import upstream
from tasks.ground import params, settings
from tasks.ground.params import Params

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def memos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One memo for the session: the same content is checked once, as in a project."""
    return tmp_path_factory.mktemp("memo")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memos: Path) -> Path:
    """An empty project: params.yaml and the models of the repository, no data."""
    root = tmp_path / "project"
    shutil.copytree(REPOSITORY / "models", root / "models", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "params.yaml", root)
    (root / "var").mkdir()
    (root / "var" / "memo").symlink_to(memos)
    for name, path in {"ROOT": root, "BUILD": root / "build", "VAR": root / "var"}.items():
        monkeypatch.setattr(settings, name, path)
    return root


@pytest.fixture
def given(root: Path) -> Params:
    """The parameters of that project; nothing needs to settle."""
    return params.load().model_copy(update={"settle_seconds": 0})


@pytest.fixture
def repository(root: Path) -> Path:
    """The project as a git and DVC repository with a local default remote, as the real one is configured."""
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    shutil.copy(REPOSITORY / ".dvcignore", root)
    return root


@pytest.fixture
def put(root: Path) -> Callable[[str, str], Path]:
    """Put a real month into data/, as ingest would."""

    def put(dataset: str, partition: str) -> Path:
        name, content = upstream.deliver(dataset, partition)
        path = root / "data" / dataset / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return put
