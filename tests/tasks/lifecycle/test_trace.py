"""`evergreen trace`: the story of a prediction, online or of a batch, back to the data and forward to the label."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments import cli
from tasks.ground import files, params, paths, settings
from tasks.ground.errors import DataMissing, Mistake
from tasks.journal import journal
from tasks.lifecycle import trace
from tasks.lifecycle.trace import Tracer
from tasks.prediction_log import prediction_log
from tasks.release.batch import batch
from tasks.release.gate import gate
from tasks.release.package import package
from tasks.release.registry import desired_state, promotions, registry, verdict_records
from tasks.release.registry.desired_state import ReleaseRef
from tasks.runtime import predictor
from tests.conftest import Project, copy_project
from tests.tasks.release.small_release import MODEL, make_release

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@dataclass(frozen=True)
class World:
    """A project whose candidate was judged, promoted, went live and answered."""

    candidate: str
    row: dict[str, Any]
    """A holdout row, with its id and label."""
    early: str
    """The id of a prediction before it went live."""
    late: str
    """And of one after that, of which the client named the row."""


@pytest.fixture(scope="module")
def world(
    small_copied: Path, tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]
) -> World:
    """Everything is as the platform leaves it."""
    enter_module(copy_project(small_copied, tmp_path_factory.mktemp("trace") / "project"))
    candidate = make_release()
    from tasks.release import comparison  # it asks the registry, which is this project's only now

    config = params.load().model(MODEL)
    verdict = gate.judge(comparison.comparison(MODEL, config, None), config.gate, config.evaluate.resamples)
    verdict_records.record(MODEL, 1, verdict)
    promotions.promote(MODEL, 1, verdict.id)
    row = pd.read_parquet(settings.BUILD / MODEL / "rows" / "2013-03.parquet").iloc[0].to_dict()
    early = answer(candidate, row)
    desired_state.note(MODEL, ReleaseRef(candidate, "1", journal.now()), "live")
    return World(candidate, row, early, answer(candidate, row, key=row["id"]))


def answer(candidate: str, row: dict[str, Any], key: str | None = None) -> str:
    """A request as a replica answers and logs it; gives the id of its prediction."""
    (asked,) = package.request_rows(pd.DataFrame([row]), params.load().model(MODEL))
    answers = predictor.Predictor(settings.BUILD / MODEL / "release").predict([json.dumps({"rows": [asked]}).encode()])
    (prediction,) = json.loads(answers[0].body)["predictions"]
    prediction_id = prediction.pop("id")
    now = datetime.now(UTC)
    line = {
        "request": prediction_id,
        "time": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "ms": 1.5,
        "model": MODEL,
        "version": "1",
        "release": candidate,
        "key": "team",
        "ids": [prediction_id],
        "keys": [key] if key else None,
        "rows": [asked],
        "predictions": [prediction],
    }
    path = (
        paths.incoming_predictions(MODEL)
        / now.date().isoformat()
        / f"{candidate}.4000000.17000{time.time_ns()}.0.jsonl"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(line) + b"\n")
    time.sleep(0.01)  # ids and the journal are exact to a millisecond
    return str(prediction_id)


def test_the_story_goes_back_to_the_data_and_forward_to_the_label(world: World) -> None:
    """Release, verdict, training, partitions with their hashes, and the label of the row that the client named."""
    story = Tracer(params.load()).trace(world.late).as_json()
    assert (story["model"], story["unknown"]) == (MODEL, [])
    assert story["asked"]["source"] == "online"
    assert story["asked"]["row"]["station"] == world.row["station"]
    assert story["release"]["candidate"] == world.candidate
    assert story["release"]["as"].startswith("live since ")
    (verdict,) = story["verdicts"]
    assert verdict["promoted"]
    assert story["release"]["promoted_by"] == verdict["id"]
    assert {check["name"] for check in verdict["checks"]} >= {"improvement", "schema"}
    assert len(story["training"]["commit"]) == 40
    assert "LogisticRegression" in story["training"]["estimator"]
    known = {path.name: files.md5(path) for path in (settings.ROOT / "data" / "readings").iterdir()}
    assert {part["partition"]: part["md5"] for part in story["learned_from"]} == known
    assert {part["now"] for part in story["learned_from"]} == {"as it was"}
    assert story["label"] == {"row": world.row["id"], "value": world.row["label"]}


def test_what_answered_before_it_was_live_was_a_canary(world: World) -> None:
    """And of a row that the client did not name, no label is known."""
    story = Tracer(params.load()).trace(world.early)
    assert story.release["as"].startswith("canary")
    assert story.label is None
    assert "label      not known" in "\n".join(story.lines())


def test_a_compacted_log_tells_the_same(world: World) -> None:
    """Whichever form the log has."""
    before = Tracer(params.load()).trace(world.late)
    prediction_log.compact(MODEL)
    assert Tracer(params.load()).trace(world.late) == before


def test_a_batch_is_traced_as_a_request_is(world: World, tmp_path: Path) -> None:
    """By the id that stands beside each row."""
    frame = pd.read_parquet(settings.BUILD / MODEL / "rows" / "2013-03.parquet").head(3)
    frame.to_parquet(tmp_path / "rows.parquet")
    scored = batch.score(MODEL, str(tmp_path / "rows.parquet"), version=world.candidate, log=lambda _: None)
    second = pd.read_parquet(settings.ROOT / scored.to).iloc[1]
    story = Tracer(params.load()).trace(second["prediction_id"])
    assert story.asked["source"] == f"batch of {tmp_path / 'rows.parquet'}"
    assert story.asked["row"]["id"] == second["id"]
    assert story.answer["probability"] == second["probability"]
    assert story.release["as"] == "batch"
    assert [verdict["promoted"] for verdict in story.verdicts] == [True]


def test_a_thousand_stories_read_once_what_they_share(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry is asked for the first prediction of a candidate alone."""
    tracer = Tracer(params.load())
    tracer.trace(world.late)
    monkeypatch.setattr(registry, "history", lambda *_: pytest.fail("was asked again"))
    assert tracer.trace(world.early).verdicts


