"""A model with a feature of each type goes all the way: learned, packaged, served, logged, watched."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.status_page import page
from tasks.ground import files, params, paths, settings
from tasks.modelling import profile, rows
from tasks.monitoring.drift import drift
from tasks.monitoring.intake import intake
from tasks.monitoring.intake.reference import Reference
from tasks.prediction_log import prediction_log
from tasks.release.package import package
from tasks.release.registry import registry, version_files
from tasks.runtime import feature_types, model_file
from tasks.runtime.predictor import Predictor
from tasks.runtime.replica import PREDICT, PredictionLog, RequestFrame
from tests.conftest import REPOSITORY, Project, copy_repository
from tests.kinds import data, story

pytestmark = pytest.mark.slow

MODEL = "orders"


@dataclass(frozen=True)
class Story:
    """What happened."""

    asked: pd.DataFrame
    answers: list[dict[str, Any]]
    logged: pa.Table
    state: intake.IntakeState
    found: drift.DriftReport


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]) -> Story:
    """Two months are learned; the holdout is asked, a day at a time, and the monitor looks."""
    root = copy_repository(tmp_path_factory.mktemp("types") / "project", REPOSITORY / "tests" / "kinds" / "project")
    enter_module(root)
    for month in (1, 2, 3):
        data.write_orders(root, month)
    story.learn(MODEL, "orders")
    assert story.release(MODEL).promoted
    champion = registry.champion(MODEL)
    assert champion is not None
    config, asked = params.load().model(MODEL), rows.read(settings.BUILD / MODEL, "holdout")
    answers = _serve(asked, config)
    later = datetime.now(UTC) + timedelta(hours=1)
    reference = Reference(champion.candidate, version_files.fetch_cached(MODEL, champion))
    options = intake.IntakeOptions(config.task, tuple(config.evaluate.slices), config.serving.log_days)
    state = intake.ingest(MODEL, options, lambda _: reference.profile, later)
    layouts = intake.columns(reference.profile)
    stream = intake.summaries(MODEL, state, champion.candidate, layouts)
    found = drift.detect(layouts, reference.days(layouts), stream, {})
    page.write()
    return Story(asked, answers, prediction_log.read(MODEL), state, found)


def _serve(asked: pd.DataFrame, config: params.Model) -> list[dict[str, Any]]:
    """Answers and log lines as a replica gives them."""
    release = settings.BUILD / MODEL / "release"
    predictor = Predictor(release, "1")
    log = PredictionLog(paths.incoming_predictions(MODEL), MODEL, predictor.release.candidate, "1")
    answers: list[dict[str, Any]] = []
    for _, of_day in asked.groupby(asked["time"].dt.normalize()):
        body = {
            "rows": package.request_rows(of_day, config),
            "keys": of_day["id"].tolist(),
            "time": of_day["time"].iloc[0].isoformat() + "Z",
        }
        frame = RequestFrame(PREDICT, 1, time.time(), f"r{len(answers)}", None, json.dumps(body).encode())
        answer = predictor.predict([frame.body])[0]
        assert answer.status == 200, answer.body
        log.write([(frame, answer)])
        answers += json.loads(answer.body)["predictions"]
    log._close()
    return answers


def test_answers_are_those_of_the_pipeline(told: Story) -> None:
    """Whatever became of times, truths, texts and vectors on their way through JSON."""
    pipeline = model_file.load(settings.BUILD / MODEL / "model" / "model.skops", None, own=f"models.{MODEL}")
    config = params.load().model(MODEL)
    expected = model_file.predict(pipeline, told.asked[config.columns], config.task)
    assert [answer["probability"] for answer in told.answers] == pytest.approx(expected["p_1"].tolist(), rel=1e-9)


def test_the_log_has_each_value_as_it_was_asked(told: Story) -> None:
    """By the names of params.yaml, with their spaces, dots and brackets."""
    logged = told.logged.to_pandas().set_index("row_key").loc[told.asked["id"]]
    for name in ("shop", "Note to shop", "n. items", "Weight [kg]"):
        pd.testing.assert_series_equal(
            logged[name].astype(object).where(logged[name].notna(), None).reset_index(drop=True),
            told.asked[name].astype(object).where(told.asked[name].notna(), None).reset_index(drop=True),
        )
    assert told.logged.schema.field("is new").type == pa.bool_()
    assert logged["scan"].map(list).tolist() == told.asked[[f"scan_{i}" for i in range(4)]].to_numpy().tolist()


def test_every_type_is_watched_and_nothing_has_moved(told: Story) -> None:
    """The holdout is of the world that was learned."""
    watched = set(told.found.findings)
    assert {"shop", "is new", "due.at: days after time", "n. items", "Weight [kg]", "scan: norm"} <= watched
    assert {"Note to shop: length", "Note to shop: unknown words"} <= watched
    assert [name for name, finding in told.found.findings.items() if finding.status == "drift"] == []


def test_no_text_that_a_person_wrote_leaves_data_rows_and_prediction_log(told: Story) -> None:
    """Searched in each byte of release, metrics, pictures, MLflow, monitor and page, Parquet and JSON unpacked."""
    kept = (settings.BUILD / MODEL / "rows", files.memos() / "rows")  # the rows, and the same for the next training
    kept += (paths.predictions(MODEL), paths.incoming_predictions(MODEL))
    places = [path for top in (settings.BUILD, settings.VAR) for path in top.rglob("*") if path.is_file()]
    holding = [path for path in places if any(data.MARKER.encode() in part for part in _contents(path))]
    assert {folder for folder in kept if any(path.is_relative_to(folder) for path in holding)} >= {
        kept[0],
        kept[2],
    }  # so the search finds it
    assert [path for path in holding if not any(path.is_relative_to(folder) for folder in kept)] == []
    assert {"release.json", "mlflow.db", "index.html", "state.json"} <= {path.name for path in places}


def test_a_text_may_be_logged_as_a_hash(told: Story, tmp_path: Path) -> None:
    """The answer is the same; the line has no text, the same text has the same hash, and is not watched."""
    release = shutil.copytree(settings.BUILD / MODEL / "release", tmp_path / "release")
    facts = files.read_json(release / "release.json")
    whole = Predictor(release).predict([_request()])[0]
    facts["features"]["Note to shop"]["log"] = "hash"
    files.write_json(release / "release.json", facts)
    hashed = Predictor(release).predict([_request()])[0]
    assert data.MARKER.encode() in whole.logged
    assert data.MARKER.encode() not in hashed.logged
    first, second, missing = (row["Note to shop"] for row in json.loads(b"{" + hashed.logged + b"}")["rows"])
    assert first == second == feature_types.for_log({"text": f"{data.MARKER} is"}, ["text"])["text"]
    assert missing is None
    assert [p["probability"] for p in json.loads(hashed.body)["predictions"]] == [
        p["probability"] for p in json.loads(whole.body)["predictions"]
    ]
    learned = profile.reference_profile(told.asked, facts["features"], None)
    assert learned["unwatched"] == ["Note to shop"]
    assert not [name for name in learned["features"] if name.startswith("Note to shop")]


def _request() -> bytes:
    config = params.load().model(MODEL)
    row = {name: feature.example for name, feature in config.features.items()}
    texts = (f"{data.MARKER} is", f"{data.MARKER} is", None)
    return json.dumps({"rows": [{**row, "Note to shop": text} for text in texts]}).encode()


def _contents(path: Path) -> Iterator[bytes]:
    """A file as it is; of what is compressed also what is in it."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        yield repr(pq.read_table(path).to_pydict()).encode()
    if path.suffix == ".skops":
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
