"""Packaging: what a release holds, what it is named after, and that it answers as evaluated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tasks.ground import files, settings
from tasks.ground.errors import ReleaseDiffers, StageFailed
from tasks.modelling import rows
from tasks.release.package import alone, package
from tasks.runtime import skops_io
from tasks.training import train
from tests.conftest import copy_project
from tests.release_root import make_project, project_at

MODEL = "hourly_departures"  # with quantiles and an estimator of its own: the one that could go wrong


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """A project whose model is packaged; no test changes it for the next."""
    root = tmp_path_factory.mktemp("packaged")
    make_project(root, MODEL)
    with project_at(root):
        for folder in (root, root / "models" / MODEL, root / "models" / MODEL / "pipeline"):
            (folder / ".env").write_text("PASSWORD=1")
        package.package(MODEL)
    return root


@pytest.fixture
def project(packaged, tmp_path):
    """A copy of that project, to be changed."""
    root = copy_project(packaged, tmp_path / "project")
    with project_at(root):
        yield root


@pytest.fixture
def unchanged(packaged):
    """That project itself, to be looked at."""
    with project_at(packaged):
        yield packaged


def release(root: Path) -> Path:
    """The folder that the stage made."""
    return root / "build" / MODEL / "release"


def stored(root: Path) -> list[str]:
    """The versions in the Bento store."""
    return sorted(path.name for path in (root / "var" / "bentoml" / "bentos" / MODEL).iterdir() if path.is_dir())


def test_a_release_holds_what_serving_needs_and_no_more(unchanged):
    """The service, the model, the code that they import; no training code, no data, no .env."""
    runtime = {f"tasks/runtime/{path.name}" for path in (unchanged / "tasks" / "runtime").glob("*.py")}
    runtime |= {f"tasks/runtime/families/{name}.py" for name in ("__init__", "family", "sklearn")}
    assert set(files.tree(release(unchanged))) == runtime | {
        "model.skops", "release.json", "golden.json", "background.json", "candidate.json", "requirements.txt",
        "tasks/__init__.py", "models/__init__.py", f"models/{MODEL}/__init__.py",
        f"models/{MODEL}/pipeline/__init__.py", f"models/{MODEL}/pipeline/interval.py",
    }  # fmt: skip


def test_a_bento_holds_the_release_and_no_more(unchanged):
    """BentoML packs the whole folder unless it is told what."""
    held = files.tree(package.ensure_bento(MODEL) / "src")
    assert held.pop("bentofile.yaml")
    assert held == files.tree(release(unchanged))


def test_the_same_inputs_give_the_same_candidate(unchanged, tmp_path):
    """Packaged again, in another folder, at another time: the same name and the same bytes."""
    package.write_release(MODEL, package.params.load().model(MODEL), tmp_path / "again")
    assert files.tree(tmp_path / "again") == files.tree(release(unchanged))
    assert str(unchanged) not in (tmp_path / "again" / "release.json").read_text()


CODE = [
    "models/{}/pipeline/interval.py",
    "tasks/runtime/request_schema.py",
    "tasks/runtime/bento_service.py",
    "tasks/runtime/replica.py",
]


@pytest.mark.parametrize("changed", CODE)
def test_other_code_gives_another_candidate(project, changed):
    """A candidate is named after all that it is made from."""
    before = package.release_facts(release(project))["candidate"]
    with (project / changed.format(MODEL)).open("a") as source:
        source.write("\n# another comment\n")
    package.write_release(MODEL, package.params.load().model(MODEL), project / "again")
    assert package.release_facts(project / "again")["candidate"] != before


def test_the_facts_name_what_the_candidate_was_made_from(unchanged):
    """Partitions, estimator, packages and the hash of the model file."""
    facts = package.release_facts(release(unchanged))
    assert facts["model_sha256"] == files.sha256(release(unchanged) / "model.skops")
    assert facts["lineage"]["partitions"] == files.read_json(unchanged / "build" / MODEL / "partitions.json")
    assert facts["lineage"]["estimator"]["class"].startswith("sklearn.")
    assert facts["categories"]["origin"] == ["EWR", "JFK", "LGA"]
    assert facts["metrics"] == {"loss": 0.5}


def test_the_bento_carries_the_lineage_as_labels(unchanged):
    """`bentoml get` says where a release comes from."""
    facts = package.release_facts(release(unchanged))
    described = yaml.safe_load((package.ensure_bento(MODEL) / "bento.yaml").read_text())
    assert described["labels"].items() >= package.labels(facts).items()
    assert described["labels"]["flights.2013-01"] == facts["lineage"]["partitions"]["flights"]["2013-01.csv"]


def test_the_image_gets_the_locked_pins(unchanged):
    """Nothing is resolved again when the image is built."""
    wanted = (release(unchanged) / "requirements.txt").read_text().splitlines()
    found = (package.ensure_bento(MODEL) / "env" / "python" / "requirements.txt").read_text()
    assert {line.split("==")[0] for line in wanted} == {line.split("==")[0] for line in found.splitlines() if line}


def test_golden_rows_are_holdout_rows_with_their_evaluated_predictions(unchanged):
    """A rollout can try a release where there is no holdout."""
    golden = files.read_json(release(unchanged) / "golden.json")
    evaluated = pd.read_parquet(unchanged / "build" / MODEL / "evaluation" / "predictions.parquet").set_index("id")
    assert len(golden) == package.GOLDEN
    for one in golden:
        assert one["predicted"] == {c: evaluated.loc[one["id"], c] for c in ("prediction", "q10", "q90")}


def test_background_rows_are_training_rows_spread_over_their_time(unchanged):
    """An explanation asks what is usual; what was held out is not to be given away with the release."""
    background = files.read_json(release(unchanged) / "background.json")
    model = package.params.load().model(MODEL)
    learnt = package.request_rows(rows.read(unchanged / "build" / MODEL, "train", list(model.features)), model)
    assert len(background) == train.BACKGROUND
    places = [learnt.index(row) for row in background]
    assert places == sorted(places)
    assert places[-1] > 0.8 * len(learnt)


def test_the_bins_of_the_predictions_hold_alike_much_of_what_was_evaluated(unchanged):
    """So that a shift of any part of them is seen; of a probability, the bins are of one width."""
    edges = files.read_json(release(unchanged) / "release.json")["prediction_edges"]
    assert edges == sorted(set(edges))
    evaluated = pd.read_parquet(unchanged / "build" / MODEL / "evaluation" / "predictions.parquet")["prediction"]
    shares = np.histogram(evaluated, [-np.inf, *edges, np.inf])[0] / len(evaluated)
    often = evaluated.value_counts(normalize=True).max()  # one value is in one bin, however often it was predicted
    assert package.BINS / 2 < len(shares) <= package.BINS
    assert shares.max() <= 1 / package.BINS + often + 1 / len(evaluated)
    assert package.prediction_edges(MODEL, [0, 1]) == [round(n * 0.05, 9) for n in range(1, 20)]


ASKED = """
import json, pathlib, sys

