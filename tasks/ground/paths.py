"""Where the state of a project is kept: every file and folder below var/ that more than one module knows."""

from __future__ import annotations

from pathlib import Path

from tasks.ground import settings


def watcher_heartbeat() -> Path:
    """A file that the watcher touches after each of its rounds."""
    return settings.VAR / "run" / "watch.heartbeat"
