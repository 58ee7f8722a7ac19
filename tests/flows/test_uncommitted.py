"""What is in no commit reaches production by a person's approval only; and so does anything after a rollback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.status_page import page
from flows.prefect_support import run_local
from tasks.ground import settings, uncommitted
from tasks.lifecycle import retrain_decision
from tasks.release.gate import verdicts
from tasks.release.registry import promotions, registry
from tests.conftest import Project, write_readings
from tests.deployments.alone import Alone, server

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MODEL = "tiny"


@pytest.fixture(scope="module")
def project(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The small project, not trained yet, with a gate that lets anything follow."""
    with server(small_copied, tmp_path_factory.mktemp("uncommitted") / "project") as alone:
        yield _lenient(alone)


def _lenient(alone: Alone) -> Project:
    alone.project.edit("params.yaml", "rule: better", "rule: not_worse")
    alone.project.edit("params.yaml", "champion_age: 1", "champion_age: 0")
    alone.project.edit("params.yaml", "margin: 0.01", "margin: 5.0")
    alone.project.commit()
    return alone.project


def train(*, if_due: bool = True) -> Any:
    """Run the flow here, as the clock would or as a person would; gives its state."""
    state = run_local.run("train", MODEL, False, if_due)
    assert state.is_completed(), state.message
    return state


def champion() -> int | None:
    """The version that is champion."""
    found = registry.champion(MODEL)
    return found.number if found else None


def test_by_itself_nothing_uncommitted_is_trained(project: Project) -> None:
    """The clock leaves it, and the journal says why; an edit of when to train is no edit of what is trained."""
    project.edit("params.yaml", "params: {C: 1.0}", "params: {C: 2.0}")
    (project.root / "models" / "tiny" / "rows" / "more.py").write_text("MORE = 1\n")
    state = train()
    assert state.name == "NotDue"
    assert "uncommitted: models/tiny/rows/more.py, params.yaml; commit it, or approve it" in state.message
    assert "uncommitted" in (retrain_decision.last(MODEL) or {})["why"]
    assert registry.history(MODEL) == []
    assert "uncommitted: models/tiny/rows/more.py, params.yaml" in page.write().read_text()
    (project.root / "models" / "tiny" / "rows" / "more.py").unlink()


def test_a_person_has_it_trained_and_judged_and_it_waits(project: Project) -> None:
    """Verdict, journal, history and page say so; the clock has nothing to do; a commit lets it go."""
    state = train(if_due=False)
    assert "not promoted: uncommitted: params.yaml" in state.message
    assert champion() is None
    (entry,) = registry.history(MODEL)
    assert (entry.verdict, entry.on_hold) == ("promoted", (state.message.partition("not promoted: ")[2]))
    (line,) = verdicts.newest(MODEL, 9)
    assert not line["promoted"]
    assert "uncommitted: params.yaml" in line["summary"]
    assert "nothing to do" in train().message
    assert champion() is None
    project.commit()
    assert "promoted" in train().message
    assert champion() == 1
    assert registry.history(MODEL)[0].on_hold is None


def test_a_persons_word_promotes_what_waits(project: Project) -> None:
    """Typed at a terminal."""
    project.edit("params.yaml", "params: {C: 2.0}", "params: {C: 3.0}")
    train(if_due=False)
    assert champion() == 1
    project.run(sys.executable, "-m", "deployments.cli", "promote", MODEL)
    assert champion() == 2
    assert "is champion" in train().message
    project.commit()


def test_after_a_rollback_nothing_comes_until_data_or_code_do(project: Project) -> None:
    """Data that were there before are no reason, whatever the policy says of the champion's age."""
    project.edit("params.yaml", "    serving:", "    retrain: {when: [{age_days: 300}]}\n    serving:")
    write_readings(project.root, 4)
    project.dvc("add", "-q", "data")
    assert train().name == "NotDue"
    assert "is withdrawn" in promotions.rollback(MODEL)
    project.edit("params.yaml", "age_days: 300", "age_days: 1")
    state = train()
    assert state.name == "NotDue"
    assert "a person rolled back" in state.message
    assert champion() == 1
    write_readings(project.root, 5)
    project.dvc("add", "-q", "data")
    train()
    assert champion() == 3
    assert "is withdrawn" in promotions.rollback(MODEL, to=1)
    assert "nothing to do" in train().message
    project.edit("params.yaml", "params: {C: 3.0}", "params: {C: 4.0}")
    assert "uncommitted" in train().message
    project.commit()
    train()
    assert champion() == 4


def test_without_git_nothing_is_uncommitted(project: Project) -> None:
    """There is nothing to compare with; code is what lies there."""
    project.edit("params.yaml", "params: {C: 4.0}", "params: {C: 5.0}")
    assert uncommitted.of(MODEL, ["dvc.yaml"]) == ["params.yaml"]
    before = uncommitted.code()
    away = (settings.ROOT / ".git").rename(settings.ROOT.parent / "git")
    assert uncommitted.of(MODEL, ["dvc.yaml"]) == []
    code = uncommitted.code()
    assert code != before
    project.edit("params.yaml", "params: {C: 5.0}", "params: {C: 6.0}")
    assert uncommitted.code() != code
    away.rename(settings.ROOT / ".git")
