"""Every family's models: the same bytes twice, loaded only when all they hold was reviewed, and answering as before."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline

from tasks.ground import files
from tasks.ground.errors import ModelFileRefused
from tasks.runtime import families, fast_trees, model_file, skops_io
from tests.conftest import REPOSITORY
from tests.tasks.runtime import test_model_file
from tests.tasks.runtime.families import fitted


class Unknown(Ridge):
    """An estimator of a library that nobody here knows."""


FOREIGN = [package for package in families.known() if package in fitted.MADE and package != "sklearn"]

pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Pipeline, Path]]:
    """A fitted pipeline, and its model file; each is fitted once. Without its library the test is left out."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def get(package: str, what: str) -> tuple[Pipeline, Path]:
        pytest.importorskip(package)
        pipeline, path = fitted.fitted(package, what), folder / f"{package} {what}.skops"
        model_file.dump(pipeline, path)
        return pipeline, path

    return get


@pytest.mark.parametrize(("package", "what"), fitted.NAMED)
def test_a_model_answers_the_same_after_loading(dumped: Any, package: str, what: str) -> None:
    """To the last bit; one row alone within the tolerance that its family states."""
    pipeline, path = dumped(package, what)
    rows = fitted.MADE[package][what][1]
    loaded = model_file.load(path, sha256=files.sha256(path))
    np.testing.assert_array_equal(fitted.answers(loaded, rows), fitted.answers(pipeline, rows))
    np.testing.assert_array_equal(loaded.predict(rows), pipeline.predict(rows))
    alone = np.concatenate([fitted.answers(loaded, rows[i : i + 1]) for i in range(20)])
    near = families.tolerance(loaded)
    np.testing.assert_allclose(alone, fitted.answers(pipeline, rows)[:20], rtol=near, atol=near)
    assert package in model_file.packages(path)


FAST = {("lightgbm", what) for what in fitted.MADE["lightgbm"]} | {("xgboost", what) for what in fitted.MADE["xgboost"]}


@pytest.mark.parametrize(("package", "what"), sorted(FAST))
def test_few_rows_are_answered_by_a_shorter_way_and_as_before(dumped: Any, package: str, what: str) -> None:
    """LightGBM's to the last bit; of more rows than few the library's own wrapper answers."""
    pipeline, path = dumped(package, what)
    rows, loaded = fitted.MADE[package][what][1], model_file.load(path, sha256=None)
    assert fast_trees.accelerate(loaded, lambda: fitted.answers(loaded, rows[:50]))
    for few in (rows[:1], 3 * rows[7:30], rows):
        before, near = fitted.answers(pipeline, few), 0 if package == "lightgbm" else families.tolerance(loaded)
        np.testing.assert_allclose(fitted.answers(loaded, few), before, rtol=near, atol=near)
        assert fitted.answers(loaded, few).shape == before.shape


@pytest.mark.parametrize("package", list(fitted.MADE))
def test_another_process_writes_the_same_bytes(dumped: Any, package: str) -> None:
    """With other addresses, another order of sets, and another number of threads."""
    pytest.importorskip(package)
    more = {"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "tests.tasks.runtime.families.fitted", package]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **more}, capture_output=True, text=True, check=True
    )
    here = {f"{package}, {what}": files.sha256(dumped(package, what)[1]) for what in fitted.MADE[package]}
    assert json.loads(done.stdout) == here


