"""Fixtures of the tests that need no project."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.ground import settings


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for what is written."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return tmp_path
