"""A model in a notebook: what is shown is what the stages, the registry and the gate have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.ground import files, settings
from tasks.ground.errors import DataMissing, ParamsError
from tasks.lifecycle import notebook
from tasks.release.gate import verdicts
from tests.conftest import REPOSITORY, Project, work_on
from tests.tasks.release import small_project
from tests.tasks.release.registry.test_registry import follow
from tests.tasks.release.small_project import MODEL

pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose first candidate is champion."""
    root = tmp_path_factory.mktemp("notebook") / "project"
    with pytest.MonkeyPatch.context() as patch:
        root.mkdir()
        work_on(root, patch)
        small_project.make_project(root)
        small_project.make_build(root, 3, ("origin", "temp", "wind"))
        follow()
        yield root


def test_the_champion_answers_as_it_was_evaluated(root: Path) -> None:
    """On the holdout rows, whatever columns they have beside the features."""
    m = notebook.model(MODEL)
    holdout = m.rows("holdout").set_index("id", drop=False)
    answers = m.champion.predict(holdout)
    evaluated = pd.read_parquet(settings.BUILD / MODEL / "evaluation" / "predictions.parquet").set_index("id")
    assert np.array_equal(answers["p_1"], evaluated["p_1"])
    assert answers.index.equals(holdout.index)
    assert m.version("1").predict(holdout.head(3)).equals(m.candidate.predict(holdout.head(3)))
    with pytest.raises(DataMissing, match="the rows have no temp, which late version 1"):
        m.champion.predict(holdout.drop(columns="temp"))
    assert repr(m.champion).startswith("<late, late version 1 (candidate ")


def test_the_last_verdict_is_shown_as_a_table(root: Path) -> None:
    """As the journal has it, and nothing before there is one."""
    m = notebook.model(MODEL)
    with pytest.raises(DataMissing, match="late was never judged: `evergreen train late` does it"):
        _ = m.verdict
    from tasks.release.registry import verdict_records

    candidate = files.read_json(settings.BUILD / MODEL / "release" / "candidate.json")["candidate"]
    (verdict,) = verdict_records.of_candidate(MODEL, candidate)
    verdicts.keep(MODEL, 1, verdict)
    assert m.verdict == verdict
    assert m.verdict._repr_markdown_() == verdict.to_markdown()


def test_rows_that_are_not_there_are_told(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the command that makes them; and a model that is none."""
    monkeypatch.setattr(settings, "BUILD", tmp_path)
    with pytest.raises(DataMissing, match=r"build/late has no split.json, which prepare makes: `evergreen train late`"):
        notebook.model(MODEL).rows()
    with pytest.raises(ParamsError, match="there is no model 'lat'"):
        notebook.model("lat")


def test_tables_and_pipeline_are_those_of_the_project(small: Project) -> None:
    """Typed by the contract; the pipeline by today's code, and not fitted."""
    m = notebook.model("tiny")
    assert str(m.tables("2013-02")["readings"]["at"].dtype) == "datetime64[us]"
    with pytest.raises(DataMissing, match=r"data/ has no partition '2013-12'; did you mean"):
        m.tables("2013-12")
    small.edit("params.yaml", "{readings: partition}", "{readings: {history: 2}}")
    assert m.tables("2013-02")["readings"].index.unique("partition").tolist() == ["2013-01", "2013-02"]
    assert m.pipeline().steps
    assert m.features[0] in m.params.features


def test_it_works_from_any_folder(tmp_path: Path) -> None:
    """A kernel stands in the folder of its notebook; the project is the one that the code lies in."""
    code = "from tasks.ground import settings; from tasks.lifecycle import notebook; print(settings.ROOT)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(REPOSITORY)
