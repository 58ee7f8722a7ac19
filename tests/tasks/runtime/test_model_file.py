"""The model file: the same model gives the same bytes, and nothing is loaded that was not looked at."""

from __future__ import annotations

import functools
import io
import json
import operator
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import LatentDirichletAllocation, TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2, mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB, ComplementNB, MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.random_projection import SparseRandomProjection
from sklearn.svm import LinearSVC

from models.hourly_departures.pipeline.interval import WithInterval
from tasks.ground import files
from tasks.ground.errors import ModelFileRefused
from tasks.runtime import families, model_file, skops_io
from tests.conftest import REPOSITORY
from tests.tasks import estimators

# ── what can be kept ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Pipeline, Path]]:
    """A fitted pipeline around a named estimator, and its model file; each is fitted once."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def get(name: str) -> tuple[Pipeline, Path]:
        pipeline = estimators.fitted(name)
        model_file.dump(pipeline, folder / f"{name}.skops")
        return pipeline, folder / f"{name}.skops"

    return get


@pytest.mark.parametrize("name", list(estimators.NAMED))
def test_an_estimator_of_scikit_learn_answers_the_same_after_loading(dumped: Any, name: str) -> None:
    """What a team may put into params.yaml or its pipeline, without adding to the list of trusted types."""
    pipeline, path = dumped(name)
    loaded = model_file.load(path, sha256=files.sha256(path))
    rows = estimators.ROWS
    np.testing.assert_array_equal(loaded.predict(rows), pipeline.predict(rows))
    if hasattr(pipeline, "predict_proba"):
        np.testing.assert_array_equal(loaded.predict_proba(rows), pipeline.predict_proba(rows))


def test_two_processes_write_the_same_bytes(dumped: Any) -> None:
    """Neither memory addresses nor the time of day nor the order of a set is in the file."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-m", "tests.tasks.estimators"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    there = json.loads(done.stdout)
    here = {name: files.sha256(dumped(name)[1]) for name in estimators.NAMED}
    assert {name for name in here if here[name] != there[name]} == set()


def test_a_model_that_was_loaded_gives_the_same_bytes_again(tmp_path: Path) -> None:
    """And each object that was one before is one after: nothing is merged, nothing doubled."""
    model_file.dump(estimators.fitted("hist_gradient_boosting"), tmp_path / "one.skops")
    loaded = model_file.load(tmp_path / "one.skops", sha256=None)
    model_file.dump(loaded, tmp_path / "two.skops")
    assert files.sha256(tmp_path / "one.skops") == files.sha256(tmp_path / "two.skops")


def test_the_archive_holds_no_date_and_no_address(tmp_path: Path) -> None:
    """Its members are dated 1980 and numbered."""
    model_file.dump(estimators.fitted("logistic_regression"), tmp_path / "m.skops")
    with zipfile.ZipFile(tmp_path / "m.skops") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        numbered = [name for name in archive.namelist() if name != "schema.json"]
        assert numbered == [f"{n:06d}.npy" for n in range(1, len(numbered) + 1)]


# ── what is asked of a pipeline ───────────────────────────────────────────────────────────────────


def test_a_classifier_gives_a_column_per_class() -> None:
    """In the order of its classes, with the index of the rows."""
    rows = estimators.ROWS.set_axis(range(100, 100 + len(estimators.ROWS)))
    said = model_file.predict(estimators.fitted("logistic_regression"), rows, "classification")
    assert list(said.columns) == ["p_0", "p_1"]
    assert said.index.equals(rows.index)
    np.testing.assert_allclose(said.sum(axis=1), 1)


def test_a_regressor_gives_its_prediction_and_quantiles_where_it_offers_them() -> None:
    """The lower quantile is never above the upper."""
    plain = model_file.predict(estimators.fitted("ridge"), estimators.ROWS, "regression")
    assert list(plain.columns) == ["prediction"]
    said = model_file.predict(with_interval(), estimators.ROWS[["a", "b"]], "regression")
    assert list(said.columns) == ["prediction", "q10", "q90"]
    assert (said["q10"] <= said["q90"]).all()


