"""A correction of the very rows that judge: champion and challenger are held against the same revised ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.prefect_support import run_local
from tasks.ground import files, params, settings
from tasks.release.gate import verdicts
from tasks.release.registry import registry, version_files
from tasks.runtime import model_file
from tests.conftest import Project
from tests.deployments.alone import server

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MODEL, HOLDOUT = "tiny", "2013-03"


@pytest.fixture(scope="module")
def project(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The small project, and a Prefect server."""
    with server(small_copied, tmp_path_factory.mktemp("revised") / "project") as alone:
        yield alone.project


def run(flow: str, *arguments: str) -> None:
    """Run a flow here, as a person would."""
    state = run_local.run(flow, *arguments)
    assert state.is_completed(), state.message


def held_out() -> pd.DataFrame:
    """The holdout's rows as they are."""
    return pd.read_parquet(settings.BUILD / MODEL / "rows" / f"{HOLDOUT}.parquet")


def loss(release: Path, rows: pd.DataFrame) -> float:
    """The log loss of a release on rows, from the model file itself."""
    sha256 = files.read_json(release / "release.json")["model_sha256"]
    pipeline = model_file.load(release / "model.skops", sha256, own=f"models.{MODEL}")
    features = list(params.load().model(MODEL).features)
    late = model_file.predict(pipeline, rows[features], "classification")["p_1"].to_numpy()
    return float(-np.log(np.where(rows["label"] == 1, late, 1 - late)).mean())


def test_both_are_judged_on_the_revised_rows(project: Project) -> None:
    """Labels and features corrected, rows gone and come: the difference of their losses is that of these rows."""
    run("train", MODEL)
    champion, before = registry.champion(MODEL), held_out()
    assert champion is not None
    march = pd.read_csv(project.root / "data" / "readings" / f"{HOLDOUT}.csv")
    march.loc[:40, "failures"] = 1 - march.loc[:40, "failures"]
    march.loc[20:80, "pressure"] = 4.0
    late = march.iloc[[0]].assign(at="2013-03-30 00:00:00")
    landing = project.root / "var" / "landing" / "readings"
    landing.mkdir(parents=True)
    pd.concat([march.iloc[:-2], late]).to_csv(landing / f"{HOLDOUT}.csv", index=False)
    run("ingest")
    project.edit("params.yaml", "params: {C: 1.0}", "params: {C: 0.05}")
    project.commit()
    run("train", MODEL)
    verdict, now = verdicts.newest(MODEL)[-1], held_out()
    assert len(now) == 223
    assert (verdict["champion"], verdict["holdout"]["rows"], verdict["holdout"]["compared"]) == (
        champion.candidate,
        223,
        223,
    )
    releases = [settings.BUILD / MODEL / "release", version_files.fetch_cached(MODEL, champion) / "release"]
    challengers, champions = (loss(release, now) for release in releases)
    (improvement,) = [check["value"] for check in verdict["checks"] if check["name"] == "improvement"]
    assert improvement == pytest.approx(challengers - champions, abs=1e-6)
    assert abs(improvement - (challengers - loss(releases[1], before))) > 0.01
