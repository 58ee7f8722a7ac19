"""A project of its own for each test, with real months of the example's upstream."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models import upstream
from tasks.ground import params, settings
from tasks.ground.params import Params
from tests.conftest import REPOSITORY, Project

Put = Callable[[str, str], Path]


class Killed(BaseException):
    """What a kill is to the code it hits: nothing it could catch."""


@contextmanager
def killed_at(owner: object, step: str, *, after: bool) -> Iterator[None]:
    """What the block does is killed before a step, or after it."""
    real: Callable[..., object] = getattr(owner, step)

    def killed(*args: object, **kwargs: object) -> object:
        if after:
            real(*args, **kwargs)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, step, killed)
        with pytest.raises(Killed):
            yield


def month(dataset: str, partition: str) -> bytes:
    """The bytes of a real month."""
    return upstream.deliver(dataset, partition)[1]


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture(scope="session")
def memos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One memo for the session: the same content is checked once, as in a project."""
    return tmp_path_factory.mktemp("memo")


@pytest.fixture
def work_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Project]:
    """Has this process work in a folder, with a state of DVC of its own."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")

    def work_in(root: Path) -> Project:
        for name, path in {"ROOT": root, "BUILD": root / "build", "VAR": root / "var"}.items():
            monkeypatch.setattr(settings, name, path)
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(root / "var" / "dvc"))
        return Project(root)

    return work_in


@pytest.fixture
def root(tmp_path: Path, work_in: Callable[[Path], Project], memos: Path) -> Path:
    """An empty project: params.yaml and the models of the repository, no data."""
    root = tmp_path / "project"
    shutil.copytree(REPOSITORY / "models", root / "models", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "params.yaml", root)
    (root / "var").mkdir()
    (root / "var" / "memo").symlink_to(memos)
    return work_in(root).root


@pytest.fixture
def given(root: Path) -> Params:
    """The parameters of that project; nothing needs to settle."""
    return params.load().model_copy(update={"settle_seconds": 0})


@pytest.fixture
def repository(root: Path) -> Path:
    """The project as a git and DVC repository with a local default remote, as the real one is configured."""
    return with_git_and_dvc(root)


def with_git_and_dvc(root: Path) -> Path:
    """Make a folder a repository as the real one is."""
    Project(root).run("git", "init", "-q", "-b", "main")
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    shutil.copy(REPOSITORY / ".dvcignore", root)
    return root


@pytest.fixture
def put(root: Path) -> Put:
    """Put a real month into data/, as ingest would."""
    return lambda dataset, partition: write(root / "data" / dataset / f"{partition}.csv", month(dataset, partition))


SECRET, KEY = "s3cr3t-of-nobody", "AKIAOFNOBODY"


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; credentials and endpoint are in the environment, as a user would set them."""
    import s3fs

    given = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**given, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem()
    if store.exists("evergreen"):
        store.rm("evergreen", recursive=True)
    store.mkdir("evergreen")
    yield "s3://evergreen"
    s3fs.S3FileSystem.clear_instance_cache()
