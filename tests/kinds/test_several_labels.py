"""Models of several labels go all the way: learned together or each, judged label by label, served, logged, watched."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.ground import files, settings
from tasks.release.batch import batch
from tasks.release.gate.verdict import Verdict
from tasks.runtime.predictor import Predictor
from tests.conftest import REPOSITORY, Project, copy_repository
from tests.kinds import data, story

pytestmark = pytest.mark.slow

HOME = {"region": "north", "area": 100.0, "glass": 0.2}


@dataclass(frozen=True)
class Told:
    """What became of both models."""

    root: Path
    verdicts: dict[str, tuple[Verdict, Verdict]]
    metrics: dict[str, dict[str, Any]]
    answers: dict[str, dict[str, Any]]
    explained: dict[str, dict[str, Any]]
    watched: dict[str, list[dict[str, Any]]]
    """The monitor's reports: when some labels have come, and when all have."""
    batches: dict[str, pd.DataFrame]


def scored(model: str, source: str, **more: Any) -> pd.DataFrame:
    """The answers to a batch."""
    result = batch.score(model, source, log=lambda _: None, **more)
    return pd.concat([pd.read_parquet(path) for path in sorted(Path(result.to).glob("*.parquet"))])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]) -> Told:
    """Three months of homes, then a fourth one; of a month before, two labels have not come."""
    root = copy_repository(tmp_path_factory.mktemp("several") / "project", REPOSITORY / "tests" / "kinds" / "project")
    enter_module(root)
    data.write_homes(root, 1, unknown=True)
    for month in (2, 3):
        data.write_homes(root, month)
    verdicts, metrics, answers, explained = {}, {}, {}, {}
    for model, label in (("homes", "cooling"), ("ratings", "rating")):
        story.learn(model, "homes")
        first = story.release(model)
        predictor = Predictor(settings.BUILD / model / "release")
        answers[model] = json.loads(predictor.predict([json.dumps({"rows": [HOME]}).encode()])[0].body)["predictions"][
            0
        ]
        explained[model] = json.loads(predictor.explain(json.dumps({"row": HOME, "output": label}).encode()).body)
        metrics[model] = files.read_json(settings.BUILD / model / "evaluation" / "metrics.json")
        verdicts[model] = first, first
    asked = pd.read_csv(data.write_homes(root, 4, unknown=True), parse_dates=["at"])
    watched = {}
    for model in ("homes", "ratings"):
        story.ask(model, asked.rename(columns={"home": "id", "at": "time"}), datetime(2026, 11, 21, 12, tzinfo=UTC))
        story.make_rows(model, "homes")
        watched[model] = [story.look(model)]
    data.write_homes(root, 4)
    for model in ("homes", "ratings"):
        story.make_rows(model, "homes")
        watched[model].append(story.look(model))
    file = root / "homes.csv"
    asked[["home", "region", "area", "glass"]].head(5).assign(area=[100, -1, 50, 60, 70]).to_csv(file, index=False)
    batches = {
        "file": scored("ratings", str(file), keep=["home"]),
        "partition": scored("ratings", "homes/2013-04"),
    }
    story.learn("homes", "homes")
    verdicts["homes"] = verdicts["homes"][0], story.release("homes")
    return Told(root, verdicts, metrics, answers, explained, watched, batches)


def reasons(verdict: Verdict) -> dict[str, str]:
    """Check → its reason."""
    return {check.name: check.reason for check in verdict.checks}


def test_what_is_learned_from_has_all_labels(told: Told) -> None:
    """Of the first month two labels have not come: its rows wait."""
    training = files.read_json(settings.BUILD / "homes" / "model" / "training.json")
    assert training["rows"] == 2 * 840
    assert training["outputs"] == ["heating", "cooling"]


def test_both_labels_are_judged_together_and_each(told: Told) -> None:
    """The mean over the labels of each row; a limit of one; and none may be worse beyond its margin."""
    first, second = told.verdicts["homes"]
    assert first.promoted, first.to_text()
    assert reasons(first)["ceilings:mae:cooling"].endswith("at most 20 is allowed")
    assert "absolute is " in reasons(second)["improvement"]
    assert reasons(second)["output:cooling"].startswith("absolute is ")
    assert told.verdicts["ratings"][0].promoted, told.verdicts["ratings"][0].to_text()


