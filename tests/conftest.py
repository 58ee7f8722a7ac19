"""Projects to try things on: copies of this repository in a folder of their own, with their own state."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

import models
from tasks.ground import settings

os.environ.update(settings.arithmetic())  # before numpy is imported
os.environ["EVERGREEN_ENGINE"] = "local:1"  # what a test replaces in this process is not replaced in a worker

REPOSITORY = Path(__file__).resolve().parent.parent

NEEDED = ["params.yaml", "dvc.yaml", "requirements.lock", "locks", "tasks", "flows", "deployments", "models", "bin"]
NEEDED += [".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore"]
"""What a checkout is made of, as far as its tools are concerned."""

BIN = Path(sys.executable).parent

LISTED_FILES = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
"""The command that names every file that Git has, or would take."""


LONGEST = [
    "loop/test_loop",
    "deployments/local/test_platform_faults",
    "deployments/test_browser",
    "tasks/lifecycle/test_retrain_facts",
    "loop/test_runners",
    "deployments/test_swaps",
    "flows/test_uncommitted",
    "flows/test_torn",
    "flows/test_predict",
    "repository/test_tools",
    "repository/test_third_model",
    "repository/test_back_up",
    "deployments/serving/test_router",
    "deployments/local/test_supervisor",
    "flows/test_rollout",
    "tasks/release/package/test_package",
    "tasks/release/registry/test_registry",
    "tasks/runtime/families/test_families",
    "repository/test_skip",
    "examples/test_examples",
    "tasks/training/test_stage_reasons",
    "flows/test_monitor",
    "tasks/release/batch/test_batch",
    "tasks/lifecycle/test_reproduce",
    "tasks/lifecycle/test_tune",
    "tasks/training/test_evaluate",
    "tasks/training/test_dvc_graph",
    "fleet/test_two_clones",
    "flows/test_ingest",
    "flows/test_backtest",
    "tasks/monitoring/intake/test_intake",
    "kinds/test_several_labels",
    "tasks/training/test_train",
    "tasks/runtime/test_bento_service",
    "tasks/monitoring/drift/test_gross",
    "tasks/training/test_point_in_time",
    "deployments/tools/test_add_model",
    "deployments/test_fuzz",
    "tasks/data/test_validate",
    "deployments/tools/test_project",
    "kinds/test_anomaly",
    "flows/test_monitor_cases",
    "tasks/monitoring/intake/test_labels",
    "tasks/runtime/test_model_file",
    "tasks/training/test_plots",
    "tasks/runtime/test_replica",
    "deployments/test_notices",
    "deployments/tools/test_doctor",
    "tasks/monitoring/drift/test_drift",
    "tasks/data/test_versions",
    "tasks/lifecycle/test_trial_prepare",
]
"""Files that take longest are begun first, so that all workers end at the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the others as they come."""
    place = {REPOSITORY / "tests" / f"{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a group of packages that is not installed; CI installs all of them."""
    for mark in item.iter_markers("group"):
        group, module = mark.args[0], mark.args[-1]  # where its package has another name
        if not find_spec(module) and "CI" not in os.environ:
            pytest.skip(f"the group {group} is not installed: make setup WITH={group}")


@dataclass(frozen=True)
class Project:
    """A project to work on: `tasks.ground.settings` and the environment name it, and what it starts inherits that."""

    root: Path

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command in the project's folder; its output is text."""
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, timeout=120, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def python(self, code: str, *arguments: str) -> str:
        """What a fresh Python process says to some code."""
        return self.run(sys.executable, "-c", code, *arguments).stdout

    def dvc(self, *arguments: str) -> str:
        """What the dvc command says."""
        done = self.run(sys.executable, "-m", "dvc", *arguments)
        return done.stdout + done.stderr

    def commit(self) -> None:
        """Everything that git does not ignore, as a commit."""
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "as it is", check=False)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text that stands in a file."""
        text = (self.root / path).read_text(encoding="utf-8")
        assert old in text, f"{path} holds no {old!r}"
        (self.root / path).write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    """A command that a test calls in this process applies its project's settings: the next test finds none of that."""
    before, folder = dict(os.environ), Path.cwd()
    yield
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Project]:
    """Makes a folder the project that this process, and those it starts, work on; until the test ends."""
    return lambda root: work_on(root, monkeypatch)


