"""Integrity check of what the monitor keeps of a model: torn files are set aside, and made again.

Rows that were taken in are read again from the prediction log, joined days from rows and labels, reports from both.
"""

from __future__ import annotations

from pathlib import Path

from tasks.ground import files
from tasks.monitoring.intake import intake

OF_INTAKE = ("asked", "days", "profiles", "again.", "service.", "state.json")
"""How names of the intake begin: its files name each other, so one that is torn voids all."""


def set_aside(model: str) -> list[Path]:
    """Set torn files aside, and forget what was made of them; gives them."""
    folder = intake.folder(model)
    torn = [path for path in sorted(folder.rglob("*")) if path.is_file() and not files.is_whole(path)]
    if not torn:
        return []
    files.remove(folder / "done.json")  # first: after a kill in between, the next run does not end at once
    names = [path.relative_to(folder) for path in torn]
    if any(name.parts[0].startswith(OF_INTAKE) for name in names):
        files.remove(folder / "state.json")
    for path in torn:
        if path.exists():
            files.set_aside(path, "it is not whole")
    return torn
