"""A model of strange rows goes all the way: learned without labels, judged without them and with them, served."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.ground import files, params, settings
from tasks.ground.errors import Mistake
from tasks.lifecycle import backtest_history
from tasks.release.gate.verdict import Verdict
from tasks.runtime.predictor import Predictor
from tests.conftest import REPOSITORY, Project, copy_repository
from tests.kinds import data, story

pytestmark = pytest.mark.slow

MODEL = "payments"


@dataclass(frozen=True)
class Story:
    """What happened: three months without a label, then a fourth one with labels."""

    first: Verdict
    metrics: dict[str, Any]
    answers: list[dict[str, Any]]
    explained: dict[str, Any]
    blind: Verdict
    second: Verdict
    later: dict[str, Any]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]) -> Story:
    """The loop, thrice: without labels, again without, and with all of them."""
    root = copy_repository(tmp_path_factory.mktemp("anomaly") / "project", REPOSITORY / "tests" / "kinds" / "project")
    enter_module(root)
    for month in (1, 2, 3):
        data.write_payments(root, month)
    story.learn(MODEL, "payments")
    first = story.release(MODEL)
    build = settings.BUILD / MODEL
    metrics = files.read_json(build / "evaluation" / "metrics.json")
    predictor = Predictor(build / "release")
    usual = {"amount": 20.0, "hour": 14, "country": "DE", "minutes": 600.0}
    strange = {"amount": 900.0, "hour": 3, "country": "XX", "minutes": 0.1}
    answer = json.loads(predictor.predict([json.dumps({"rows": [usual, strange]}).encode()])[0].body)
    explained = json.loads(predictor.explain(json.dumps({"row": strange}).encode()).body)
    data.write_payments(root, 4)
    story.learn(MODEL, "payments")
    blind = story.release(MODEL)
    data.write_payments(root, 5, known=1.0)
    story.learn(MODEL, "payments")
    second = story.release(MODEL)
    later = files.read_json(build / "evaluation" / "metrics.json")
    return Story(first, metrics, answer["predictions"], explained, blind, second, later)


def reasons(verdict: Verdict) -> dict[str, str]:
    """Check → its reason."""
    return {check.name: check.reason for check in verdict.checks}


def test_it_is_judged_without_a_single_label(told: Story) -> None:
    """By the share of alerts, latency and size; and the verdict says that labels said nothing."""
    assert told.first.promoted, told.first.to_text()
    assert reasons(told.first)["beats_baseline"].startswith("not judged: 0 of 1,680 rows have a label")
    assert {"average_precision", "roc_auc", "precision_at_k"} & set(told.metrics) == set()
    assert told.metrics["stability"] > 0.5


def test_it_keeps_to_its_budget_of_alerts(told: Story) -> None:
    """Five a day of sixty rows: on rows that it has not learned from."""
    assert told.metrics["baseline"]["alert_rate"] == pytest.approx(5 / 60)
    assert told.metrics["alert_rate"] == pytest.approx(5 / 60, rel=0.3)


def test_it_answers_a_score_and_whether_that_is_an_alert(told: Story) -> None:
    """Above 0 is an alert; higher is stranger."""
    usual, strange = told.answers
    assert (usual["prediction"], strange["prediction"]) == (0, 1)
    assert usual["score"] < 0 < strange["score"]
    assert told.explained["of"] == "score"


def test_without_labels_a_newer_one_replaces_an_old_one_that_it_agrees_with(told: Story) -> None:
    """Nothing says that it is better, and nothing that it is worse."""
    assert told.blind.promoted, told.blind.to_text()
    assert reasons(told.blind)["improvement"].startswith("not judged by labels")
    assert "rank the rows as the champion's do" in reasons(told.blind)["agreement"]


def test_with_labels_average_precision_decides(told: Story) -> None:
    """The same rows and days of both; a forest of another month is no better beyond doubt."""
    assert "1 - average_precision is" in reasons(told.second)["improvement"]
    assert "1 - average_precision is" in reasons(told.second)["beats_baseline"]
    assert {check.name: check.passed for check in told.second.checks}["beats_baseline"]
    assert told.later["average_precision"] > 0.5
    assert told.later["precision_at_k"] > 0.2


def test_its_evaluation_draws_alerts_and_scores(told: Story) -> None:
    """Beside what features matter to the score."""
    plots = settings.BUILD / MODEL / "evaluation" / "plots"
    assert {"alerts.png", "importance.png", "ranking.png", "partial_dependence.png"} <= {
        p.name for p in plots.iterdir()
    }
    scored = pd.read_parquet(plots.parent / "predictions.parquet")
    assert ((scored["anomaly_score"] > 0) == (scored["prediction"] == 1)).all()


def test_its_retrain_policies_cannot_be_compared(told: Story) -> None:
    """Average precision is of all rows together, so that no week has a loss: told before anything is trained."""
    with pytest.raises(
        Mistake, match="payments: a backtest compares policies by the mean loss of their answers, and an"
    ):
        backtest_history.read(MODEL, params.load())
