"""A project with the tiny model, and nothing asked yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.ground import settings
from tasks.prediction_log import log_files
from tests.tasks.monitoring.asked import PARAMS


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is."""
    for name, path in {"ROOT": tmp_path, "BUILD": tmp_path / "build", "VAR": tmp_path / "var"}.items():
        monkeypatch.setattr(settings, name, path)
    (tmp_path / "params.yaml").write_text(PARAMS, encoding="utf-8")
    monkeypatch.setattr(log_files, "BLOCK", 20_000)  # some fifty lines: requests go over the edge of a table
    monkeypatch.setattr(log_files, "ROW_GROUP", 37)
    return tmp_path
