"""A net goes all the way as any other estimator, and its release answers where PyTorch cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.ground import files, params, settings
from tasks.modelling import rows
from tasks.release.gate.verdict import Verdict
from tasks.release.package import package
from tests.conftest import REPOSITORY, Project, copy_repository
from tests.kinds import data, story

pytestmark = [pytest.mark.slow, pytest.mark.group("torch")]

MODEL, SKLEARN = "orders", "sklearn.linear_model.LogisticRegression\n      params: {C: 1.0, max_iter: 300}"

ASK = """
import json, sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from pathlib import Path
from tasks.runtime.predictor import Predictor
predictor = Predictor(Path("."))
rows = json.load(sys.stdin)
answers = [json.loads(predictor.predict([json.dumps({"rows": rows}).encode()])[0].body)]
answers += [json.loads(predictor.predict([json.dumps({"rows": [row]}).encode()])[0].body) for row in rows[:5]]
print(json.dumps([answers, json.loads(predictor.explain(json.dumps({"row": rows[0]}).encode()).body)]))
"""


@dataclass(frozen=True)
class Story:
    """What happened."""

    verdict: Verdict
    batch: dict[str, Any]
    alone: list[dict[str, Any]]
    explained: dict[str, Any]
    evaluated: list[float]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]) -> Story:
    """Orders with notes are learned and judged; the release is asked in its own folder, by its own code alone."""
    root = copy_repository(tmp_path_factory.mktemp("nets") / "project", REPOSITORY / "tests" / "kinds" / "project")
    text = (root / "params.yaml").read_text(encoding="utf-8")
    assert SKLEARN in text
    net = "tasks.runtime.families.torch.TextNetClassifier\n      params: {hidden: [16], epochs: 20}"
    files.write_text(root / "params.yaml", text.replace(SKLEARN, net))
    enter_module(root)
    for month in (1, 2, 3):
        data.write_orders(root, month)
    story.learn(MODEL, "orders")
    verdict = story.release(MODEL)
    asked = rows.read(settings.BUILD / MODEL, "holdout").head(50)
    posted = json.dumps(package.request_rows(asked, params.load().model(MODEL)))
    command, where = [sys.executable, "-c", ASK], settings.BUILD / MODEL / "release"
    done = subprocess.run(command, cwd=where, input=posted, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (batch, *alone), explained = json.loads(done.stdout.splitlines()[-1])
    evaluated = package._evaluated(MODEL, params.load().model(MODEL), 10_000)[1].loc[asked["id"], "p_1"]
    return Story(verdict, batch, alone, explained, evaluated.tolist())


def test_the_gate_promotes_it(told: Story) -> None:
    """It is better than an answer that needs no features."""
    assert told.verdict.promoted, told.verdict


def test_it_answers_as_evaluated_without_pytorch(told: Story) -> None:
    """Alone as in a batch, far below the tolerance of a release."""
    batch = [each["probability"] for each in told.batch["predictions"]]
    assert batch == pytest.approx(told.evaluated, abs=1e-12)
    assert [each["predictions"][0]["probability"] for each in told.alone] == pytest.approx(batch[:5], abs=1e-12)


def test_it_is_explained(told: Story) -> None:
    """Base and contributions add up to the answer."""
    parts = [each["contribution"] for each in told.explained["contributions"]]
    assert told.explained["base"] + sum(parts) == pytest.approx(told.explained["value"], abs=1e-9)


def test_its_release_names_no_pytorch_and_its_training_does(told: Story) -> None:
    """A bump of PyTorch trains it again; who serves it installs nothing."""
    assert told.verdict
    build = settings.BUILD / MODEL
    assert "torch" not in (build / "release" / "requirements.txt").read_text(encoding="utf-8")
    assert "torch==" in (build / "environment" / "training.txt").read_text(encoding="utf-8")


def test_no_text_stays_in_it(told: Story) -> None:
    """Nor in anything else of the release."""
    assert told.verdict
    release = settings.BUILD / MODEL / "release"
    parts = [path.read_bytes() for path in release.rglob("*") if path.is_file()]
    assert not any(data.MARKER.encode() in part for part in parts)
