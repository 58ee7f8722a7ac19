"""A third model needs a folder in models/, an entry in params.yaml, and nothing else: scikit-learn's bundled digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from tasks import steps
from tasks.data import landing, versions
from tasks.ground import files, params, settings
from tasks.modelling import rows
from tasks.release import comparison
from tasks.release.gate.verdict import Verdict
from tasks.release.package import package
from tasks.release.registry import promotions, registry, tracking, verdict_records
from tasks.training import dvc_graph
from tests.conftest import REPOSITORY, Project, copy_repository

pytestmark = pytest.mark.long

DIGITS = REPOSITORY / "tests" / "repository" / "digits"
STAGES = [f"{step}@digits" for step in ("environment", "validate", "prepare", "train", "evaluate", "package")]


def land(root: Path, partition: str, begin: int, end: int) -> None:
    """The upstream delivers some images, as a Parquet file, into the landing zone."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    frame = pd.DataFrame(pixels, columns=[f"pixel_{n:02d}" for n in range(64)])
    scanned = pd.Timestamp("2013-01-01") + pd.to_timedelta(range(len(frame)), unit="h")
    frame.insert(0, "image", range(len(frame)))
    frame.insert(1, "scanned", scanned.astype("datetime64[us]"))
    frame.insert(2, "digit", digits)
    path = root / "var" / "landing" / "digits" / f"{partition}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.iloc[begin:end].to_parquet(path, index=False)


def ingest() -> str | None:
    """What the flow ingest does: a data version of what has arrived."""
    said = params.load()
    collected = landing.collect(said, lambda _: None)
    assert not collected.quarantined, collected
    version = versions.make()
    landing.clear(said, collected)
    return version


def release() -> Verdict:
    """What the flow train does after the graph: track, register, judge, record, promote."""
    build = settings.BUILD / "digits"
    run = tracking.track("digits", build / "release", build, package.measured("digits"))
    version = registry.register("digits", run.candidate)
    verdict = comparison.judge_candidate("digits")
    verdict_records.record("digits", version.number, verdict)
    if verdict.promoted:
        promotions.promote("digits", version.number, verdict.id)
    return verdict


@dataclass(frozen=True)
class Story:
    """What happened from the first images to the second verdict."""

    root: Path
    first: list[dvc_graph.StageOutcome]
    again: list[dvc_graph.StageOutcome]
    verdict: Verdict
    champion: str
    then: list[dvc_graph.StageOutcome]
    second: Verdict


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, enter_module: Callable[[Path], Project]) -> Story:
    """A copy of the repository with the third model: images arrive, are learned from and judged; then more arrive."""
    root = copy_repository(tmp_path_factory.mktemp("third") / "project")
    copied = {path: hash_ for folder in ("tasks", "flows") for path, hash_ in files.tree(root / folder).items()}
    for path in DIGITS.rglob("*.py"):
        files.write_text(root / path.relative_to(DIGITS), path.read_text())
    files.write_text(
        root / "models" / "digits" / "expectations" / "digits.yaml",
        (DIGITS / "models" / "digits" / "expectations" / "digits.yaml").read_text(),
    )
    with (root / "params.yaml").open("a") as written:
        written.write("\n" + (DIGITS / "entry.yaml").read_text())
    enter_module(root)
    land(root, "scan-1", 0, 900)
    ingest()
    first = dvc_graph.reproduce("digits", steps.run)
    again = dvc_graph.reproduce("digits", steps.run)
    verdict = release()
    champion = registry.champion("digits")
    assert champion
    land(root, "scan-2", 900, 1797)
    ingest()
    then = dvc_graph.reproduce("digits", steps.run)
    second = release()
    assert copied == {path: hash_ for folder in ("tasks", "flows") for path, hash_ in files.tree(root / folder).items()}
    return Story(root, first, again, verdict, champion.candidate, then, second)


