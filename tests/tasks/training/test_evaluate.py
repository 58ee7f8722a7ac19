"""The stage `evaluate`, on small models of each task: right numbers, every file, the same bytes again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
import yaml
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from tasks.ground import files, settings
from tasks.ground.errors import DataMissing
from tasks.modelling import rows
from tasks.runtime import model_file
from tasks.training.evaluate import evaluate

REPOSITORY = Path(__file__).resolve().parents[3]
FEATURES = {
    "place": {"type": "category", "about": "Where", "example": "a"},
    "hour": {"type": "integer", "about": "When", "example": 3, "unit": "h"},
    "wind": {"type": "number", "about": "How windy", "example": None, "nullable": True, "unit": "mph"},
    "gone": {"type": "number", "about": "A sensor that broke", "example": None, "nullable": True},
}


def work_in(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """A project folder without models."""
    for name, folder in {"ROOT": root, "BUILD": root / "build", "VAR": root / "var"}.items():
        patch.setattr(settings, name, folder)
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder without models, of this test alone."""
    return work_in(tmp_path, monkeypatch)


def say_params(root: Path, task: str, features: dict, slices: list[str], split: dict) -> None:
    """params.yaml with one model, `small`."""
    regression = task == "regression"
    limits = {"margin": 0, "champion_age": 0, "min_rows": 1, "slice_min_rows": 1, "slice_margin": 1, "calibration": 1}
    gate = {"rule": "better", "loss": "absolute" if regression else "log_loss", "latency_ms": 1, "size_mb": 1, **limits}
    model = {
        "about": "A small model",
        "task": task,
        "datasets": {"some": "partition"},
        "features": features,
        "estimator": {"class": "sklearn.linear_model.LogisticRegression"},
        "split": split,
        "evaluate": {"slices": slices, "resamples": 200},
        "options": {},
        "serving": {},
        "gate": gate,
    }
    text = yaml.safe_dump({"landing": "l", "quarantine": "q", "models": {"small": model}}, sort_keys=False)
    (root / "params.yaml").write_text(text)


def table(days: int = 12, seed: int = 0, start: str = "2013-01-01") -> pd.DataFrame:
    """Rows of some days, each of which is late or not as a whole, in part."""
    rng = np.random.default_rng(seed)
    count = days * 40
    time = pd.Timestamp(start) + pd.to_timedelta(np.arange(count) // 40, unit="D") + pd.to_timedelta(12, unit="h")
    hour, wind = rng.integers(0, 24, count).astype(float), rng.gamma(2, 5, count)
    mood = np.repeat(rng.normal(size=days), 40)
    risk = 1 / (1 + np.exp(-(hour - 14) / 6 - (wind - 10) / 10 - mood + 0.5))
    frame = pd.DataFrame({"place": pd.Series(rng.choice(["a", "b", "c"], count), dtype="str"), "hour": hour})
    frame = frame.assign(wind=np.where(rng.random(count) < 0.2, np.nan, wind), gone=np.nan)
    label = (rng.random(count) < risk).astype(int)
    return frame.assign(label=label, time=time.astype("datetime64[us]"), id=[f"{start}{i}" for i in range(count)])


def lay_down(root: Path, learn: pd.DataFrame, holdout: pd.DataFrame, pipeline: Pipeline, task: str) -> Path:
    """What prepare and train leave behind."""
    build = root / "build" / "small"
    files.write_parquet(build / "rows" / "old.parquet", learn)
    files.write_parquet(build / "rows" / "new.parquet", holdout)
    files.write_json(build / "split.json", {"by": "time", "train": ["old"], "holdout": ["new"]})
    say_model(build, learn, pipeline, task)
    return build


def say_model(build: Path, learn: pd.DataFrame, pipeline: Pipeline, task: str) -> None:
    """What train leaves behind."""
    (build / "model").mkdir(parents=True, exist_ok=True)
    model_file.dump(pipeline, build / "model" / "model.skops")
    shares = learn["label"].value_counts(normalize=True).sort_index()
    training = {"task": task, "rows": len(learn), "classes": None}
    if task == "classification":
        training |= {"classes": shares.index.tolist(), "baseline": {"classes": shares.tolist()}}
    else:
        training |= {"baseline": {"mean": float(learn["label"].mean()), "quantiles": {"0.1": 0.0, "0.9": 9.0}}}
    files.write_json(build / "model" / "training.json", training)


def trees(estimator: object) -> Pipeline:
    """A pipeline like those of models/."""
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("words", encode, ["place"]), ("numbers", "passthrough", ["hour", "wind", "gone"])])
    return Pipeline([("columns", columns), ("estimator", estimator)])


