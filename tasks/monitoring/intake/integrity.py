"""What the monitor keeps of a model, looked through before it is used: torn files are set aside, and made again.

Rows that were taken in are read again from the prediction log, joined days from rows and labels, reports from both.
"""

from __future__ import annotations

from pathlib import Path

from tasks.ground import files
from tasks.monitoring.intake import intake

OBSERVED = ("asked", "days", "profiles")
"""Folders of what `observed` keeps: its files name each other, so one that is torn voids all."""


def set_aside(model: str) -> list[Path]:
    """Set torn files aside, and forget what was made of them; gives them."""
    folder = intake.folder(model)
    torn = [path for path in sorted(folder.rglob("*")) if path.is_file() and not files.is_whole(path)]
    if not torn:
        return []
    files.remove(folder / "done.json")  # first: killed in between, the next look does not end at once
    if any(_is_observed(path.relative_to(folder)) for path in torn):
        files.remove(folder / "state.json")
    for path in torn:
        if path.exists():
            files.set_aside(path, "it is not whole")
    return torn


def _is_observed(path: Path) -> bool:
    return (
        path.parts[0] in OBSERVED
        or path.name == "state.json"
        or path.suffix == ".npy"
        or path.name.startswith("service.")
    )