def test_it_goes_through_every_stage_of_the_graph(story: Story) -> None:
    """The same stages as the models that ship, with reasons; and the second time there is nothing to do."""
    assert [outcome.stage for outcome in story.first] == STAGES
    assert {outcome.how for outcome in story.first} == {"ran"}
    assert {outcome.how for outcome in story.again} == {"unchanged"}


def test_it_learns_ten_classes_from_a_random_split(story: Story) -> None:
    """A row that was held out once is held out ever after."""
    build = story.root / "build" / "digits"
    assert files.read_json(build / "model" / "training.json")["classes"] == list(range(10))
    assert files.read_json(build / "split.json") == {"by": "random", "share": 0.3, "partitions": ["scan-1", "scan-2"]}
    scored = pd.read_parquet(build / "evaluation" / "predictions.parquet")
    assert [c for c in scored.columns if c.startswith("p_")] == [f"p_{digit}" for digit in range(10)]
    assert set(scored["id"]) == set(rows.read(build, "holdout")["id"])
    assert files.read_json(build / "evaluation" / "metrics.json")["log_loss"] < 0.6


def test_its_first_candidate_is_judged_against_the_baseline_and_promoted(story: Story) -> None:
    """There was no champion."""
    assert story.verdict.promoted, story.verdict.to_text()
    assert story.verdict.champion is None


def test_its_second_candidate_is_judged_against_the_champion(story: Story) -> None:
    """On the same rows, which neither was trained on; twice the images make it better."""
    assert [outcome.stage for outcome in story.then if outcome.how == "ran"] == STAGES[1:]
    assert story.second.champion == story.champion
    assert story.second.promoted, story.second.to_text()
    assert all(check.passed for check in story.second.checks)


NOTHING = """
import sys
from tasks import steps
from tasks.release.registry import candidate_outcome
from tasks.training import dvc_graph
assert dvc_graph.pending("digits") == {}
assert {outcome.how for outcome in dvc_graph.reproduce("digits", steps.run)} == {"unchanged"}
candidate_outcome.find("digits")
heavy = ["pandas", "sklearn", "great_expectations", "mlflow", "bentoml", "matplotlib"]
print([name for name in heavy if name in sys.modules])
"""


def test_a_process_with_nothing_to_do_imports_nothing_heavy(story: Story) -> None:
    """Seconds are lost in imports: DVC's books are all that is asked."""
    assert Project(story.root).python(NOTHING) == "[]\n"


def test_dvc_repro_has_nothing_to_do(story: Story) -> None:
    """The same graph, by the command that a data scientist types."""
    said = Project(story.root).dvc("repro", *STAGES)
    assert "up to date" in said
    assert "Running stage" not in said


def test_an_edit_redoes_what_depends_on_it_and_undone_gives_it_back(story: Story) -> None:
    """More resamples: the intervals are made again, the release is the same; a rule of the gate redoes nothing."""
    project = Project(story.root)
    before = files.tree(story.root / "build" / "digits")
    project.edit("params.yaml", "slices: [ink], resamples: 100", "slices: [ink], resamples: 110")
    assert dvc_graph.pending("digits") == {
        "evaluate@digits": "params.yaml: models.digits.evaluate.resamples 100 → 110",
        "package@digits": "follows evaluate@digits, if that changes",
    }
    redone = {outcome.stage: outcome.how for outcome in dvc_graph.reproduce("digits", steps.run)}
    assert redone == {**dict.fromkeys(STAGES, "unchanged"), "evaluate@digits": "ran"}
    assert files.tree(story.root / "build" / "digits") != before
    project.edit("params.yaml", "slices: [ink], resamples: 110", "slices: [ink], resamples: 100")
    undone = {outcome.stage: outcome.how for outcome in dvc_graph.reproduce("digits", steps.run)}
    assert undone == {**dict.fromkeys(STAGES, "unchanged"), "evaluate@digits": "restored"}
    assert files.tree(story.root / "build" / "digits") == before
    project.edit("params.yaml", "margin: 0.01\n      champion_age: 1", "margin: 0.02\n      champion_age: 1")
    assert dvc_graph.pending("digits") == {}