def make_binary(root: Path) -> Path:
    """A model of two classes; one feature is sometimes missing, another always since the training ended."""
    learn, holdout = table(seed=1).assign(gone=7.0), table(seed=2, start="2013-02-01")
    say_params(root, "classification", FEATURES, ["place", "hour"], {"by": "time", "holdout": 1})
    estimator = DecisionTreeClassifier(min_samples_leaf=10, random_state=0)
    pipeline = trees(estimator).fit(learn[list(FEATURES)], learn["label"])
    return lay_down(root, learn, holdout, pipeline, "classification")


@pytest.fixture
def binary(root: Path) -> Path:
    """The model of two classes, of this test alone."""
    return make_binary(root)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of two classes, evaluated; not to be written to."""
    with pytest.MonkeyPatch.context() as patch:
        build = make_binary(work_in(tmp_path_factory.mktemp("evaluated"), patch))
        evaluate("small")
    return build


def pictures(build: Path) -> set[str]:
    """The names of the pictures that were drawn."""
    return {path.stem for path in (build / "evaluation" / "plots").glob("*.png")}


def test_numbers_of_two_classes(evaluated):
    """metrics.json holds the metrics of the holdout rows, rounded, and the baseline's headline metric."""
    holdout = rows.read(evaluated, "holdout")
    said = files.read_json(evaluated / "evaluation" / "metrics.json")
    kept = pd.read_parquet(evaluated / "evaluation" / "predictions.parquet")
    assert said["roc_auc"] == pytest.approx(reference.roc_auc_score(holdout["label"], kept["p_1"]), abs=1e-6)
    assert said["log_loss"] == pytest.approx(reference.log_loss(holdout["label"], kept[["p_0", "p_1"]]), abs=1e-6)
    assert said["rows"] == len(holdout)
    assert set(said["baseline"]) == {"log_loss"}
    assert said["roc_auc"] == float(f"{said['roc_auc']:.9g}")


def test_predictions_are_the_models(evaluated):
    """predictions.parquet has id, time, label, slices and what the model file says of each row, in order."""
    holdout = rows.read(evaluated, "holdout")
    kept = pd.read_parquet(evaluated / "evaluation" / "predictions.parquet")
    assert kept.columns.tolist() == ["id", "time", "label", "place", "hour", "p_0", "p_1"]
    pipeline = model_file.load(evaluated / "model" / "model.skops", None)
    expected = model_file.predict(pipeline, holdout[list(FEATURES)], "classification")
    pd.testing.assert_frame_equal(kept[["p_0", "p_1"]], expected)
    pd.testing.assert_frame_equal(kept[["id", "time", "label"]], holdout[["id", "time", "label"]])


def test_slices_add_up(evaluated):
    """slices.json has every value of every slice column, and each metric with an interval around it."""
    said = files.read_json(evaluated / "evaluation" / "slices.json")
    assert said["overall"]["days"] == 12
    assert set(said["slices"]["place"]) == {"a", "b", "c"}
    assert "3" in said["slices"]["hour"]
    for values in said["slices"].values():
        assert sum(entry["rows"] for entry in values.values()) == said["overall"]["rows"]
    overall = said["overall"]["metrics"]["log_loss"]
    assert overall["low"] < overall["value"] < overall["high"]
    assert set(said["baseline"]) == set(said["overall"]["metrics"]) - {"precision"}, "it decides for no row"
    assert set(said["importance"]) == set(FEATURES)
    assert said["importance"]["gone"] == {"value": 0, "low": 0, "high": 0}