src = sys.argv[1]
sys.path.insert(0, src)
from tasks.runtime import predictor, replica
release = predictor.Predictor(pathlib.Path(src))
golden = json.load(open(f"{src}/golden.json"))
answer = release.predict([json.dumps({"rows": [one["row"] for one in golden]}).encode()])[0]
explained = release.explain(json.dumps({"row": golden[0]["row"]}).encode())
from tasks.runtime import bento_service
statuses = [answer.status, explained.status]
print(json.dumps({"statuses": statuses, "body": json.loads(answer.body)}))
"""


def test_a_release_answers_with_nothing_installed_but_what_it_names(unchanged):
    """Replica, explanation and BentoML service, without MLflow, Prefect, DVC, Great Expectations or this checkout."""
    src = package.ensure_bento(MODEL) / "src"
    python = alone.interpreter((src / "requirements.txt").read_text())
    line = [str(python), "-I", "-c", ASKED, str(src)]
    told = subprocess.run(line, capture_output=True, text=True, check=False, env=package._environment())
    assert told.returncode == 0, told.stderr[-3000:]
    said = json.loads(told.stdout)
    assert said["statuses"] == [200, 200]
    golden = files.read_json(src / "golden.json")
    for one, answered in zip(golden, said["body"]["predictions"], strict=True):
        assert one["predicted"] == {
            "prediction": answered["prediction"],
            "q10": answered["low"],
            "q90": answered["high"],
        }


def test_a_bento_that_is_there_is_not_built_again(unchanged):
    """Asking twice changes nothing."""
    before = (package.ensure_bento(MODEL) / "bento.yaml").stat().st_mtime_ns
    assert (package.ensure_bento(MODEL) / "bento.yaml").stat().st_mtime_ns == before


@pytest.mark.parametrize("harm", ["lost", "half", "changed", "more"])
def test_a_bento_that_is_lost_or_harmed_is_built_again(project, harm):
    """The store is a cache: the folder in build/ is what a release is."""
    bento = package.ensure_bento(MODEL)
    {
        "lost": partial(shutil.rmtree, bento),
        "half": (bento / "bento.yaml").unlink,
        "changed": partial((bento / "src" / "model.skops").write_bytes, b"other"),
        "more": partial((bento / "src" / "more.py").write_text, "x = 1"),
    }[harm]()
    assert package.ensure_bento(MODEL) == bento
    assert (bento / "bento.yaml").is_file()
    assert set(files.tree(bento / "src")) == {*files.tree(release(project)), "bentofile.yaml"}


def test_bentoml_lists_the_release(unchanged):
    """The store is BentoML's own: its command finds what was moved in."""
    bento = package.ensure_bento(MODEL)
    command = [str(Path(sys.executable).parent / "bentoml"), "get", f"{MODEL}:latest", "-o", "json"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=package._environment())
    assert json.loads(told.stdout[told.stdout.index("{") :])["version"] == bento.name


