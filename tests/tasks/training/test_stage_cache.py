"""Whether anything was touched since DVC found nothing to do: told without DVC, and never wrongly."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.ground import settings
from tasks.training import stage_cache

STAGES = ["prepare@m", "train@m"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an input and an output that were made a while ago, and are known to be up to date."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(settings, "VAR", tmp_path / "var")
    monkeypatch.setattr(stage_cache, "SETTLED_NS", 0)
    for name, text in {"dvc.lock": "x", "params.yaml": "a: 1", "code/step.py": "1", "build/out/a.txt": "a"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    time.sleep(0.02)
    stage_cache.remember("m", STAGES, ["code", "build/out", "data/nothing"], time.time_ns())
    return tmp_path


def test_what_was_not_touched_is_known(root: Path) -> None:
    """The stages, in their order; of another model nothing is known."""
    assert stage_cache.stages("m") == STAGES
    assert stage_cache.stages("n") is None


def same_size_and_time(root: Path) -> None:
    """Write other content, and set the modification time back."""
    path = root / "code" / "step.py"
    before = path.stat()
    path.write_text("2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


TOUCHES: dict[str, Callable[[Path], object]] = {
    "edited": lambda root: (root / "code" / "step.py").write_text("22"),
    "edited, with its size and modification time kept": same_size_and_time,
    "touched": lambda root: (root / "params.yaml").touch(),
    "added": lambda root: (root / "code" / "helper.py").write_text(""),
    "removed": lambda root: (root / "build" / "out" / "a.txt").unlink(),
    "added where nothing was": lambda root: (root / "data" / "nothing").mkdir(parents=True),
    "the graph": lambda root: (root / "dvc.yaml").write_text("stages: {}"),
    "the lock": lambda root: (root / "dvc.lock").write_text("y"),
    "DVC's configuration": lambda root: ((root / ".dvc").mkdir(), (root / ".dvc" / "config.local").write_text("")),
}


@pytest.mark.parametrize("how", list(TOUCHES))
def test_whatever_is_touched_dvc_is_asked_again(root: Path, how: str) -> None:
    """An answer is only given where nothing looks different: size, times, inodes, and which files there are."""
    TOUCHES[how](root)
    assert stage_cache.stages("m") is None


def test_byte_code_is_no_touch(root: Path) -> None:
    """Importing the code writes it."""
    before = (root / "code").stat()
    (root / "code" / "__pycache__").mkdir()
    (root / "code" / "__pycache__" / "step.pyc").write_text("x")
    assert (root / "code").stat().st_mtime_ns != before.st_mtime_ns
    stage_cache.remember("m", STAGES, ["code"], time.time_ns() + 10**9)
    (root / "code" / "__pycache__" / "other.pyc").write_text("x")
    assert stage_cache.stages("m") == STAGES


def test_what_changed_while_dvc_looked_is_not_remembered(root: Path) -> None:
    """Nor what changed just before: the clock of a file system is coarse."""
    began = time.time_ns()
    (root / "params.yaml").write_text("a: 2")
    stage_cache.remember("m", STAGES, ["code"], began)
    assert stage_cache.stages("m") is None
