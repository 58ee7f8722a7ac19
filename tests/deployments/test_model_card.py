"""A model's page for people who do not build it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from deployments.status_page import facts, model_card
from deployments.status_page import page as status_page
from deployments.status_page.facts import ModelFacts, ReleaseFacts
from tasks.ground import files, params, paths
from tests.conftest import Project
from tests.deployments import page_sample
from tests.deployments.test_page import Read

NOW = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)


def metric(value: float, room: float = 0.05) -> dict[str, float]:
    """A metric with its interval."""
    return {"value": value, "low": value - room, "high": value + room}


CLASSES: dict[str, Any] = {"classes": [0, 1], "training": {"baseline": {"classes": [0.87, 0.13]}}}


def release(document: dict[str, Any], details: dict[str, Any]) -> ReleaseFacts:
    """A release with an evaluation."""
    overall = details.get("overall", {}).get("metrics", {})
    return ReleaseFacts({"rows": 27010}, overall, 217_727, "2013-08-31T23:00:00", document, details)


@pytest.fixture
def section(small: Project) -> params.Model:
    """A classification whose owners have said what its rows are."""
    entry = params.load().model("tiny")
    return entry.model_copy(update={"card": params.Card(rows="flights", positive="late flights")})


def words(found: ReleaseFacts, section: params.Model) -> str:
    """What is said of it."""
    return "\n".join(model_card.in_words(found, section))


def test_a_classification_is_told_in_hundreds(section: params.Model) -> None:
    """How many it finds, how many it names rightly, from which probability on, and what chance leaves open."""
    overall = {
        "recall": metric(0.34),
        "precision": metric(0.46),
        "roc_auc": metric(0.71),
        "calibration_error": metric(0.09),
    }
    text = words(release({**CLASSES, "decision": {"threshold": 0.31}}, {"overall": {"metrics": overall}}), section)
    assert text == (
        "Of 100 flights that it learned from, 13 are late flights.\n"
        "Of 100 late flights it finds 34 (29 to 39).\n"
        "Of 100 that it names, 46 (41 to 51) are right.\n"
        "It names one of the late flights from a probability of 31 in 100 on.\n"
        "Shown one of the late flights and one of the others, it gives the right one the higher probability in 71 (66 "
        "to 76) of 100 pairs; guessing would in 50.\n"
        "Its probabilities are off by 9 in 100 on average."
    )


def test_classes_without_a_name_are_told_by_their_value(section: params.Model) -> None:
    """Where nobody has said what they are; of three, how often it is right."""
    plain = section.model_copy(update={"card": params.Card()})
    assert "13 are rows that are «1»" in words(release({**CLASSES, "decision": None}, {}), plain)
    three = release({"classes": ["a", "b", "c"]}, {"overall": {"metrics": {"accuracy": metric(0.8)}}})
    assert words(three, section) == "Of 100 flights it is right about 80 (75 to 85)."


def test_a_number_is_told_by_how_far_it_is_off(section: params.Model) -> None:
    """Beside the usual number; with the range that comes along. Of another task, each metric by its name."""
    numbers = section.model_copy(update={"task_": params.AskedTask(kind="regression")})
    details = {"overall": {"metrics": {"mae": metric(1.74), "coverage": metric(0.57)}}, "baseline": {"mae": 8.79}}
    assert words(release({}, details), numbers) == (
        "Its number is off by 1.74 (1.69 to 1.79) on average.\n"
        "Giving always the usual number would be off by 8.79.\n"
        "With each number comes a range in which 80 of 100 true values should lie; 57 (52 to 62) did."
    )
    assert "mase: 0.8 (0.75 to 0.85)." in words(release({}, {"overall": {"metrics": {"mase": metric(0.8)}}}), numbers)


def test_of_several_labels_each_is_told_by_its_name(section: params.Model) -> None:
    """Its numbers beside the usual ones, or its classes."""
    numbers = section.model_copy(update={"task_": params.AskedTask(kind="regression", labels=["heating", "cooling"])})
    overall = {"mae": metric(3), "mae:heating": metric(4), "mae:cooling": metric(2)}
    details = {"overall": {"metrics": overall}, "baseline": {"mae": 9, "mae:heating": 10, "mae:cooling": 8}}
    assert words(release({}, details), numbers) == (
        "heating: its number is off by 4 (3.95 to 4.05) on average.\n"
        "heating: giving always the usual number would be off by 10.\n"
        "cooling: its number is off by 2 (1.95 to 2.05) on average.\n"
        "cooling: giving always the usual number would be off by 8."
    )
    tags = section.model_copy(update={"task_": params.AskedTask(kind="classification", labels=["late", "kind"])})
    classes = {"late": ["no", "yes"], "kind": ["a", "b", "c"]}
    baseline = {"late": {"classes": [0.8, 0.2]}, "kind": {"classes": [0.3, 0.3, 0.4]}}
    document = {"classes": classes, "training": {"baseline": baseline}, "decision": "predict"}
    overall = {"recall:late": metric(0.34), "accuracy:kind": metric(0.8), "recall:kind": metric(0.7)}
    assert words(release(document, {"overall": {"metrics": overall}}), tags) == (
        "late: of 100 flights that it learned from, 20 are flights whose late is «yes».\n"
        "late: of 100 flights whose late is «yes» it finds 34 (29 to 39).\n"
        "kind: of 100 flights it is right about 80 (75 to 85)."
    )


def test_groups_for_which_it_is_worse_beyond_doubt_are_named(section: params.Model) -> None:
    """The worst first; one that is worse by chance is not."""
    slices = {
        "origin": {name: {"metrics": {"log_loss": metric(at)}} for name, at in (("A", 0.6), ("B", 0.5), ("C", 0.42))}
    }
    found = release({}, {"overall": {"metrics": {"log_loss": metric(0.4)}}, "slices": slices})
    assert list(model_card.worst_groups(found, "log_loss")) == [
        "It is worse than on the whole for: origin A, origin B."
    ]


def test_every_model_has_a_page_beside_the_status_page(small: Project) -> None:
    """With what its owners wrote; nothing in it comes from elsewhere, and that of a model that is gone goes."""
    page_sample.write("tiny")
    text = (small.root / "params.yaml").read_text()
    said = (
        "    card: {rows: pumps, not_for: [Pumps <of> others.], audience: the night shift, owner: pumps@example.org}\n"
    )
    (small.root / "params.yaml").write_text(text.replace("    serving:", f"{said}    serving:", 1))
    files.write_text(paths.model_card("gone"), "old")
    status_page.write()
    page = Read(paths.model_card("tiny").read_text(encoding="utf-8"))
    for expected in (
        "Pumps <of> others.",
        "made for the night shift.",
        "pumps@example.org",
        "Version 4 was judged last",
    ):
        assert expected in page.text
    assert not page.open
    assert not page.crossed
    assert [link["href"] for link in page.of("a")] == ["./"]
    assert not page.of("script", "img")
    assert not paths.model_card("gone").exists()
    assert "tiny.html" in paths.status_page().read_text(encoding="utf-8")


def test_a_model_that_answers_nobody_yet_says_so(small: Project) -> None:
    """And what is broken says why in its place."""
    section = params.load().model("tiny")
    text = Read(model_card.render(ModelFacts.read("tiny", section), NOW)).text
    assert "Nothing is live yet, so nothing can be said." in text
    assert "Its owners have not said it yet (params.yaml: card.not_for)." in text
    files.write_text(paths.desired_state("tiny"), "{")
    text = Read(model_card.render(ModelFacts.read("tiny", section), NOW)).text
    assert "What it answers" in text
    assert facts.attempt(lambda: 1) == 1
