"""`evergreen compare`: candidates on the holdout rows that none of them learned from."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tasks.data import versions
from tasks.ground import files, params, settings
from tasks.ground.errors import DataMissing, Mistake, ModelFileRefused
from tasks.lifecycle import side_by_side
from tasks.lifecycle.side_by_side import Entry, SideBySide
from tasks.modelling import metrics
from tasks.release import comparison
from tasks.release.gate.gate import Contender
from tests.conftest import REPOSITORY, work_on
from tests.tasks.release import small_project
from tests.tasks.release.registry.test_registry import track
from tests.tasks.release.small_project import MODEL

pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Version 1 knows the origin alone, the workspace all; of an experiment, `better`, DVC's cache has the outputs."""
    from tasks.release.registry import registry

    root = tmp_path_factory.mktemp("compared") / "project"
    with pytest.MonkeyPatch.context() as patch:
        root.mkdir()
        work_on(root, patch)
        small_project.make_project(root)
        small_project.make_build(root, 3, ("origin",))
        registry.register(MODEL, track().candidate)
        small_project.make_build(root, 3, ("origin", "temp"))
        _as_experiment(root, "better")
        small_project.make_build(root, 3, ("origin", "temp", "wind"))
        yield root


def _as_experiment(root: Path, name: str) -> None:
    """What `dvc exp run` leaves: a commit below refs/exps, and the outputs in the cache."""
    (root / ".dvc").mkdir()
    lock: dict[str, dict[str, object]] = {}
    for stage, folder in (("train", "model"), ("package", "release")):
        path = root / "build" / MODEL / folder
        listing = {each: files.md5(path / each) for each in files.tree(path)}
        versions.put_into_cache(path, listing)
        lock[f"{stage}@{MODEL}"] = {"outs": [{"path": f"build/{MODEL}/{folder}", "md5": versions.dir_hash(listing)}]}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": lock}))
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-qm", "tried"]):
        subprocess.run([*git, *command], cwd=root, check=True)
    subprocess.run(["git", "update-ref", f"refs/exps/ab/{'c' * 38}/{name}", "HEAD"], cwd=root, check=True)


@pytest.fixture(scope="module")
def found(root: Path) -> SideBySide:
    """All three."""
    return side_by_side.compare(MODEL, ["1", "better", "workspace"])


def test_candidates_answer_the_same_rows(found: SideBySide) -> None:
    """The more a model knows, the better: with intervals, and the difference from the first pair by pair."""
    names = [column.name for column in found.columns]
    assert (names, found.rows, found.left_out) == (["1 (version 1)", "better", "workspace"], 400, 0)
    losses = [column.metrics["log_loss"]["value"] for column in found.columns]
    assert losses == sorted(losses, reverse=True)
    first, *others = found.columns
    assert first.difference is None
    for column in others:
        assert column.difference is not None
        assert column.difference["value"] == pytest.approx(column.metrics["log_loss"]["value"] - losses[0])
        assert column.difference["low"] < column.difference["value"] < column.difference["high"] < 0


def test_the_evaluation_says_the_same_of_the_workspace(found: SideBySide, root: Path) -> None:
    """No row was left out, so the metrics are those of metrics.json."""
    evaluated = files.read_json(root / "build" / MODEL / "evaluation" / "metrics.json")
    mine = {name: round(each["value"], 6) for name, each in found.columns[-1].metrics.items()}
    assert mine == {name: evaluated[name] for name in mine}


def test_rows_that_one_of_them_learned_from_are_left_out(root: Path) -> None:
    """They would flatter it."""
    build = root / "build" / MODEL
    ids = pd.read_parquet(build / "rows" / "2013-03.parquet")["id"]
    from tasks.modelling import rows

    learned = np.load(build / "model" / "train_ids.npy")
    np.save(build / "model" / "train_ids.npy", np.sort(np.concatenate([learned, rows.row_hashes(ids.head(150))])))
    try:
        found = side_by_side.compare(MODEL, ["1", "workspace"])
    finally:
        np.save(build / "model" / "train_ids.npy", learned)
    assert (found.rows, found.left_out) == (250, 150)


def test_it_is_told_as_a_table_and_as_json(found: SideBySide) -> None:
    """What they have in common is not told."""
    lines = list(side_by_side.in_words(found))
    assert lines[0] == "late: 400 holdout rows; 95% intervals, resampled by day"
    assert lines[1].split() == ["1", "(version", "1)", "better", "workspace"]
    assert any(line.startswith("log_loss, against the first") and " -0." in line for line in lines)
    assert any(line.startswith("latency_ms") and "3.25" in line for line in lines)
    assert not any(line.startswith("packages") for line in lines)
    told = json.loads(json.dumps(found.to_json()))
    assert [column["name"] for column in told["columns"]] == ["1 (version 1)", "better", "workspace"]