def test_pictures_of_two_classes(evaluated):
    """Each picture of the task is there, 800 pixels wide, without a trace of when or with what it was drawn."""
    assert pictures(evaluated) == {"ranking", "calibration", "slices", "importance", "partial_dependence"}
    for path in (evaluated / "evaluation" / "plots").glob("*.png"):
        with Image.open(path) as picture:
            assert 780 <= picture.width <= 820
            assert set(picture.info) <= {"dpi"}
    for name in ("roc", "pr", "calibration"):
        records = files.read_json(evaluated / "evaluation" / "plots" / f"{name}.json")
        assert {"x", "y"} <= set(records[0])


def test_same_bytes_in_another_process(evaluated, tmp_path):
    """Another process, with another hash seed and another matplotlibrc, gives the same bytes, pictures included."""
    root = shutil.copytree(evaluated.parents[1], tmp_path / "project")
    first = files.tree(evaluated / "evaluation")
    shutil.rmtree(root / "build" / "small" / "evaluation")
    (root / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\nsavefig.dpi: 30\n")
    code = "import sys; from tasks.training.evaluate import evaluate; evaluate('small')\n"
    code += "print('matplotlib.pyplot' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "EVERGREEN_ROOT": str(root), "PYTHONHASHSEED": "7"}
    environment |= {"MATPLOTLIBRC": str(root), "MPLBACKEND": "svg"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert files.tree(root / "build" / "small" / "evaluation") == first
    assert said.stdout.strip() == "False"


def test_earlier_output_is_not_written_into(binary):
    """What was there is replaced, so that a cache that links to it keeps its bytes."""
    files.write_text(binary / "evaluation" / "metrics.json", "of an earlier model")
    linked = binary / "cached.json"
    os.link(binary / "evaluation" / "metrics.json", linked)
    evaluate("small")
    assert linked.read_text() == "of an earlier model"
    assert (binary / "evaluation" / "metrics.json").read_text() != "of an earlier model"


def test_regression(root):
    """A regression has its own metrics and pictures; quantiles count only where the model offers them."""
    learn, holdout = (table(seed=s, start=f"2013-0{s}-01").assign(gone=7.0) for s in (1, 2))
    for frame in (learn, holdout):
        frame["label"] = np.random.default_rng(0).poisson(1 + frame["hour"]).astype(float)
    say_params(root, "regression", FEATURES, ["place"], {"by": "time", "holdout": 1})
    pipeline = trees(DecisionTreeRegressor(min_samples_leaf=10, random_state=0)).fit(
        learn[list(FEATURES)], learn["label"]
    )
    build = lay_down(root, learn, holdout, pipeline, "regression")
    evaluate("small")
    said = files.read_json(build / "evaluation" / "metrics.json")
    kept = pd.read_parquet(build / "evaluation" / "predictions.parquet")
    assert set(said) == {"mae", "rmse", "poisson", "calibration_error", "baseline", "rows"}
    assert said["poisson"] == pytest.approx(
        reference.mean_poisson_deviance(kept["label"], kept["prediction"]), abs=1e-6
    )
    assert pictures(build) == {"predicted_observed", "residuals", "slices", "importance", "partial_dependence"}


def test_a_regression_of_rows_without_a_time(root):
    """Rows are resampled one by one, there is no picture by day, and no day is counted."""
    frame = table(days=20).assign(gone=7.0, time=pd.Series(pd.NaT, index=range(0), dtype="datetime64[us]"))
    frame["label"] = np.random.default_rng(0).poisson(1 + frame["hour"]).astype(float)
    say_params(root, "regression", FEATURES, ["place"], {"by": "random", "holdout": 0.3})
    build = root / "build" / "small"
    files.write_parquet(build / "rows" / "all.parquet", frame)
    files.write_json(build / "split.json", {"by": "random", "share": 0.3, "partitions": ["all"]})
    learn = rows.read(build, "train")
    pipeline = trees(DecisionTreeRegressor(min_samples_leaf=10, random_state=0)).fit(
        learn[list(FEATURES)], learn["label"]
    )
    say_model(build, learn, pipeline, "regression")
    evaluate("small")
    said = files.read_json(build / "evaluation" / "slices.json")
    assert said["resampled"] == "row"
    assert said["overall"]["days"] == 0
    assert "low" in said["overall"]["metrics"]["mae"]
    assert pictures(build) == {"predicted_observed", "slices", "importance", "partial_dependence"}


def test_many_classes_split_at_random(root):
    """Ten digits, rows of one day split at random: rows are resampled one by one, and there is a confusion matrix."""
    digits = load_digits()
    names = [f"pixel_{i:02d}" for i in range(64)]
    frame = pd.DataFrame(digits.data, columns=names).assign(
        label=digits.target, time=pd.Timestamp("2020-01-01").as_unit("us")
    )
    frame["id"] = [f"digit {i}" for i in range(len(frame))]
    features = {name: {"type": "number", "about": "Brightness", "example": 0} for name in names}
    split = {"by": "random", "holdout": 0.25}
    say_params(root, "classification", features, [], split)
    build = root / "build" / "small"
    files.write_parquet(build / "rows" / "all.parquet", frame)
    files.write_json(build / "split.json", {"by": "random", "share": 0.25, "partitions": ["all"]})
    learn = rows.read(build, "train")
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500)).fit(
        learn[names], learn["label"]
    )
    say_model(build, learn, pipeline, "classification")
    evaluate("small")
    holdout = rows.read(build, "holdout")
    said = files.read_json(build / "evaluation" / "slices.json")
    assert said["resampled"] == "row"
    accuracy = said["overall"]["metrics"]["accuracy"]
    assert accuracy["value"] == pytest.approx(pipeline.score(holdout[names], holdout["label"]), abs=1e-6)
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert pictures(build) == {"confusion", "calibration", "importance", "partial_dependence"}


