"""Each example does what its README says: `make check` runs the quickest, `make test-long` all of them.

EVERGREEN_EXAMPLE names those that are run instead: `EVERGREEN_EXAMPLE=fraud,text make check`.
"""

from __future__ import annotations

import os
from math import isclose
from typing import Any

import pytest

from tests.examples.story import EXAMPLES, Scenario, Story, live_through

MOST_LINES = 120
"""Of a person's own in an example: code and YAML, without empty lines."""

SCENARIOS = {
    "anomaly": Scenario(
        history=8,
        drift="2026-03",
        moved="flow",
        spoil=("params.yaml", "params: {n_estimators: 100}", "params: {n_estimators: 1, max_samples: 8}"),
        refused="floors:stability: stability is",
    ),
    "demand": Scenario(
        history=11,
        drift="2026-03",
        moved="price",
        spoil=("models/demand/pipeline/__init__.py", "Codes(categories, numbers)", "Codes([], numbers)"),
        refused="improvement: poisson is",
    ),
    "forecast": Scenario(
        history=13,
        drift="2026-03",
        moved="day_before",
        spoil=("params.yaml", "loss: absolute_error,", "loss: quantile, quantile: 0.9,"),
        refused="ceilings:mase: mase is",
    ),
    "fraud": Scenario(
        history=7,
        drift="2026-03",
        moved="country",
        spoil=(
            "models/fraud/pipeline/__init__.py",
            'handle_unknown="infrequent_if_exist", min_frequency=50',
            'handle_unknown="error"',
        ),
        refused="replay logged requests: errors:",
    ),
    "image": Scenario(
        history=5,
        drift="2026-03",
        moved="pixels",
        spoil=("models/image/rows/__init__.py", 'scans["digit"]', 'scans["digit"].shift(1, fill_value=0)'),
        refused="ceilings:log_loss: log_loss is",
    ),
    "maintenance": Scenario(
        history=7,
        drift="2026-03",
        moved="Torque [Nm]",
        spoil=(
            "params.yaml",
            "class: sklearn.linear_model.LogisticRegression\n      params: {C: 1.0, max_iter: 500}",
            "class: sklearn.tree.DecisionTreeClassifier\n      params: {}",
        ),
        refused="improvement: log_loss is",
    ),
    "text": Scenario(
        history=6,
        drift="2026-03",
        moved="message",
        spoil=("models/text/pipeline/__init__.py", "min_df=5", "max_features=10"),
        refused="improvement: log_loss is",
    ),
}
QUICKEST = "maintenance"
WANTED = os.environ.get("EVERGREEN_EXAMPLE", QUICKEST).split(",")


def marked(name: str) -> Any:
    """The example that each commit is tried with, or one for `make test-long`."""
    return pytest.param(name, marks=pytest.mark.slow if name in WANTED else pytest.mark.long)


@pytest.fixture(scope="module", params=[marked(name) for name in SCENARIOS])
def name(request: pytest.FixtureRequest) -> str:
    """An example."""
    return str(request.param)


@pytest.fixture(scope="module")
def scenario(name: str) -> Scenario:
    """What its README says."""
    return SCENARIOS[name]


@pytest.fixture(scope="module")
def story(name: str, scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """What happens."""
    story = live_through(name, scenario, tmp_path_factory.mktemp(name))
    print(f"{name}: {story.seconds}; before {story.before}, then {story.alarms}; {story.bad}")
    return story


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()))
def test_it_is_short_and_is_tried(name: str) -> None:
    """What a person would write is one screen or two; the table of examples/ names it, and this file tries it."""
    written = [path for path in (EXAMPLES / name).rglob("*") if path.suffix in (".py", ".yaml")]
    lines = [line for path in written for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES
    assert name in SCENARIOS
    assert f"[{name}]({name}/README.md)" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.timeout(600)
def test_its_first_candidate_becomes_champion(story: Story) -> None:
    """By all checks of its own gate, as better than an answer that needs no features."""
    assert story.first["promoted"], story.first["summary"]
    (baseline,) = [check for check in story.first["checks"] if check["name"] == "beats_baseline"]
    assert baseline["interval"][1] < 0


def test_it_is_served_and_answers_as_its_pipeline_does(story: Story) -> None:
    """Over HTTP, by the router."""
    for answer, expected in zip(story.answered, story.expected.to_dict("records"), strict=True):
        answered = {f"p_{name}": value for name, value in answer.get("probabilities", {}).items()}
        answered |= {"anomaly_score": answer["score"]} if "score" in answer else {}
        answered = answered or {"prediction": answer["prediction"]}
        assert all(isclose(value, expected[name], abs_tol=1e-9) for name, value in answered.items())


def test_its_seeded_drift_is_found_and_nothing_before_it(story: Story, scenario: Scenario) -> None:
    """The alarm names the column that moved; the months before, which are as those of training, raise none."""
    assert story.before == []
    assert any(scenario.moved == column.partition(": ")[0] for column in story.alarms), story.alarms


def test_its_bad_release_is_refused_and_the_champion_serves_on(story: Story, scenario: Scenario) -> None:
    """By the gate or by the rollout, which says why."""
    assert scenario.refused in story.bad
    assert story.live[0] == story.live[1]