@pytest.fixture(scope="module")
def enter_module() -> Iterator[Callable[[Path], Project]]:
    """As `enter`, until the module's tests end: for a project that is dear to make."""
    with pytest.MonkeyPatch.context() as patch:
        yield lambda root: work_on(root, patch)


def work_on(root: Path, patch: pytest.MonkeyPatch) -> Project:
    """Point settings, environment and the code below models/ at a project."""
    patch.setattr(settings, "ROOT", root)
    patch.setattr(settings, "BUILD", root / "build")
    patch.setattr(settings, "VAR", root / "var")
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # of this checkout: what was imported has applied its settings
    for name, value in settings.environment().items():
        patch.setenv(name, f"{BIN}{os.pathsep}{value}" if name == "PATH" else value)
    patch.setattr(models, "__path__", [str(root / "models")])
    forget_models(patch)
    patch.chdir(root)
    return Project(root)


def forget_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the code below models/ imported anew: another project's is another code."""
    for name in [name for name in sys.modules if name.startswith("models.")]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()


@pytest.fixture(scope="session")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository as a git repository; not to be written to."""
    return copy_repository(tmp_path_factory.mktemp("copied") / "project")


@pytest.fixture(scope="session")
def small_copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `copied`, with the tiny model instead of the two that ship, and three months of readings."""
    root = copy_repository(tmp_path_factory.mktemp("small") / "project", REPOSITORY / "tests" / "small")
    for month in (1, 2, 3):
        write_readings(root, month)
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(root / "var" / "dvc"), "DVC_NO_ANALYTICS": "1"}
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=root, env=environment, check=True)
    Project(root).commit()
    return root


@pytest.fixture
def project(copied: Path, tmp_path: Path, enter: Callable[[Path], Project]) -> Project:
    """The repository as it ships, without data, in a folder of its own."""
    return enter(copy_project(copied, tmp_path / "project"))


@pytest.fixture
def small(small_copied: Path, tmp_path: Path, enter: Callable[[Path], Project]) -> Project:
    """A project with one quick model, `tiny`, and the data version of three months of readings."""
    return enter(copy_project(small_copied, tmp_path / "project"))


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """A server of this machine that speaks S3; its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    # every such server of a process has the same buckets
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST"))
    server.stop()


def copy_project(project: Path, root: Path) -> Path:
    """Copy a project; its byte code is shared: Python replaces such a file, and writes into none."""
    return Path(shutil.copytree(project, root, symlinks=True, copy_function=_copy))


def _copy(source: str, target: str) -> None:
    (os.link if source.endswith(".pyc") else shutil.copy2)(source, target)


def copy_repository(root: Path, *overlays: Path) -> Path:
    """Copy what a checkout is made of, lay the files of other folders over it, and make a git repository of it."""
    root.mkdir(parents=True)
    for name in NEEDED:
        source, target = REPOSITORY / name, root / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
    for overlay in overlays:
        shutil.copytree(overlay, root, dirs_exist_ok=True)
    subprocess.run(["git", "init", "-q", "-b", "main", "--template="], cwd=root, check=True)
    Project(root).commit()
    Project(root).run("git", "gc", "-q")  # there are copies of it: of 1,200 files 500 become one
    return root


def write_readings(root: Path, month: int, *, days: int = 28) -> Path:
    """A partition of readings of 2013: two stations, four times a day; the same bytes every time."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(month)
    at = pd.date_range(f"2013-{month:02d}-01", periods=days * 4, freq="6h")
    frame = pd.DataFrame({"station": np.repeat(["north", "south"], len(at)), "at": np.tile(at, 2)})
    pressure = rng.uniform(1, 4, len(frame)).round(2)
    vibration = rng.gamma(2, 0.5, len(frame)).round(2)
    risk = 1 / (1 + np.exp(-(2 * (vibration - 1) + (2.5 - pressure))))
    frame = frame.assign(
        year=2013,
        month=month,
        hour=frame["at"].dt.hour,
        starts=rng.poisson(3, len(frame)),
        pressure=pressure,
        vibration=np.where(rng.random(len(frame)) < 0.1, np.nan, vibration),
        failures=(rng.random(len(frame)) < risk).astype(int),
    )
    path = root / "data" / "readings" / f"2013-{month:02d}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path