def test_metrics_are_of_each_label_and_plain_the_mean(told: Told) -> None:
    """Two classes and three have what they have in common."""
    homes, ratings = told.metrics["homes"], told.metrics["ratings"]
    assert homes["mae"] == pytest.approx((homes["mae:heating"] + homes["mae:cooling"]) / 2)
    assert ratings["f1"] == pytest.approx((ratings["f1:complaint"] + ratings["f1:rating"]) / 2)
    assert "average_precision:complaint" in ratings
    assert "average_precision" not in ratings


def test_each_label_is_answered_by_its_name(told: Told) -> None:
    """A class is what the rows have: a truth value, a text."""
    assert set(told.answers["homes"]["prediction"]) == {"heating", "cooling"}
    assert told.answers["homes"]["prediction"]["heating"] == pytest.approx(113, abs=15)
    answer = told.answers["ratings"]
    assert answer["prediction"] == {"complaint": True, "rating": "c"}
    assert set(answer["probabilities"]["rating"]) == {"a", "b", "c"}
    assert sum(answer["probabilities"]["complaint"].values()) == pytest.approx(1)


def test_one_label_is_explained_by_name(told: Told) -> None:
    """Its number, or the probability of its class."""
    homes, ratings = told.explained["homes"], told.explained["ratings"]
    assert homes["of"] == "cooling: prediction"
    assert homes["value"] == told.answers["homes"]["prediction"]["cooling"]
    assert ratings["of"] == "rating: probability of c"
    parts = sum(part["contribution"] for part in ratings["contributions"])
    assert ratings["base"] + parts == pytest.approx(ratings["value"])


def test_pictures_are_of_each_label(told: Told) -> None:
    """In a folder of its own, beside what is of all."""
    plots = settings.BUILD / "ratings" / "evaluation" / "plots"
    assert (plots / "complaint" / "ranking.png").exists()
    assert (plots / "rating" / "confusion.png").exists()
    assert (plots / "importance.png").exists()


def test_a_label_is_measured_as_soon_as_it_comes(told: Told) -> None:
    """Cooling comes later: until then the loss of both is not known, and that of heating is."""
    partly, wholly = (report["quality"]["windows"][-1] for report in told.watched["homes"])
    assert "mae:heating" in partly["measured"]
    assert not {"mae", "absolute", "mae:cooling"} & set(partly["measured"])
    assert partly["text"].startswith("not enough data: 0 of 180 rows have all labels (heating 180, cooling 0)")
    assert wholly["measured"]["mae"]["value"] == pytest.approx(wholly["measured"]["absolute"]["value"])
    assert "within its interval" in wholly["releases"].popitem()[1]["text"]


def test_classes_that_come_later_are_measured_then(told: Told) -> None:
    """Of a truth value and of three classes; and no alarm, as nothing changed."""
    partly, wholly = (report["quality"]["windows"][-1]["measured"] for report in told.watched["ratings"])
    assert "f1:complaint" in partly
    assert "f1:rating" not in partly
    assert {"log_loss", "f1", "f1:rating", "roc_auc:complaint"} <= set(wholly)
    assert all(report["alarms"] == [] for reports in told.watched.values() for report in reports)


def test_requests_answers_and_labels_of_each_are_compared_with_training(told: Told) -> None:
    """Of two classes one probability is enough."""
    columns = {column["name"]: column["role"] for column in told.watched["ratings"][1]["data"]["columns"]}
    assert {name for name, role in columns.items() if role == "label"} == {"complaint:label", "rating:label"}
    answers = {name for name, role in columns.items() if role == "prediction"}
    assert answers == {"complaint:p_True", "rating:p_a", "rating:p_b", "rating:p_c"}


def test_a_batch_has_the_columns_of_each_label(told: Told) -> None:
    """Of a file of features, and of a partition; a row that is refused has no answer."""
    answers = told.batches["file"]
    assert answers["complaint:prediction"].dtype == object
    assert answers["complaint:prediction"].tolist()[1] is None
    assert set(answers["rating:prediction"].dropna()) <= {"a", "b", "c"}
    assert answers["problem"].tolist()[1].startswith("area: ")
    shares = answers[["rating:p_a", "rating:p_b", "rating:p_c"]].dropna().sum(axis=1)
    assert shares.tolist() == pytest.approx([1.0] * 4)
    assert answers["complaint:probability"].notna().sum() == 4
    assert len(told.batches["partition"]) == 840
    assert told.batches["partition"]["rating:prediction"].notna().all()