def test_an_answer_that_differs_from_the_evaluation_is_refused(project):
    """The message names the row and both values; the release that stood there stays, and the Bento is not kept."""
    stood, kept = files.tree(release(project)), stored(project)
    path = project / "build" / MODEL / "evaluation" / "predictions.parquet"
    frame = pd.read_parquet(path)
    frame.loc[3, "prediction"] += 1e-6
    files.write_parquet(path, frame)
    said = rf"{frame.loc[3, 'id']}: prediction was evaluated as [\d.e-]+, the release answers [\d.e-]+"
    with pytest.raises(ReleaseDiffers, match=said):
        package.package(MODEL)
    assert files.tree(release(project)) == stood
    assert set(stored(project)) <= set(kept)


REGRESSION = pd.DataFrame({"prediction": [7.0, 8.0], "q10": [5.0, 6.0], "q90": [9.0, 10.0]}, index=["a", "b"])
CLASSES = pd.DataFrame({"p_0": [0.25, 0.5], "p_1": [0.75, 0.5]}, index=["a", "b"])


def answer(*predictions: dict) -> dict:
    """What the service would have said."""
    return {"status": 200, "body": {"predictions": list(predictions)}}


@pytest.mark.parametrize(("key", "column"), [("prediction", "prediction"), ("low", "q10"), ("high", "q90")])
def test_every_column_of_a_regression_is_compared(key, column):
    """A wrong quantile is as wrong as a wrong prediction."""
    good = [{"prediction": 7.0, "low": 5.0, "high": 9.0}, {"prediction": 8.0, "low": 6.0, "high": 10.0}]
    package.refuse_difference("m:1", REGRESSION, answer(*good), {"name": "m"})
    with pytest.raises(ReleaseDiffers, match=f"b: {column} was evaluated as .*, the release answers 6.5"):
        package.refuse_difference("m:1", REGRESSION, answer(good[0], {**good[1], key: 6.5}), {"name": "m"})


