"""Rows → a fitted pipeline, and what is said of what it was fitted on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.ground import arithmetic, files, params, settings
from tasks.ground.errors import DataMissing, ModelCodeError
from tasks.modelling import daily_summaries, rows
from tasks.runtime import model_file
from tasks.training import prepare, train
from tests.conftest import Project, copy_project, forget_models


def prepare_rows(project: Project) -> Path:
    """The tiny model's folder below build/, as `prepare` leaves it."""
    build = settings.BUILD / "tiny"
    files.write_text(build / "environment" / "preparation.txt", "")
    readings = sorted((project.root / "data" / "readings").iterdir())
    files.write_json(build / "partitions.json", {"readings": {path.name: files.md5(path) for path in readings}})
    prepare.prepare("tiny")
    return build


@pytest.fixture
def prepared(small: Project) -> Path:
    """The rows of the tiny model, of this test alone."""
    return prepare_rows(small)


@pytest.fixture(scope="module")
def trained(
    small_copied: Path, tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]
) -> Path:
    """The tiny model, trained; not to be written to."""
    root = copy_project(small_copied, tmp_path_factory.mktemp("trained") / "project")
    build = prepare_rows(enter_module(root))
    train.train("tiny")
    return build


def relabel(build: Path, label: int) -> None:
    """Give every row of the training partitions one label."""
    for partition in files.read_json(build / "split.json")["train"]:
        path = build / "rows" / f"{partition}.parquet"
        files.write_parquet(path, pd.read_parquet(path).assign(label=label))


def test_the_same_inputs_give_the_same_bytes_in_another_process(trained: Path, small: Project, prepared: Path) -> None:
    """As `dvc repro` runs it, and in another folder; every file of the model, not only the model file."""
    first = files.tree(trained / "model")
    assert sorted(first) == [
        "model.skops", "profile.json", "reference.parquet", "seen.json",
        "train_ids.npy", "train_rows.npy", "training.json",
    ]  # fmt: skip
    small.python("from tasks.training import train; train.train('tiny')")
    assert files.tree(prepared / "model") == first


def test_the_days_of_the_training_rows_are_kept(trained: Path) -> None:
    """What later days are held against: laid out by the profile beside them, and of the training rows alone."""
    wanted = daily_summaries.columns(files.read_json(trained / "model" / "profile.json"))
    found = daily_summaries.from_bytes((trained / "model" / "reference.parquet").read_bytes(), wanted)
    assert list(found) == sorted(["hour", "label", "pressure", "starts", "station", "vibration", "weekday"])
    learn = rows.read(trained, "train")
    assert found["pressure"].days.astype(str).tolist() == sorted(set(learn["time"].dt.date.astype(str)))
    assert daily_summaries.to_bytes(found) == daily_summaries.to_bytes(daily_summaries.summarise(learn, wanted))


def test_training_json_says_what_it_was_fitted_on(trained: Path) -> None:
    """How many rows, of when, the classes, and the answer that needs no features."""
    learn = rows.read(trained, "train")
    share = learn["label"].mean()
    assert files.read_json(trained / "model" / "training.json") == {
        "task": "classification",
        "tolerance": 1e-9,
        "rows": 448,
        "from": "2013-01-01T00:00:00",
        "until": "2013-02-28T18:00:00",
        "partitions": ["2013-01", "2013-02"],
        "classes": [0, 1],
        "decision": "most_probable",
        "baseline": {"classes": [pytest.approx(1 - share), pytest.approx(share)]},
        "arrived": rows.arrived(trained),
        "arithmetic": arithmetic.in_effect(),
    }
    assert sorted(rows.arrived(trained)) == ["2013-01", "2013-02", "2013-03"]


def test_the_model_learned_from_the_training_rows_alone(trained: Path) -> None:
    """A hash of each is kept, sorted: what the gate may not score on."""
    ids = np.load(trained / "model" / "train_ids.npy")
    assert ids.tolist() == sorted(rows.row_hashes(rows.read(trained, "train")["id"]).tolist())
    assert not set(ids) & set(rows.row_hashes(rows.read(trained, "holdout")["id"]))


