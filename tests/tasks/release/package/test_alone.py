"""A release starts with nothing installed but what its requirements.txt names."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from tasks.ground import files, model_environment, settings
from tasks.ground.errors import EnvironmentDiffers, StageFailed
from tasks.release.package import alone, package
from tasks.training import evaluate, prepare, train
from tests.conftest import Project, copy_project

MODEL = "tiny"
LOOK = "import importlib.util as u, json, sys; print(json.dumps([bool(u.find_spec(name)) for name in sys.argv[1:]]))"


def sees(requirements: str, *packages: str) -> list[bool]:
    """Whether packages can be found by the interpreter for some pins."""
    line = [str(alone.interpreter(requirements)), "-I", "-c", LOOK, *packages]
    found: list[bool] = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    return found


def pinned(*names: str) -> str:
    """Pins of what is installed."""
    return "".join(f"{name}=={version(name)}\n" for name in names)


def test_nothing_but_what_is_pinned_is_there(tmp_path: Path, enter: Callable[[Path], Project]) -> None:
    """Packages, single files, libraries beside a package; of a folder that several share, what was named."""
    enter(tmp_path)
    few = pinned("numpy", "six", "opentelemetry-api")
    assert sees(few, "numpy", "six", "pandas", "opentelemetry.trace") == [True, True, False, True]
    assert not sees(few, "opentelemetry.sdk")[0]
    python = alone.interpreter(few)
    computed = [str(python), "-I", "-c", "import numpy, six; print((numpy.ones((9, 9)) @ numpy.ones(9)).sum())"]
    assert subprocess.run(computed, capture_output=True, text=True, check=True).stdout == "81.0\n"
    assert sees(pinned("numpy", "six"), "opentelemetry") == [False]


def test_it_is_kept(tmp_path: Path, enter: Callable[[Path], Project]) -> None:
    """The same pins take no time; a marker for another machine asks for nothing here."""
    enter(tmp_path)
    pins = f"{pinned('six')}no-such-thing==1.0 ; sys_platform == 'win32'\n"
    python = alone.interpreter(pins)
    made = python.lstat().st_mtime_ns
    assert alone.interpreter(pins) == python
    assert python.lstat().st_mtime_ns == made


def test_what_is_not_installed_is_told(tmp_path: Path, enter: Callable[[Path], Project]) -> None:
    """By name, with the version; and nothing is left half-made."""
    enter(tmp_path)
    with pytest.raises(EnvironmentDiffers, match=r"six \S+ is installed; the lock names 0\.1"):
        alone.interpreter("six==0.1\n")
    assert not list((files.memos() / "alone").glob("*"))


# ── a family that is none of the base ─────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def evaluated(
    small_copied: Path, tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]
) -> Path:
    """The small project with a model of LightGBM, up to its evaluation; not to be written to."""
    root = tmp_path_factory.mktemp("lightgbm") / "project"
    small = enter_module(copy_project(small_copied, root))
    small.edit("params.yaml", "sklearn.linear_model.LogisticRegression", "lightgbm.LGBMClassifier")
    small.edit("params.yaml", "{C: 1.0}", "{n_estimators: 3, min_child_samples: 1}")
    model_environment.environment(MODEL)
    readings = sorted((small.root / "data" / "readings").iterdir())
    files.write_json(
        settings.BUILD / MODEL / "partitions.json", {"readings": {path.name: files.md5(path) for path in readings}}
    )
    for stage in (prepare.prepare, train.train, evaluate.evaluate):
        stage(MODEL)
    return root


@pytest.fixture
def learnt(evaluated: Path, tmp_path: Path, enter: Callable[[Path], Project]) -> Project:
    """A copy of it."""
    return enter(copy_project(evaluated, tmp_path / "project"))


def served(bento: Path, rows: list[dict[str, object]]) -> dict[str, object]:
    """What `bentoml serve` answers, in an environment of the release's requirements alone."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = alone.interpreter((bento / "src" / "requirements.txt").read_text())
    line = [str(python), "-I", "-m", "bentoml", "serve", str(bento), "--host", "127.0.0.1", "--port", str(port)]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", json.dumps({"rows": rows}).encode(), {"Content-Type": "application/json"}
    )
    log = settings.VAR / "serve.log"
    with log.open("w") as out, subprocess.Popen(line, stdout=out, stderr=out) as process:
        try:
            return _answer(request, lambda: process.poll() is None)
        finally:
            process.terminate()


def _answer(request: urllib.request.Request, is_up: Callable[[], bool]) -> dict[str, object]:
    for _ in range(600):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answered: dict[str, object] = json.load(answer)
                return answered
        except urllib.error.URLError:
            assert is_up(), (settings.VAR / "serve.log").read_text()
            time.sleep(0.1)
    raise AssertionError("bentoml serve did not answer in a minute")


@pytest.mark.slow
@pytest.mark.group("lightgbm")
def test_a_model_of_lightgbm_names_it_and_serves_alone(learnt: Project) -> None:
    """requirements.txt, release.json and the Bento's labels name the library; `bentoml serve` needs nothing else."""
    package.package(MODEL)
    release = settings.BUILD / MODEL / "release"
    pin = f"lightgbm=={version('lightgbm')}"
    assert pin in (release / "requirements.txt").read_text().splitlines()
    facts = package.release_facts(release)
    assert facts["lineage"]["libraries"]["lightgbm"] == version("lightgbm")
    assert package.labels(facts)["library.lightgbm"] == version("lightgbm")
    golden = files.read_json(release / "golden.json")
    answered = served(package.ensure_bento(MODEL), [one["row"] for one in golden])
    for one, prediction in zip(golden, answered["predictions"], strict=True):
        evaluated = {name[2:]: value for name, value in one["predicted"].items() if name.startswith("p_")}
        assert prediction["probabilities"] == evaluated


@pytest.mark.slow
@pytest.mark.group("lightgbm")
def test_a_release_that_lacks_its_library_is_refused_with_the_import(
    learnt: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the types of the model file; and by the trial, where only that sees it."""
    path = model_environment.path(MODEL, "serving")
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("lightgbm==")))
    told = r"`import lightgbm` into models/tiny/pipeline/__init__\.py"
    with pytest.raises(StageFailed, match=rf"models\.tiny: its model file holds types of lightgbm\. .* {told}"):
        package.package(MODEL)
    monkeypatch.setattr(package, "libraries", lambda _: {})
    with pytest.raises(StageFailed, match=rf"The release needs lightgbm, .* does not name it: .* {told}"):
        package.package(MODEL)
    assert not (settings.BUILD / MODEL / "release").exists()
    assert "lightgbm" in sys.modules  # here it is installed, so a trial with these packages would have passed
