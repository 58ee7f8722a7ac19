"""The flow predict beside a real Prefect server: what a person sees who starts it and waits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.prefect_support import api
from tasks.ground import files
from tests.deployments.alone import Alone, server
from tests.tasks.release.small_release import make_release

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def alone(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """The small project with a version of its model, and a server."""
    with server(small_copied, tmp_path_factory.mktemp("predict") / "project") as alone:
        make_release()
        yield alone


def predict(alone: Alone, *arguments: str) -> tuple[int, str]:
    """`evergreen predict tiny …`: its exit code, and what it says."""
    done = alone.project.run(sys.executable, "-m", "deployments.cli", "predict", "tiny", *arguments, check=False)
    return done.returncode, done.stdout + done.stderr


def artifacts(key: str) -> list[dict[str, Any]]:
    """What stands in the UI under a key, newest first."""
    asked = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
    found: list[dict[str, Any]] = api.call("/artifacts/filter", asked)
    return found


def last_run() -> dict[str, Any]:
    """The flow run that was begun last; not those that the schedules plan."""
    begun = {"flow_runs": {"start_time": {"is_null_": False}}, "sort": "START_TIME_DESC", "limit": 1}
    found: list[dict[str, Any]] = api.call("/flow_runs/filter", begun)
    return found[0]


def test_a_partition_is_scored_and_shown(alone: Alone) -> None:
    """Its answers are the evaluated ones; the UI has the progress and what it came to. Again: nothing is redone."""
    build = alone.project.root / "build" / "tiny"
    code, told = predict(alone, "readings/2013-03", "--to", "var/out", "--version", "challenger")
    assert code == 0, told
    got = pd.read_parquet(alone.project.root / "var" / "out").set_index("id")
    evaluated = pd.read_parquet(build / "evaluation" / "predictions.parquet").set_index("id")
    pd.testing.assert_frame_equal(got[["p_0", "p_1"]], evaluated.loc[got.index, ["p_0", "p_1"]], rtol=1e-12)
    candidate = files.read_json(build / "release" / "candidate.json")["candidate"]
    said = f"tiny: 224 rows scored, by version 1 (candidate {candidate}), in var/out"
    assert last_run()["state"]["message"] == said
    assert last_run()["name"] == "predict/tiny"
    assert artifacts("predict-tiny")[0]["data"] == 100.0
    assert artifacts("batch-tiny")[0]["data"] == f"**{said}**"
    code, told = predict(alone, "readings/2013-03", "--to", "var/out", "--version", "challenger")
    assert code == 0, told
    assert "(1 part was there already)" in last_run()["state"]["message"]


def test_refused_rows_are_told_with_their_problems(alone: Alone) -> None:
    """The run completes, and says what was refused; text from outside does not break the table."""
    rows = '{"station":"north","weekday":1,"hour":6,"starts":4,"pressure":1}\n'
    (alone.project.root / "var" / "rows.jsonl").write_text(rows + rows.replace("hour", "h|ur"), encoding="utf-8")
    code, told = predict(alone, "var/rows.jsonl", "--to", "var/lines", "--version", "1")
    assert code == 0, told
    assert "1 row scored, 1 refused" in last_run()["state"]["message"]
    page = artifacts("batch-tiny")[0]["data"]
    assert "| hour: is missing; h&#124;ur: is not known; did you mean &#x27;hour&#x27;? | 1 |" in page.replace(
        "'", "&#x27;"
    )


def test_what_cannot_be_scored_fails_and_says_why(alone: Alone) -> None:
    """No champion, no such file, no valid row: the run fails, with the reason as its message."""
    code, told = predict(alone, "readings/2013-03")
    assert code == 1
    assert "DataMissing: tiny has no champion yet" in told
    path = alone.project.root / "var" / "bad.csv"
    path.write_text("station,weekday\nnorth,1\n")
    code, told = predict(alone, "var/bad.csv", "--to", "var/bad", "--version", "1")
    assert code == 1
    assert "column hour is missing" in last_run()["state"]["message"]
    assert "column hour is missing" in artifacts("batch-tiny")[0]["data"]


def test_the_form_in_the_ui_can_be_filled_in() -> None:
    """Every parameter has a type, a limit where there is one, and says what it is."""
    from prefect.utilities.callables import parameter_schema

    from flows.predict import predict as flow

    form = parameter_schema(flow).model_dump()
    assert form["required"] == ["model", "source"]
    assert (
        form["properties"]["chunk"] | {"minimum": 1, "maximum": 1_000_000, "default": 50_000}
        == form["properties"]["chunk"]
    )
    assert form["properties"]["version"]["default"] == "champion"
    assert all(one.get("description") for one in form["properties"].values())
