"""A forecast goes all the way: rows with lags, intervals that hold, a baseline of the season before, served."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from tasks.ground import files, params, settings
from tasks.ground.errors import ModelCodeError
from tasks.lifecycle import backtest, check_time
from tasks.modelling import rows
from tasks.release.gate.verdict import Verdict
from tasks.runtime.predictor import Predictor
from tasks.training import prepare
from tests.conftest import REPOSITORY, Project, copy_repository
from tests.kinds import data, story

pytestmark = pytest.mark.slow

MODEL = "demand"


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]) -> Verdict:
    """The loop, once: three months of lendings."""
    root = copy_repository(tmp_path_factory.mktemp("forecast") / "project", REPOSITORY / "tests" / "kinds" / "project")
    enter_module(root)
    for month in (1, 2, 3):
        data.write_lendings(root, month)
    story.learn(MODEL, "lendings")
    return story.release(MODEL)


def test_it_is_judged_against_the_season_before(verdict: Verdict) -> None:
    """MASE is below 1, and the loss is beyond doubt below that of the same hour a week before."""
    checks = {check.name: check for check in verdict.checks}
    assert verdict.promoted, verdict.to_text()
    assert checks["ceilings:mase"].value == pytest.approx(0.74, abs=0.1)
    assert checks["beats_baseline"].passed
    metrics = files.read_json(settings.BUILD / MODEL / "evaluation" / "metrics.json")
    assert {"mase", "pinball_10", "pinball_90", "coverage"} <= set(metrics)
    assert metrics["mae"] < metrics["baseline"]["mae"]


def test_its_intervals_hold_on_rows_that_it_has_not_seen(verdict: Verdict) -> None:
    """The gate has a check of that, with the interval that chance has."""
    check = next(check for check in verdict.checks if check.name == "coverage")
    assert check.passed
    assert check.value == pytest.approx(0.8, abs=0.05)
    assert check.reason.endswith("80% are meant, 70% to 90% allowed")


def test_it_learns_nothing_that_came_after_the_first_question_of_the_holdout(verdict: Verdict) -> None:
    """The first row of March was asked a day before: the last day of February is not learned from."""
    split = files.read_json(settings.BUILD / MODEL / "split.json")
    assert split["until"] == "2013-02-28T00:00:00"
    assert rows.read(settings.BUILD / MODEL, "train")["time"].max() == pd.Timestamp("2013-02-28")
    assert rows.read(settings.BUILD / MODEL, "train", ["label"]).columns.tolist() == ["label"]


def test_it_answers_an_interval_that_grows_with_the_lead(verdict: Verdict) -> None:
    """`low` and `high`, as of any regression with quantiles."""
    row = {"station": "north", "hour": 8, "weekday": 1, "day_ago": 20.0, "week_ago": 20.0, "newest": 5.0}
    predictor = Predictor(settings.BUILD / MODEL / "release")
    body = json.dumps({"rows": [{**row, "lead": lead} for lead in (1, 24)]}).encode()
    near, far = json.loads(predictor.predict([body])[0].body)["predictions"]
    assert near["low"] < near["prediction"] < near["high"]
    assert far["high"] - far["low"] > near["high"] - near["low"]


def test_rows_that_look_ahead_are_refused(verdict: Verdict, enter_module: Callable[[Path], Project]) -> None:
    """A lag of an hour, in a forecast that was made six hours before."""
    root = settings.ROOT
    cheat = root / "models" / MODEL / "rows" / "__init__.py"
    honest = cheat.read_text(encoding="utf-8")
    cheat.write_text(honest.replace("newest=ago(lead)", "newest=ago(1)"), encoding="utf-8")
    enter_module(root)
    try:
        with pytest.raises(ModelCodeError) as caught:
            prepare.prepare(MODEL)
        (fault,) = check_time.check(MODEL, "2013-02", 1).of_origins
    finally:
        cheat.write_text(honest, encoding="utf-8")
    assert str(caught.value).startswith(
        "models/demand/rows, partition 2013-02: newest: look ahead. They change when only"
    )
    assert "split.forecast.known_ahead" in str(caught.value)
    assert fault == str(caught.value)


def test_its_retrain_policies_can_be_compared(verdict: Verdict) -> None:
    """In the backtest the split, the baseline of the season before and the gate are those of a forecast."""
    asked = backtest.BacktestRequest(policies=("always",), since=date(2013, 3, 25))
    (result,) = backtest.run([MODEL], params.load(), asked, jobs=1, tell=lambda _: None)
    (line,) = result.outcomes[0].ledger
    assert line["verdict"]["promoted"], line["verdict"]["summary"]  # below a MASE of 1, and better than the baseline
    assert line["served"]["loss"] == pytest.approx(3, abs=0.6)
