"""A project with the tiny model, and no request yet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.ground import settings
from tasks.prediction_log import log_lines, log_table
from tests.tasks.monitoring.asked import PARAMS


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is."""
    return enter_world(tmp_path, monkeypatch)


def enter_world(path: Path, patch: pytest.MonkeyPatch) -> Path:
    """Make a project in a folder, and work on it."""
    for name, folder in {"ROOT": path, "BUILD": path / "build", "VAR": path / "var"}.items():
        patch.setattr(settings, name, folder)
    (path / "params.yaml").write_text(PARAMS, encoding="utf-8")
    patch.setattr(log_lines, "BLOCK", 20_000)  # some fifty lines: requests go over the edge of a table
    patch.setattr(log_table, "ROW_GROUP", 37)
    patch.setattr(os, "fsync", lambda _: None)  # no power cut here: hundreds of small files need no wait for the disk
    return path