@pytest.mark.parametrize("name", ["01a2", "x" * 32, "01A22F26EF7E73369AEBE5D3EA6E2681"])
def test_what_is_no_id_is_a_mistake(world: World, name: str) -> None:
    """It says what ids look like."""
    with pytest.raises(Mistake, match="32 digits"):
        Tracer(params.load()).trace(name)


def test_an_id_that_no_log_has_is_told_with_the_rule_that_may_have_taken_it(world: World) -> None:
    """And when it would have been answered."""
    with pytest.raises(DataMissing, match=r"serving.log_days.*: tiny \d+ days"):
        Tracer(params.load()).trace(world.late[:-1] + ("0" if world.late[-1] != "0" else "1"))


def test_a_registry_without_the_candidate_tells_what_is_still_known(world: World) -> None:
    """The request and the answer, and why the rest is not."""
    lost = answer("0123456789abcdef", world.row)
    story = Tracer(params.load()).trace(lost)
    assert story.answer
    assert story.unknown == ["the registry has no candidate 0123456789abcdef: it was deleted in MLflow"]
    assert story.learned_from == []


def test_the_command_prints_it(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """As lines, and as JSON."""
    assert cli.main(["trace", world.late]) == 0
    assert f"candidate {world.candidate}" in capsys.readouterr().out
    assert cli.main(["trace", world.late, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == world.late


def test_a_table_of_somebody_else_is_passed_over_and_a_torn_part_is_named(tmp_path: Path) -> None:
    """A batch's folder may hold both."""
    pq.write_table(pa.table({"prediction_id": ["0" * 32], "price": [1.5]}), tmp_path / "joined.parquet")
    tracer = Tracer(params.Params.model_construct(models={}))
    assert tracer._row_of_part(tmp_path / "joined.parquet", "0" * 32) is None
    (tmp_path / "part.parquet").write_bytes((tmp_path / "joined.parquet").read_bytes()[:-20])
    assert tracer._row_of_part(tmp_path / "part.parquet", "0" * 32) is None
    with pytest.raises(DataMissing, match=r"part\.parquet cannot be read"):
        tracer.trace("0" * 32)


def test_answers_of_several_labels_are_no_columns_of_the_row() -> None:
    """Each label has its own; what was kept of the source stays the row's."""
    names = ["rain:prediction", "rain:p_yes", "wind:low", "p_a:b", "unseen", "dist", "low_tide"]
    assert [name for name in names if trace._is_answer(name)] == names[:5]