def test_the_model_answers_as_the_pipeline_of_the_team(trained: Path) -> None:
    """With the estimator of params.yaml, and better than chance."""
    pipeline = model_file.load(trained / "model" / "model.skops", sha256=None)
    assert pipeline[-1].get_params()["C"] == 1.0
    holdout = rows.read(trained, "holdout")
    said = model_file.predict(pipeline, holdout.drop(columns=["label", "time", "id"]), "classification")
    late = said["p_1"][holdout["label"] == 1].mean()
    assert late > said["p_1"][holdout["label"] == 0].mean() + 0.1


def test_a_regressions_baseline_is_its_mean_and_quantiles() -> None:
    """Five rows show it; there are no classes."""
    learn = pd.DataFrame({"label": [0.0, 1, 2, 3, 10], "time": pd.date_range("2013-01-01", periods=5)})
    said = train.facts(learn, "regression", ["2013-01"])
    assert said["classes"] is None
    assert said["baseline"] == {"mean": 3.2, "quantiles": {"0.1": 0.4, "0.9": pytest.approx(7.2)}}


def test_classes_of_text_are_kept_as_they_are() -> None:
    """In the order in which scikit-learn has them."""
    learn = pd.DataFrame({"label": ["b", "a", "b", "c"], "time": pd.date_range("2013-01-01", periods=4)})
    said = train.facts(learn, "classification", ["2013-01"])
    assert (said["classes"], said["baseline"]) == (["a", "b", "c"], {"classes": [0.25, 0.5, 0.25]})


def test_labels_that_are_all_the_same_teach_nothing(prepared: Path) -> None:
    """And the model that was there stays."""
    files.write_text(prepared / "model" / "model.skops", "an earlier model")
    before = files.tree(prepared / "model")
    relabel(prepared, 1)
    with pytest.raises(DataMissing, match=r"^tiny: all 448 training rows have the label 1: there is nothing to learn"):
        train.train("tiny")
    assert files.tree(prepared / "model") == before


