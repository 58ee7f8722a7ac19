"""The note that a candidate was judged counts as long as what it was judged on is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.ground import files, settings
from tasks.release.registry import candidate_outcome
from tests.conftest import Project


@pytest.fixture
def judged(small: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose first candidate was judged, on a store that was made meanwhile; gives the store."""
    store = settings.VAR / "mlflow" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    files.write_json(settings.BUILD / "tiny" / "release" / "candidate.json", {"candidate": "c1"})
    before = candidate_outcome.inputs("tiny")
    files.write_text(store, "made by the first candidate")
    candidate_outcome.keep("tiny", "promoted", before, by="somebody")
    return store


def test_the_first_candidate_of_all_is_not_judged_twice(judged: Path) -> None:
    """The store that its own run made is no other store."""
    assert str(candidate_outcome.find("tiny")) == "promoted (by somebody)"


def test_a_store_that_is_gone_has_judged_nothing(judged: Path) -> None:
    """Without the registry the note says nothing."""
    judged.unlink()
    assert candidate_outcome.find("tiny") is None


def test_the_local_stacks_server_is_the_store_behind_it(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was judged without the server counts with it."""
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", f"sqlite:///{judged}")
    monkeypatch.setenv("MLFLOW_PORT", "5000")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert candidate_outcome.find("tiny") is not None


def test_another_server_has_judged_nothing(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a shell of `make shell`, where the variable that `mlflow ui` reads names the store of this folder."""
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", f"sqlite:///{judged}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert candidate_outcome.find("tiny") is None


def test_another_candidate_was_not_judged(judged: Path) -> None:
    """A note is of one candidate."""
    files.write_json(settings.BUILD / "tiny" / "release" / "candidate.json", {"candidate": "c2"})
    assert candidate_outcome.find("tiny") is None


def test_a_changed_rule_judges_again(judged: Path, small: Project) -> None:
    """A verdict under another gate is no verdict."""
    small.edit("params.yaml", "min_rows: ", "min_rows: 1")
    assert candidate_outcome.find("tiny") is None