def test_rows_count_by_their_weight_as_at_the_gate(root: Path, found: SideBySide) -> None:
    """A row of weight 0 says nothing of either candidate."""
    files_of_rows = sorted((root / "build" / MODEL / "rows").glob("*.parquet"))
    former = {path: path.read_bytes() for path in files_of_rows}
    try:
        for path in files_of_rows:
            frame = pd.read_parquet(path)
            files.write_parquet(path, frame.assign(weight=(frame["origin"] == "EWR") * 1.0))
        weighted = side_by_side.compare(MODEL, ["1", "workspace"])
    finally:
        for path, content in former.items():
            path.write_bytes(content)
    first, second = weighted.columns
    assert first.metrics["log_loss"]["value"] != found.columns[0].metrics["log_loss"]["value"]
    assert second.difference is not None
    losses = [column.metrics["log_loss"]["value"] for column in (first, second)]
    assert second.difference["value"] == pytest.approx(losses[1] - losses[0])


@pytest.mark.parametrize("are_known", [True, False])
def test_anomaly_models_are_compared_by_how_they_rank(are_known: bool) -> None:
    """No row of theirs has a loss by itself; without labels nothing says which is better."""
    model = params.load(REPOSITORY / "tests" / "kinds" / "project" / "params.yaml").model("payments")
    label = np.arange(200) % 10 == 0
    noise = np.random.default_rng(0).random(200)
    rows = pd.DataFrame({"label": np.where(are_known, label, np.nan)})
    sides = [
        Contender(name, pd.DataFrame({"prediction": label * 1, "anomaly_score": scores}), None, None)
        for name, scores in (("chance", noise), ("sure", label + noise))
    ]
    scorer = side_by_side._HoldoutScores(model, rows, np.ones(200, dtype=bool), np.arange(200) // 10)
    columns = [scorer.column(Entry(side.candidate, "", Path(), Path()), side, {}, {}, sides[0]) for side in sides]
    assert scorer.loss == "1 - average_precision"
    difference = columns[1].difference
    assert (difference is not None and difference["high"] < -0.5) if are_known else difference is None


def test_models_of_several_labels_are_compared_by_each_and_by_the_mean() -> None:
    """One is off by 1 in heat, the other one in neither: the difference is of the mean over both labels."""
    model = params.load(REPOSITORY / "params.yaml").model("hourly_departures")
    model = model.model_copy(update={"task_": params.AskedTask.model_validate({"regression": ["heat", "cold"]})})
    model = model.model_copy(update={"gate": model.gate.model_copy(update={"loss": "absolute"})})
    label = np.arange(200.0)
    rows = pd.DataFrame({"heat:label": label, "cold:label": label})
    sides = [
        Contender(name, pd.DataFrame({"heat:prediction": label + off, "cold:prediction": label}), None, None)
        for name, off in (("off", 1.0), ("exact", 0.0))
    ]
    scorer = side_by_side._HoldoutScores(model, rows, np.ones(200, dtype=bool), np.arange(200) // 10)
    columns = [scorer.column(Entry(side.candidate, "", Path(), Path()), side, {}, {}, sides[0]) for side in sides]
    assert columns[0].metrics["mae:heat"]["value"] == 1
    assert columns[0].metrics["mae:cold"]["value"] == 0
    assert columns[1].difference is not None
    assert columns[1].difference["value"] == pytest.approx(-0.5)


def test_a_release_that_was_changed_is_refused(root: Path) -> None:
    """Its answers would be nobody's."""
    release = root / "build" / MODEL / "release"
    former = (release / "model.skops").read_bytes()
    (release / "model.skops").write_bytes(b"no model")
    try:
        with pytest.raises(ModelFileRefused, match="was changed after it was packaged"):
            side_by_side.compare(MODEL, ["1", "workspace"])
    finally:
        (release / "model.skops").write_bytes(former)


def test_a_candidate_that_cannot_be_scored_does_not_keep_the_others_from_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says why, as one whose code is of another day."""
    real = comparison.scorer

    def fails_for_the_workspace(model: str, release: Path, facts: dict[str, Any]) -> Any:
        if release.is_relative_to(root / "build"):
            raise AttributeError("no such function")
        return real(model, release, facts)

    monkeypatch.setattr(comparison, "scorer", fails_for_the_workspace)
    found = side_by_side.compare(MODEL, ["1", "workspace"])
    assert found.columns[0].metrics
    assert found.columns[1].difference is None
    assert "could not be scored on this holdout: no such" in list(side_by_side.in_words(found))[-1]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["workspace"], "name at least two"),
        (["workspace", "workspace"], "name at least two"),
        (["workspace", "7"], "late has no version or candidate '7'.*Experiments .* that there are: better"),
    ],
)
def test_what_cannot_be_compared_is_told(root: Path, names: list[str], said: str) -> None:
    """With what there is."""
    with pytest.raises(Mistake, match=said):
        side_by_side.compare(MODEL, names)


def test_rows_to_compare_on_are_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are those of the last `prepare`."""
    monkeypatch.setattr(settings, "BUILD", tmp_path)
    with pytest.raises(DataMissing, match=r"build/late has no holdout rows: run `evergreen train late`"):
        side_by_side.compare(MODEL, ["1", "workspace"])


def test_no_difference_is_left_to_chance() -> None:
    """The resamples are the same ones for both sides."""
    values = np.arange(40.0)
    drawn = metrics.bootstrap_means(values - values, np.arange(40) // 4, 50, side_by_side.SEED)
    assert (drawn == 0).all()
