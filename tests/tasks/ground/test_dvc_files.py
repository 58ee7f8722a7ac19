"""DVC's files under kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.ground import dvc_files, settings
from tasks.ground.errors import Mistake

LOCK = """\
schema: '2.0'
stages:
  count:
    cmd: python count.py
    deps:
    - path: source.txt
      hash: md5
      md5: 60b725f10c9c85c70d97880dfe8191b3
      size: 2
    outs:
    - path: count.txt
      hash: md5
      md5: 26ab0db90d72e28ad0ba1e22ee510510
      size: 2
"""

KILLED = """
import os, signal, sys
from dvc.utils.serialize import _yaml
from tasks.ground import dvc_files
dvc_files.write_whole(_yaml)

def broken_off(data, stream):
    stream.write("schema: ")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

_yaml._dump_data(sys.argv[1], {}, dumper=broken_off)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with a whole dvc.lock."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / "dvc.lock").write_text(LOCK)
    return tmp_path


def test_a_kill_while_dvc_writes_leaves_what_was_there(root: Path) -> None:
    """DVC itself empties the file first; what the killed process left beside it is swept away."""
    killed = subprocess.run([sys.executable, "-c", KILLED, root / "dvc.lock"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (root / "dvc.lock").read_text() == LOCK
    assert len(list(root.glob(".dvc.lock.*.tmp"))) == 1
    dvc_files.repair()
    assert sorted(path.name for path in root.iterdir()) == [".dvc", "dvc.lock"]


def test_dvc_writes_the_same_as_ever(root: Path) -> None:
    """Only beside first; asked for twice it is done once."""
    from dvc.utils.serialize import _yaml

    kept = _yaml._dump_data
    try:
        dvc_files.write_whole(_yaml)
        once = _yaml._dump_data
        dvc_files.write_whole(_yaml)
        assert _yaml._dump_data is once
        with _yaml.modify_yaml(str(root / "dvc.lock")) as said:
            said["stages"]["count"]["cmd"] = "python other.py"
    finally:
        _yaml._dump_data = kept
    assert (root / "dvc.lock").read_text() == LOCK.replace("count.py", "other.py")


def test_a_lock_file_that_was_broken_off_anywhere_goes_or_is_whole(root: Path) -> None:
    """Wherever a kill broke it off: it is gone, or each entry in it has what DVC asks of it. A whole one stays."""
    import yaml

    gone = 0
    for length in range(len(LOCK)):
        (root / "dvc.lock").write_text(LOCK[:length])
        dvc_files.repair()
        if not (root / "dvc.lock").exists():
            gone += 1
            continue
        stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
        entries = [entry for stage in stages.values() for entry in [*stage.get("deps", []), *stage.get("outs", [])]]
        assert all(stage["cmd"] for stage in stages.values())
        assert all(entry["path"] for entry in entries)
    assert gone > 30
    (root / "dvc.lock").write_text(LOCK)
    dvc_files.repair()
    assert (root / "dvc.lock").read_text() == LOCK


@pytest.mark.parametrize("name", ["data.dvc", "dvc.lock"])
def test_a_file_with_both_sides_of_a_merge_names_the_command_that_joins_them(name: str, root: Path) -> None:
    """It is not taken away, and DVC, which would say that it is no YAML, is not asked."""
    text = LOCK + "<<<<<<< ours\n"
    (root / name).write_text(text)
    with pytest.raises(Mistake, match=r"both sides of a merge: `evergreen merge`"):
        dvc_files.repair()
    assert (root / name).read_text() == text


@pytest.mark.parametrize("is_older", [False, True])
def test_a_process_stays_on_the_list_unless_it_began_after_the_list_was_written(root: Path, is_older: bool) -> None:
    """Then it has the number of one that was killed: DVC would take it for that one, and wait for ever."""
    rwlock = root / ".dvc" / "tmp" / "rwlock"
    rwlock.write_text(json.dumps({"write": {"out": {"pid": os.getpid(), "cmd": "dvc repro"}}, "read": {}}))
    if is_older:
        os.utime(rwlock, (1, 1))
    dvc_files.repair()
    assert rwlock.exists() is not is_older


def test_a_list_that_was_broken_off_goes(root: Path) -> None:
    """DVC would refuse to work until somebody removes it."""
    held = root / ".dvc" / "tmp" / "rwlock"
    for text in ("", '{"write": {"a"', "[]"):
        held.write_text(text)
        dvc_files.repair()
        assert not held.exists()
