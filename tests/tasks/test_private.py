"""State is its owner's alone; what leaves it has the rights that its writer's files usually have."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.conftest import Project

WRITES = """
import os, stat, sys
os.umask(0o022)
from pathlib import Path
from tasks.ground import json_lines, settings
settings.apply()
from tasks.ground import files
files.write_json(settings.VAR / "memo" / "note.json", 1)
json_lines.append(settings.VAR / "rollouts" / "book.jsonl", 1)
with files.lock("one"):
    pass
outside = Path(sys.argv[1])
with settings.for_others(outside):
    files.write_text(outside, "a result")
with settings.for_others(settings.VAR / "batch" / "result"):
    files.write_text(settings.VAR / "batch" / "result", "a result")
files.write_text(settings.VAR / "after", "")
settings.apply()  # a second time, as a child does
with settings.for_others(outside):
    files.write_text(outside.with_name("again"), "")
"""


def rights(path: Path) -> int:
    """Who may do what."""
    return path.stat().st_mode & 0o777


def test_everything_below_var_is_for_its_owner_only_and_results_are_as_ever(project: Project, tmp_path: Path) -> None:
    """Whatever the user's mask lets others read; an older var/ is closed as a whole."""
    (project.root / "var").mkdir(exist_ok=True)
    (project.root / "var").chmod(0o755)
    outside = tmp_path / "result.parquet"
    done = project.run(sys.executable, "-c", WRITES, outside)
    assert not done.stderr
    state = [project.root / "var", *(project.root / "var").rglob("*")]
    assert len(state) > 8
    assert [str(path) for path in state if rights(path) & 0o077] == []
    assert rights(outside) == 0o644
    assert rights(outside.with_name("again")) == 0o644


def test_what_runs_by_itself_leaves_nothing_readable(project: Project) -> None:
    """The way in of every command closes it: this one writes the status page."""
    os.environ.pop("EVERGREEN_UMASK", None)
    project.run(sys.executable, "-m", "deployments.cli", "page")
    made = list((project.root / "var").rglob("*"))
    assert any(path.name == "index.html" for path in made)
    assert [str(path) for path in made if rights(path) & 0o077] == []