# ── what is refused ───────────────────────────────────────────────────────────────────────────────


def with_interval() -> Pipeline:
    """A pipeline that ends in an estimator of a team's own."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    own = WithInterval(HistGradientBoostingRegressor(max_iter=3))
    return make_pipeline(StandardScaler(), own).fit(estimators.ROWS[["a", "b"]], estimators.NUMBER)


def predict_own(path: Path, own: str | None) -> Pipeline:
    """Load a file that no hash is known of."""
    return model_file.load(path, sha256=None, own=own)


def test_a_teams_own_types_are_loaded_for_that_team_alone(tmp_path: Path) -> None:
    """Below models.<name>, and for no model whose name begins alike."""
    path = tmp_path / "m.skops"
    model_file.dump(with_interval(), path)
    assert isinstance(predict_own(path, "models.hourly_departures")[-1], WithInterval)
    for own in (None, "models.hourly", "models.flight_delay"):
        folder = (own or "models.<name>").replace(".", "/")
        with pytest.raises(ModelFileRefused) as caught:
            predict_own(path, own)
        assert str(caught.value) == (
            f"{path} holds types that are not on the reviewed list: "
            "models.hourly_departures.pipeline.interval.WithInterval. It is not loaded. Read what they do; if they are "
            f"harmless, name them in a set REVIEWED in {folder}/pipeline/__init__.py."
        )


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    """One bit is enough; the error says what it is and what it should be."""
    path = tmp_path / "m.skops"
    model_file.dump(estimators.fitted("ridge"), path)
    recorded = files.sha256(path)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileRefused) as caught:
        model_file.load(path, sha256=recorded)
    assert str(caught.value) == (
        f"{path} was changed after it was packaged: its SHA-256 is {files.sha256(path)}, recorded was {recorded}. "
        "It is not loaded. Restore it (dvc pull, or build the release again)."
    )


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """It is the world's fault, not a defect."""
    with pytest.raises(ModelFileRefused, match=r"m\.skops is not there$"):
        model_file.load(tmp_path / "m.skops", sha256=None)