@pytest.mark.parametrize("wrong", [{"0": 0.5, "1": 0.5000001}, {"0": 0.5}, {}, {"0": 0.5, "1": float("nan")}])
def test_every_class_is_compared(wrong):
    """A probability that is off, missing or not a number is a difference."""
    good = {"probabilities": {"0": 0.25, "1": 0.75}}
    package.refuse_difference("m:1", CLASSES, answer(good, {"probabilities": {"0": 0.5, "1": 0.5}}), {"name": "m"})
    with pytest.raises(ReleaseDiffers, match="b: p_"):
        package.refuse_difference("m:1", CLASSES, answer(good, {"probabilities": wrong}), {"name": "m"})


def test_a_row_that_the_schema_refuses_is_told():
    """Limits in params.yaml that real rows break would make the service refuse them in production."""
    detail = [{"row": 1, "field": "month", "problem": "Input should be greater than or equal to 3"}]
    with pytest.raises(ReleaseDiffers, match=r"b: month: Input should be greater than or equal to 3\nWiden"):
        package.refuse_difference("m:1", CLASSES, {"status": 400, "body": {"detail": detail}}, {"name": "m"})


def test_a_model_that_fails_on_a_row_is_told():
    """It is no matter of limits: what the release says of it is repeated."""
    body = {"error": "the model fails on this request (ValueError); nothing was predicted"}
    with pytest.raises(ReleaseDiffers, match=r"^m:1 fails on holdout rows \(HTTP 500\): the model fails .*ValueError"):
        package.refuse_difference("m:1", CLASSES, {"status": 500, "body": body}, {"name": "m"})


def test_what_was_measured_is_kept_and_measured_again_when_lost(project):
    """Latency, size and start-up are the machine's, so they are no output of a stage."""
    first = package.measured(MODEL)
    assert first.keys() == {"latency_ms", "size_mb", "startup_s"}
    assert all(value > 0 for value in first.values())
    shutil.rmtree(project / "var" / "memo" / "measured")
    again = package.measured(MODEL)
    assert again["size_mb"] == first["size_mb"]
    assert package.measured(MODEL) == again


def test_a_type_that_is_not_on_the_list_is_refused_before_serving(unchanged, tmp_path):
    """A model file that would run something of its own making is not loaded, even when its hash is the recorded one."""
    from sklearn.preprocessing import FunctionTransformer

    bento = shutil.copytree(package.ensure_bento(MODEL), tmp_path / "bento")
    skops_io.module().dump(FunctionTransformer(np.fromfile), bento / "src" / "model.skops")
    facts = files.read_json(bento / "src" / "release.json")
    facts["model_sha256"] = files.sha256(bento / "src" / "model.skops")
    files.write_json(bento / "src" / "release.json", facts)
    with (
        package._interpreter("ask") as asking,
        pytest.raises(StageFailed, match=r"not on the reviewed list: numpy\S*fromfile"),
    ):
        package._do(asking, {"do": "ask", "bento": str(bento), "batches": [], "alone": []})


def test_packaging_does_not_import_what_it_has_no_use_for():
    """Neither MLflow nor BentoML is loaded into the process of the flow."""
    probe = "import sys; from tasks.release.package import package; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=settings.ROOT)
    assert not {"mlflow", "bentoml", "prefect", "sklearn", "pandas"} & set(told.stdout.split())


def test_old_bentos_go_but_those_that_are_used_and_the_newest(tmp_path, monkeypatch):
    """A candidate a day for a year: what serves is kept however old it is; a store elsewhere is left alone."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    store, now = tmp_path / "bentoml" / "bentos" / "tiny", time.time()
    for day in range(365):
        path = store / f"{day:016x}" / "bento.yaml"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (now - day * 86_400,) * 2)
    used = f"{300:016x}"
    gone = package.forget_unused("tiny", {used}, days=30)
    assert len(gone) == 365 - 31
    assert {path.name for path in store.iterdir()} == {*(f"{day:016x}" for day in range(30)), used}
    monkeypatch.setattr(settings, "VAR", tmp_path / "another")
    assert package.forget_unused("tiny", set(), days=1) == []