def test_holdout_of_one_class_and_one_day(binary):
    """A holdout in which nothing happened on a single day is scored as far as it goes: no AUC, no interval, no ROC."""
    quiet = table(days=1, start="2013-03-01").assign(label=0)
    files.write_parquet(binary / "rows" / "new.parquet", quiet)
    evaluate("small")
    said = files.read_json(binary / "evaluation" / "slices.json")
    of_one_class = {"log_loss", "brier", "calibration_error", "accuracy", "precision", "f1"}
    assert set(said["overall"]["metrics"]) == of_one_class
    assert set(said["overall"]["metrics"]["log_loss"]) == {"value"}
    assert pictures(binary) == {"calibration", "slices", "importance", "partial_dependence"}


def test_slice_of_one_class(binary):
    """A slice in which nothing happened has no AUC, and does not stand in the way of the others."""
    holdout = rows.read(binary, "holdout")
    holdout.loc[holdout["place"] == "b", "label"] = 0
    files.write_parquet(binary / "rows" / "new.parquet", holdout)
    evaluate("small")
    places = files.read_json(binary / "evaluation" / "slices.json")["slices"]["place"]
    assert "roc_auc" not in places["b"]["metrics"]
    assert "roc_auc" in places["a"]["metrics"]


def test_no_holdout_rows(binary):
    """A holdout without rows is an error that says what to do, and leaves nothing behind."""
    files.write_parquet(binary / "rows" / "new.parquet", rows.read(binary, "holdout").head(0))
    with pytest.raises(DataMissing, match=r"small: the holdout has no rows; deliver more data"):
        evaluate("small")
    assert not (binary / "evaluation").exists()


def test_a_slice_that_weighs_nothing_has_no_metrics(binary):
    """And a holdout that does has none either, which is told."""
    holdout = rows.read(binary, "holdout")
    holdout = holdout.assign(weight=(holdout["place"] != "b").astype(float))
    files.write_parquet(binary / "rows" / "new.parquet", holdout)
    evaluate("small")
    places = files.read_json(binary / "evaluation" / "slices.json")["slices"]["place"]
    assert places["b"]["metrics"] == {}
    assert "log_loss" in places["a"]["metrics"]
    files.write_parquet(binary / "rows" / "new.parquet", holdout.assign(weight=0.0))
    with pytest.raises(DataMissing, match=r"small: the weight of every holdout row is 0"):
        evaluate("small")