class Foreign(TransformerMixin, BaseEstimator):
    """A transformer that is on no list."""

    def fit(self, X: Any, y: Any = None) -> Foreign:  # noqa: N803 - scikit-learn's name
        """Learn nothing."""
        return self

    def transform(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's name
        """Change nothing."""
        return X


def first(thing: Any) -> Pipeline:
    """A pipeline that would call something on every row."""
    return make_pipeline(FunctionTransformer(thing), StandardScaler())


@pytest.mark.parametrize(
    ("pipeline", "refused"),
    [
        (make_pipeline(Foreign()), "tests.tasks.runtime.test_model_file.Foreign"),
        (first(os.system), "posix.system"),
        (first(subprocess.run), "subprocess.run"),
        (first(eval), "builtins.eval"),
        (first(print), "builtins.print"),
        (first(pickle.loads), "_pickle.loads"),
        (first(pd.read_pickle), "pandas.read_pickle"),
        (first(np.load), "numpy.load"),
        (first(functools.partial(os.system, "true")), "posix.system"),
        (first(functools.partial(functools.partial, os.system)), "posix.system"),
        (first(functools.partial(map, os.system)), "posix.system"),
        (first(operator.methodcaller("system", "true")), "operator.methodcaller"),
        (first(operator.attrgetter("__class__")), "operator.attrgetter"),
        (first(StandardScaler().fit), "sklearn.preprocessing._data.StandardScaler.fit"),
        (make_pipeline(StandardScaler()).set_params(memory=subprocess.Popen), "subprocess.Popen"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_would_call_what_is_not_on_the_list_is_refused(
    tmp_path: Path, pipeline: Pipeline, refused: str
) -> None:
    """`functools.partial` is on the list, and is no way around it: what it calls is looked at as well."""
    path = tmp_path / "m.skops"
    path.write_bytes(skops_io.module().dumps(pipeline))
    with pytest.raises(ModelFileRefused, match=rf"not on the reviewed list: .*{refused}"):
        predict_own(path, "models.flight_delay")


def forged(path: Path, schema: dict[str, Any], **members: bytes) -> Path:
    """A model file that no pipeline was ever dumped to."""
    from skops.io._protocol import PROTOCOL

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", json.dumps({"protocol": PROTOCOL, "_skops_version": "0.16.0", **schema}))
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def node(loader: str, name: str, **more: Any) -> dict[str, Any]:
    """One node of skops' schema."""
    module, _, class_ = name.rpartition(".")
    return {"__loader__": loader, "__module__": module, "__class__": class_, **more}


def text(value: Any) -> dict[str, Any]:
    """A plain value."""
    return node("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def called_at_load(function: dict[str, Any], argument: str) -> dict[str, Any]:
    """A dict whose key is made by a function of the file's choice: it runs while the file is loaded."""
    types = node("ListNode", "builtins.list", content=[function])
    return node("DictNode", "builtins.dict", key_types=types, content={argument: text(1)})


def through_an_import(function: str, argument: str) -> dict[str, Any]:
    """`pd.read_pickle`, by way of a module of the team's that says `import pandas as pd`."""
    pandas = node("TypeNode", "models.flight_delay.rows.pd")
    method = node("MethodNode", "models.flight_delay.rows.pd", content={"obj": pandas, "func": function})
    return called_at_load(method, argument)


def through_a_name(argument: str) -> dict[str, Any]:
    """The same by a name alone, as if a function of pandas were the team's."""
    return called_at_load(node("FunctionNode", "models.flight_delay.rows.pd.read_pickle"), argument)


@pytest.mark.parametrize("way", [functools.partial(through_an_import, "read_pickle"), through_a_name])
def test_a_teams_own_modules_lend_no_function_that_they_import(tmp_path: Path, way: Callable[[str], Any]) -> None:
    """A file may name models.<name>.….pd.read_pickle, and a pickle runs whatever it likes."""
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(pickle.dumps(Touches(str(tmp_path / "touched"))))
    path = forged(tmp_path / "m.skops", way(str(evil)))
    with pytest.raises(ModelFileRefused):
        predict_own(path, "models.flight_delay")
    assert not (tmp_path / "touched").exists()


class Touches:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        """What pickle calls."""
        return os.open, (self.path, os.O_CREAT)


@pytest.mark.parametrize("trusted", sorted(families.SKLEARN.reviewed))
def test_no_trusted_name_runs_something_when_it_is_called(tmp_path: Path, trusted: str) -> None:
    """A forged file may call each of them with a text of its choice, and does nothing to the world by it."""
    touched = tmp_path / "touched"
    path = forged(tmp_path / "m.skops", called_at_load(node("TypeNode", trusted), f"touch {touched}"))
    try:
        model_file.load(path, sha256=None)
    except ModelFileRefused as error:
        assert "not a model file" in str(error)  # noqa: PT017 - either end is well
    assert not touched.exists()
    assert names(tmp_path) == ["m.skops"]


TEXTS = ["good day sir", "bad thing here", "good thing", "bad day"] * 10
OF_TEXTS: dict[str, Callable[[], Pipeline]] = {
    "tfidf": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()),
    "count": lambda: make_pipeline(CountVectorizer(stop_words="english", ngram_range=(1, 2)), MultinomialNB()),
    "hashing": lambda: make_pipeline(HashingVectorizer(n_features=64), TfidfTransformer(), LogisticRegression()),
    "svd": lambda: make_pipeline(TfidfVectorizer(analyzer="char_wb"), TruncatedSVD(3), LogisticRegression()),
    "selected": lambda: make_pipeline(CountVectorizer(), SelectKBest(chi2, k=2), ComplementNB()),
    "informative": lambda: make_pipeline(CountVectorizer(), SelectKBest(mutual_info_classif, k=2), BernoulliNB()),
    "projected": lambda: make_pipeline(TfidfVectorizer(), SparseRandomProjection(3), LogisticRegression()),
    "topics": lambda: make_pipeline(CountVectorizer(), LatentDirichletAllocation(2), LogisticRegression()),
    "calibrated": lambda: make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(LinearSVC())),
}


@pytest.mark.parametrize("name", list(OF_TEXTS))
def test_a_pipeline_of_texts_is_written_and_read(tmp_path: Path, name: str) -> None:
    """Every type that it holds was reviewed."""
    pipeline = OF_TEXTS[name]().fit(TEXTS, [0, 1, 0, 1] * 10)
    model_file.dump(pipeline, tmp_path / "m.skops")
    again = model_file.load(tmp_path / "m.skops", sha256=None)
    assert (again.predict_proba(TEXTS) == pipeline.predict_proba(TEXTS)).all()


def names(folder: Path) -> list[str]:
    """What a folder holds."""
    return sorted(path.name for path in folder.iterdir())


OF_THIS_PROJECT = {
    "tasks.runtime.alert_budget.AlertBudget",
    "tasks.runtime.conformal.Conformal",
    "tasks.runtime.ordinal_codes.Codes",
    "tasks.runtime.outputs.Outputs",
}


def test_every_trusted_name_is_a_class_or_function_of_a_library_that_serves() -> None:
    """No module, no bound method, and none is an attribute of another; of this project, what it brings along."""
    from importlib import import_module
    from types import FunctionType

    for trusted in families.SKLEARN.reviewed:
        module, _, name = trusted.rpartition(".")
        assert module.split(".")[0] in {"sklearn", "numpy", "scipy", "functools"} or trusted in OF_THIS_PROJECT
        assert isinstance(getattr(import_module(module), name), type | FunctionType)
        assert module not in families.SKLEARN.reviewed


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip",
        pickle.dumps({"a": 1}),
        b"PK\x05\x06" + b"\0" * 18,
    ],
)
def test_what_is_no_archive_of_skops_is_refused(tmp_path: Path, content: bytes) -> None:
    """A pickle is one of these."""
    (tmp_path / "m.skops").write_bytes(content)
    with pytest.raises(ModelFileRefused, match=r"m\.skops is not a model file: "):
        model_file.load(tmp_path / "m.skops", sha256=None)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"protocol": 99},
        {"protocol": "1"},
        node("NoSuchNode", "builtins.dict"),
        node("ObjectNode", "functools.partial", content=text({})),
        node("ObjectNode", "sklearn.no.Such"),
        node("OperatorFuncNode", "os.system", attrs=text("true")),
        node("NdArrayNode", "numpy.ndarray", type="numpy", file="missing.npy"),
        node("CachedNode", "builtins.dict", __id__=5),
    ],
)
def test_a_schema_that_makes_no_sense_is_refused(tmp_path: Path, schema: dict[str, Any]) -> None:
    """With our error, so that a service says why it does not start."""
    with pytest.raises(ModelFileRefused):
        model_file.load(forged(tmp_path / "m.skops", schema), sha256=None)