def repeat(build: Path, times: int) -> None:
    """Make many rows of few: as many as are tried before all are fitted."""
    for path in (build / "rows").iterdir():
        rows_ = pd.read_parquet(path)
        parts = [rows_.assign(id=rows_["id"] + f"-{number}") for number in range(times)]
        files.write_parquet(path, pd.concat(parts, ignore_index=True))


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            "FunctionTransformer(lambda x: x)",
            (
                "models/tiny/pipeline: what is fitted cannot be written to a model file: it holds a function without a "
                "name of its own (models.tiny.pipeline.<lambda>): write it as a function of a file below models/tiny/"
            ),
        ),
        ("FunctionTransformer(np.nan_to_num)", "cannot be written to a model file: it holds numpy.nan_to_num"),
    ],
)
def test_what_no_model_file_holds_is_told_before_all_rows_are_fitted(
    step: str, said: str, times: int, small: Project, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many rows a few are tried first; and of few rows at once."""
    repeat(prepared, times)
    code = "models/tiny/pipeline/__init__.py"
    small.edit(code, "SimpleImputer(), StandardScaler()", f"SimpleImputer(), {step}")
    small.edit(code, "import OneHotEncoder", "import FunctionTransformer, OneHotEncoder")
    small.edit(code, "from sklearn.base", "import numpy as np\nfrom sklearn.base")
    forget_models(monkeypatch)
    with pytest.raises(ModelCodeError) as caught:
        train.train("tiny")
    assert said in str(caught.value)
    assert not (prepared / "model").exists()


def test_a_parameter_that_no_rows_make_right_is_told_early(small: Project, prepared: Path) -> None:
    """By the trial, with its key."""
    repeat(prepared, 4)
    small.edit("params.yaml", "{C: 1.0}", '{solver: "lambda x: x"}')
    with pytest.raises(ModelCodeError, match=r"^params.yaml: models.tiny.estimator.params.*: The 'solver' parameter"):
        train.train("tiny")


def test_a_threshold_by_cost_stands_in_the_model(small: Project, prepared: Path) -> None:
    """What was chosen, by what, and how the release will decide; the baseline decides for what costs less."""
    small.edit("params.yaml", "seed: 0", "seed: 0\n      decision: {cost: {false_positive: 1, false_negative: 20}}")
    train.train("tiny")
    training = files.read_json(prepared / "model" / "training.json")
    chosen = training["threshold"]
    assert training["decision"] == {"threshold": chosen["threshold"]}
    assert (chosen["by"], training["cost"], training["baseline"]["decides"]) == ("cost(1, 20)", "cost(1, 20)", 1)
    assert chosen["threshold"] < 0.3
    pipeline = model_file.load(prepared / "model" / "model.skops", sha256=None)
    learn = rows.read(prepared, "train")
    asked = learn.drop(columns=["label", "time", "id"])
    assert pipeline.predict(asked).tolist() == (pipeline.predict_proba(asked)[:, 1] >= chosen["threshold"]).tolist()


def test_a_threshold_of_more_classes_is_told(small: Project, prepared: Path) -> None:
    """Before anything is fitted."""
    small.edit("params.yaml", "seed: 0", "seed: 0\n      decision: {threshold: 0.2}")
    for path in (prepared / "rows").iterdir():
        frame = pd.read_parquet(path)
        files.write_parquet(path, frame.assign(label=np.arange(len(frame)) % 3))
    with pytest.raises(ModelCodeError, match="decision: a threshold is of two classes, the training rows have 3"):
        train.train("tiny")


def weigh(build: Path) -> None:
    """Let positive rows count three times."""
    for path in (build / "rows").iterdir():
        frame = pd.read_parquet(path)
        files.write_parquet(path, frame.assign(weight=1.0 + 2.0 * frame["label"]))


def test_weights_reach_the_estimator(prepared: Path) -> None:
    """And the baseline; the same as rows that stand three times, but for the scaling of numbers."""
    train.train("tiny")
    before = files.read_json(prepared / "model" / "training.json")["baseline"]["classes"][1]
    asked = rows.read(prepared, "holdout").drop(columns=["label", "time", "id"])

    def mean() -> float:
        pipeline = model_file.load(prepared / "model" / "model.skops", sha256=None)
        return float(model_file.predict(pipeline, asked, "classification")["p_1"].mean())

    plain = mean()
    weigh(prepared)
    train.train("tiny")
    after = files.read_json(prepared / "model" / "training.json")["baseline"]["classes"][1]
    assert after == pytest.approx(3 * before / (1 + 2 * before))
    assert mean() == pytest.approx(after, abs=0.1)
    assert mean() > plain + 0.1


def test_weights_of_an_anomaly_model_are_not_dropped_in_silence(small: Project, prepared: Path) -> None:
    """An outlier detector is fitted on rows that count alike."""
    learn = rows.read(prepared, "train").assign(weight=2.0)
    with pytest.raises(ModelCodeError, match="gives weights, and an outlier detector is fitted without: leave the col"):
        train._learn_anomalies("tiny", params.load().model("tiny"), learn)


def test_an_estimator_that_takes_no_weights_is_told(small: Project, prepared: Path) -> None:
    """Before it is fitted."""
    weigh(prepared)
    small.edit("params.yaml", "sklearn.linear_model.LogisticRegression", "sklearn.neighbors.KNeighborsClassifier")
    small.edit("params.yaml", "{C: 1.0}", "{}")
    with pytest.raises(ModelCodeError, match="gives weights, and KNeighborsClassifier takes none when it is fitted"):
        train.train("tiny")


def test_a_pipeline_that_does_not_fit_is_told(small: Project, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With scikit-learn's reason."""
    small.edit("models/tiny/pipeline/__init__.py", "make_pipeline(SimpleImputer(), StandardScaler())", "'passthrough'")
    forget_models(monkeypatch)
    with pytest.raises(ModelCodeError, match=r"^models/tiny/pipeline does not fit 448 rows: Input X contains NaN"):
        train.train("tiny")
    assert not (prepared / "model").exists()


def test_hyper_parameters_out_of_range_are_told(small: Project, prepared: Path) -> None:
    """They are checked when it is fitted."""
    small.edit("params.yaml", "C: 1.0", "C: -1.0")
    with pytest.raises(ModelCodeError, match="The 'C' parameter of LogisticRegression must be a float in the range"):
        train.train("tiny")


@pytest.mark.parametrize(
    ("class_", "said"),
    [
        ("sklearn.svm.SVC", "estimator: sklearn.svm.SVC has no predict_proba as it is, which a classification needs"),
        ("sklearn.svm.SVC", "or wrap it in models/tiny/pipeline: CalibratedClassifierCV(estimator)"),
        (
            "sklearn.linear_model.Ridge",
            (
                "params.yaml: models.tiny.estimator: sklearn.linear_model.Ridge is a regressor, and the task is "
                "classification, which needs a classifier: name one, or another task"
            ),
        ),
        ("sklearn.cluster.KMeans", "estimator: sklearn.cluster.KMeans is a clusterer, and the task is classification"),
        ("sklearn.utils.Bunch", "sklearn.utils.Bunch is no estimator: it has no fit, get_params and"),
    ],
)
def test_a_class_that_cannot_be_the_estimator_is_told(class_: str, said: str, small: Project, prepared: Path) -> None:
    """It is not the examples' fault, and no traceback."""
    small.edit("params.yaml", "sklearn.linear_model.LogisticRegression", class_)
    small.edit("params.yaml", "{C: 1.0}", "{}")
    with pytest.raises(ModelCodeError) as caught:
        train.train("tiny")
    assert said in str(caught.value)


def test_an_example_that_the_pipeline_cannot_take_is_told(
    small: Project, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is evaluated and packaged: which feature's it is, and what the pipeline says."""
    small.edit("models/tiny/pipeline/__init__.py", 'handle_unknown="ignore"', 'handle_unknown="error"')
    small.edit("params.yaml", "example: north", "example: nowhere")
    forget_models(monkeypatch)
    with pytest.raises(ModelCodeError) as caught:
        train.train("tiny")
    assert str(caught.value).startswith(
        "params.yaml: models.tiny.features: models/tiny/pipeline fails on the example (station: 'nowhere'): "
        "ValueError: Found unknown categories ['nowhere'] in column 0"
    )
    assert "\n" not in str(caught.value)
    assert not (prepared / "model").exists()


def test_a_missing_example_that_the_pipeline_cannot_take_is_told(
    small: Project, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nullable feature may be missing in a request: then the pipeline has to take that."""
    small.edit("models/tiny/pipeline/__init__.py", "SimpleImputer(), StandardScaler()", "StandardScaler()")
    small.edit("params.yaml", "example: 0.4, unit: mm/s", "example: null, unit: mm/s")
    for path in (prepared / "rows").iterdir():
        files.write_parquet(path, pd.read_parquet(path).fillna({"vibration": 0.0}))
    forget_models(monkeypatch)
    with pytest.raises(ModelCodeError, match=r"example \(vibration: None\): ValueError: Input X contains NaN"):
        train.train("tiny")


def test_a_pipeline_that_fails_on_what_may_be_missing_is_told(
    small: Project, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where training misses none, and the example neither: the first such request would end in an error."""
    small.edit("models/tiny/pipeline/__init__.py", "SimpleImputer(), StandardScaler()", "StandardScaler()")
    for path in (prepared / "rows").iterdir():
        files.write_parquet(path, pd.read_parquet(path).fillna({"vibration": 0.0}))
    forget_models(monkeypatch)
    with pytest.raises(
        ModelCodeError, match=r"fails where vibration is missing, as params.yaml lets a request have it"
    ):
        train.train("tiny")


def test_texts_with_gaps_that_do_not_fit_are_named() -> None:
    """A vectorizer says that nan is an invalid document, and not in which column."""
    from sklearn.feature_extraction.text import HashingVectorizer

    texts = pd.DataFrame({"note": pd.array(["late", None, "early"], dtype="str"), "n": [1.0, 2.0, 3.0]})
    with (
        pytest.raises(ModelCodeError, match=r"invalid document.*\(missing: note in 1 rows; fill them in the pipeline"),
        train.explained("tiny", texts),
    ):
        HashingVectorizer().fit_transform(texts["note"])