@pytest.mark.parametrize("package", FOREIGN)
def test_a_file_is_refused_where_the_library_is_no_family(
    dumped: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody has read is not loaded."""
    monkeypatch.setattr(families, "of_names", lambda _: [families.SKLEARN])
    with pytest.raises(ModelFileRefused, match=rf"not on the reviewed list: .*{package}.*name them in a set REVIEWED"):
        model_file.load(dumped(package, "values")[1], sha256=None)


@pytest.mark.parametrize("package", FOREIGN)
def test_a_file_whose_library_is_missing_names_what_brings_it(
    dumped: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group of the lock."""

    def loads(*_: Any, **__: Any) -> Any:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    path = dumped(package, "values")[1]
    monkeypatch.setattr(skops_io.module(), "loads", loads)
    with pytest.raises(ModelFileRefused, match=rf"is not installed: `make setup WITH={package}` brings it"):
        model_file.load(path, sha256=None)


@pytest.mark.parametrize("package", list(fitted.MADE))
def test_every_reviewed_name_is_there(package: str) -> None:
    """A class or a function of its module, and no module's alias."""
    from importlib import import_module
    from types import FunctionType

    pytest.importorskip(package)
    family = families.named(package)
    assert family
    for name in family.reviewed:
        module, _, attribute = name.rpartition(".")
        assert isinstance(getattr(import_module(module), attribute), type | FunctionType)


REVIEWED = sorted((package, name) for package in FOREIGN for name in families.of_names([f"{package}."])[1].reviewed)


@pytest.mark.filterwarnings("ignore:Pass .* as keyword args:FutureWarning")  # XGBoost's own
@pytest.mark.parametrize(("package", "name"), REVIEWED)
def test_no_reviewed_name_runs_something_when_it_is_called(tmp_path: Path, package: str, name: str) -> None:
    """A forged file may call each of them with a text of its choice, and does nothing to the world by it."""
    pytest.importorskip(package)
    called = test_model_file.called_at_load(test_model_file.node("TypeNode", name), f"touch {tmp_path / 'touched'}")
    path = test_model_file.forged(tmp_path / "m.skops", called)
    with contextlib.suppress(ModelFileRefused):
        model_file.load(path, sha256=None)
    assert [each.name for each in tmp_path.iterdir()] == ["m.skops"]


@pytest.mark.parametrize("package", FOREIGN)
def test_a_harmed_model_within_the_archive_is_refused_by_its_hash(dumped: Any, package: str, tmp_path: Path) -> None:
    """The parsers of these libraries are not what keeps a forged file out."""
    path = dumped(package, "values")[1]
    content = path.read_bytes()
    harmed = tmp_path / "m.skops"
    harmed.write_bytes(content[:-200] + bytes([content[-200] ^ 1]) + content[-199:])
    with pytest.raises(ModelFileRefused, match="was changed after it was packaged"):
        model_file.load(harmed, sha256=files.sha256(path))


def test_a_library_that_cannot_read_its_model_is_named_with_its_version(
    dumped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a newer one."""
    from lightgbm.basic import LightGBMError

    def loads(*_: Any, **__: Any) -> Any:
        raise LightGBMError("Unknown model format or submodel type in model file v9")

    path = dumped("lightgbm", "values")[1]
    monkeypatch.setattr(skops_io.module(), "loads", loads)
    with pytest.raises(ModelFileRefused, match=r"cannot be read by LightGBM \d.*, as installed here: Unknown model"):
        model_file.load(path, sha256=None)


NEWER = [
    (
        "sklearn",
        b'"content":"\\"1.',
        b'"content":"\\"9.',
        r"scikit-learn 9\.\d+, and scikit-learn 1\.\d+\.\d+ is installed",
    ),
    ("lightgbm", b"version=v4", b"version=v9", r"LightGBM 9, and LightGBM 4"),
    ("xgboost", b"\x03i\x03i\x02", b"\x03i\x09i\x00", r"XGBoost 9\.0, and XGBoost 3"),
    (
        "catboost",
        b"FlabuffersModel_v1",
        b"FlabuffersModel_v9",
        r"cannot be read by CatBoost 1.*Unsupported model format",
    ),
]


@pytest.mark.parametrize(("package", "version", "later", "message"), NEWER, ids=[each[0] for each in NEWER])
def test_a_model_file_of_a_newer_library_is_refused(
    dumped: Any, package: str, version: bytes, later: bytes, message: str, tmp_path: Path
) -> None:
    """scikit-learn and XGBoost only warn of it, and LightGBM does not look."""
    source, path = zipfile.ZipFile(dumped(package, next(iter(fitted.MADE[package])))[1]), tmp_path / "m.skops"
    with zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name).replace(version, later))
    with pytest.raises(ModelFileRefused, match=message):
        model_file.load(path, sha256=None)


def test_a_release_names_its_requirements_where_a_project_names_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no Makefile where a release is served."""
    assert families.not_installed("lightgbm").endswith("`make setup WITH=lightgbm` brings it")
    (tmp_path / "release.json").touch()
    monkeypatch.setattr(families, "RELEASE", tmp_path)
    for package in ("lightgbm", "nobody_knows"):
        assert f"--requirement {tmp_path / 'requirements.txt'}" in families.not_installed(package)


def test_what_answers_is_known_by_the_family() -> None:
    """A net learned by PyTorch, and answers without; PyTorch's own types would need it."""
    net, own = "tasks.runtime.families.torch", {"tasks.runtime.outputs", "sklearn.pipeline"}
    assert families.to_answer({net, "lightgbm.sklearn", "umap.umap_", *own}) == {"lightgbm", "umap", "tasks", "sklearn"}
    assert families.to_answer({net, "torch.nn"}) == {"torch"}


def test_asking_a_family_for_its_name_imports_no_numpy() -> None:
    """The stages ask all of them what they are called."""
    code = (
        "import sys; from tasks.runtime import families; "
        "families.modules(['lightgbm', 'xgboost', 'catboost']); "
        "import tasks.release.package.package; print([name for name in ('numpy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_team_names_the_types_that_it_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a library that is no family, in the pipeline that the release takes along; for that model alone."""
    path = tmp_path / "m.skops"
    model_file.dump(Pipeline([("estimator", Unknown().fit(fitted.WHOLE, fitted.VALUE))]), path)
    with pytest.raises(ModelFileRefused, match="name them in a set REVIEWED in models/flight_delay/pipeline/__init__"):
        model_file.load(path, sha256=None, own="models.flight_delay")
    monkeypatch.setattr("models.flight_delay.pipeline.REVIEWED", {f"{__name__}.Unknown"}, raising=False)
    assert model_file.load(path, sha256=None, own="models.flight_delay").predict(fitted.WHOLE[:1]).shape == (1,)
    with pytest.raises(ModelFileRefused):
        model_file.load(path, sha256=None, own="models.hourly_departures")


def test_a_model_of_scikit_learn_imports_no_other_library(tmp_path: Path) -> None:
    """Import time is what a request waits for when a replica starts."""
    path = tmp_path / "m.skops"
    model_file.dump(fitted.fitted("sklearn", "searched"), path)
    code = (
        "import sys; from pathlib import Path; from tasks.runtime import families, model_file; "
        f"families.tolerance(model_file.load(Path({str(path)!r}), None)); "
        f"print([name for name in {FOREIGN} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("package", "asked", "said"),
    [
        ("lightgbm", {"device_type": "gpu"}, "device_type: 'gpu' asks for a graphics processor, and this machine has"),
        ("lightgbm", {"num_leafs": 3}, "LightGBM knows no parameter num_leafs; did you mean 'num_leaf'?"),
        ("xgboost", {"device": "cuda:0"}, "device: 'cuda:0' asks for a graphics processor"),
        ("xgboost", {"tree_method": "gpu_hist"}, "leave it out, and XGBoost computes on the processor"),
        ("xgboost", {"n_estimator": 3}, "XGBoost does not use the parameter n_estimator; did you mean 'n_estimators'?"),
        ("xgboost", {"rate_drop": 0.1}, "XGBoost does not use the parameter rate_drop"),
        ("catboost", {"task_type": "GPU"}, "task_type: 'GPU' asks for a graphics processor"),
    ],
)
def test_what_cannot_be_fitted_here_is_told_before(
    package: str, asked: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do instead."""
    pytest.importorskip(package)
    monkeypatch.setattr("tasks.runtime.families.family.has_gpu", lambda: False)
    estimator = {"lightgbm": fitted._lightgbm, "xgboost": fitted._xgboost, "catboost": fitted._catboost}[package]
    assert said in str(families.problem(Pipeline([("estimator", estimator(**asked))])))


def test_a_release_depends_on_its_own_families_alone() -> None:
    """Editing the others makes no new candidate of it."""
    assert families.modules({"sklearn", "numpy", "tasks", "models"}) == ["tasks/runtime/families/sklearn.py"]
    assert families.modules({"lightgbm"}) == [f"tasks/runtime/families/{name}.py" for name in ("sklearn", "lightgbm")]