def test_a_damaged_file_is_refused_or_is_still_the_model(tmp_path: Path) -> None:
    """Whatever bytes are hit: never another error."""
    path = tmp_path / "m.skops"
    model_file.dump(estimators.fitted("ridge"), path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(0, len(content), 150):
        path.write_bytes(content[:at] + bytes([content[at] ^ int(rng.integers(1, 256))]) + content[at + 1 :])
        try:
            model_file.load(path, sha256=None)
        except ModelFileRefused:
            refused += 1
    for end in rng.integers(0, len(content), 20):
        path.write_bytes(content[:end])
        with pytest.raises(ModelFileRefused):
            model_file.load(path, sha256=None)
    assert refused > 50


def test_an_object_array_in_a_file_is_not_unpickled(tmp_path: Path) -> None:
    """Loading with numpy would, if it were let."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Touches(str(tmp_path / "touched"))], dtype=object), allow_pickle=True)
    schema = node("NdArrayNode", "numpy.ndarray", type="numpy", file="000001.npy")
    path = forged(tmp_path / "m.skops", schema, **{"000001.npy": buffer.getvalue()})
    with pytest.raises(ModelFileRefused, match="Object arrays cannot be loaded"):
        model_file.load(path, sha256=None)
    assert not (tmp_path / "touched").exists()
