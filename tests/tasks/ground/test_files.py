"""Files that are hashed, and written so that nobody ever reads half of one."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.ground import files, json_lines, settings
from tasks.ground.errors import FileTorn
from tests.conftest import REPOSITORY


@pytest.fixture(autouse=True)
def _own_var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "VAR", tmp_path / "var")


@pytest.fixture
def child() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test starts: killed when it ends, however it ends."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def python(child: list[subprocess.Popen[str]], code: str, *arguments: Path | str) -> subprocess.Popen[str]:
    """A process of its own, once it has said that it is ready."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    child.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    assert child[-1].stdout
    assert child[-1].stdout.readline() == "ready\n"
    return child[-1]


def names(folder: Path) -> list[str]:
    """What a folder holds, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def fill(path: Path, kind: str, until: Exception) -> None:
    """Begin to replace a file or a folder, and fail."""
    with files.replacing(path) as beside:
        files.write_text(beside / "new.txt" if kind == "folder" else beside, "new")
        raise until


def test_what_is_written_takes_the_place_of_the_old_when_it_is_whole(tmp_path: Path) -> None:
    """Until the block has ended, the old content is what there is to read; nothing is left beside it."""
    path = tmp_path / "deep" / "file.txt"
    files.write_text(path, "old")
    with files.replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failure_leaves_the_old_content(tmp_path: Path, kind: str) -> None:
    """And nothing of what was begun."""
    path = tmp_path / "made"
    files.write_text(path / "old.txt" if kind == "folder" else path, "old")
    before = files.tree(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        fill(path, kind, until=OSError("disk full"))
    assert files.tree(tmp_path) == before


def test_a_block_that_writes_nothing_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    """For a file and for a folder."""
    files.write_text(tmp_path / "file", "old")
    files.write_text(tmp_path / "folder" / "file", "old")
    for path in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(FileNotFoundError), files.replacing(path):
            pass
    assert files.tree(tmp_path).keys() == {"file", "folder/file"}


def test_a_folder_replaces_a_folder_whole(tmp_path: Path) -> None:
    """What only the old one held is gone."""
    path = tmp_path / "folder"
    files.write_text(path / "old.txt", "old")
    with files.replacing(path) as beside:
        beside.mkdir()
        (beside / "new.txt").write_text("new")
        assert names(path) == ["old.txt"]
    assert names(path) == ["new.txt"]
    assert names(tmp_path) == ["folder"]


def test_a_file_may_become_a_folder_and_a_folder_a_file(tmp_path: Path) -> None:
    """What stands there does not matter."""
    path = tmp_path / "thing"
    files.write_text(path, "a file")
    path.unlink()
    with files.replacing(path) as beside:
        beside.mkdir()
    files.write_text(path, "a file again")
    assert path.read_text() == "a file again"


def test_what_stood_there_is_never_written_into(tmp_path: Path) -> None:
    """A DVC cache that links instead of copying shares the file: it must not change through it."""
    path, cached, folder = tmp_path / "file", tmp_path / "cached", tmp_path / "linked"
    files.write_text(path, "old")
    os.link(path, cached)
    files.write_text(path, "new")
    assert cached.read_text() == "old"
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("old")
    folder.symlink_to(tmp_path / "kept")
    with files.replacing(folder) as beside:
        beside.mkdir()
    assert names(folder) == []
    assert (tmp_path / "kept" / "file").read_text() == "old"


WRITES = """
import sys, time, pathlib
from tasks.ground import files
path, folder = pathlib.Path(sys.argv[1]), sys.argv[2] == "folder"
with files.replacing(path) as beside:
    if folder:
        beside.mkdir()
    with (beside / "half.txt" if folder else beside).open("w") as stream:
        stream.write("half of wh")
        stream.flush()
        print("ready", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_kill_in_the_middle_leaves_the_old_content_and_the_next_run_works(
    tmp_path: Path, child: list[subprocess.Popen[str]], kind: str
) -> None:
    """By kill -9: no handler runs. What is left beside is hidden, and DVC does not see it."""
    path = tmp_path / "made"
    files.write_text(path / "file.txt" if kind == "folder" else path, "old")
    before = files.tree(tmp_path)
    killed = python(child, WRITES, path, kind)
    killed.kill()
    killed.wait()
    left = {name: hash_ for name, hash_ in files.tree(tmp_path).items() if name not in before}
    (beside,) = {name.split("/")[0] for name in left}
    assert beside.startswith(f".made.{killed.pid}")
    assert beside.endswith(".tmp")
    assert ".*.tmp" in (REPOSITORY / ".dvcignore").read_text().splitlines()
    assert {name: hash_ for name, hash_ in files.tree(tmp_path).items() if name not in left} == before
    files.remove(path)
    files.write_text(path, "new")
    assert path.read_text() == "new"


def test_hashes_are_those_of_the_tools(tmp_path: Path) -> None:
    """MD5 as DVC, SHA-256 as sha256sum, over files larger than one read."""
    path = tmp_path / "file"
    content = os.urandom((1 << 20) + 7)
    path.write_bytes(content)
    assert files.md5(path) == hashlib.md5(content).hexdigest()
    assert files.sha256(path) == hashlib.sha256(content).hexdigest()


def test_a_digest_is_of_the_value_not_of_its_order_or_spelling() -> None:
    """The same in every process: a fixed value shows it."""
    assert files.digest({"b": [1, 2.5, None], "a": "ü"}) == files.digest({"a": "ü", "b": [1, 2.5, None]})
    assert files.digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert files.digest([1, 2]) != files.digest([2, 1])
    assert len({files.digest({"w": keys}) for keys in ({0: 1}, {"0": 1}, {False: 1}, {"false": 1})}) == 4


def test_a_tree_is_paths_and_contents_without_byte_code(tmp_path: Path) -> None:
    """Neither when nor in which order files were made matters."""
    for name in ("b/two.txt", "a.txt", "b/__pycache__/two.pyc"):
        files.write_text(tmp_path / "one" / name, name)
    for name in ("a.txt", "b/two.txt"):
        files.write_text(tmp_path / "two" / name, name)
    os.utime(tmp_path / "two" / "a.txt", (0, 0))
    assert list(files.tree(tmp_path / "one")) == ["a.txt", "b/two.txt"]
    assert files.tree(tmp_path / "one") == files.tree(tmp_path / "two")


def test_equal_values_give_equal_json(tmp_path: Path) -> None:
    """Keys are sorted; what JSON cannot say is refused, and the old file stays."""
    path = tmp_path / "value.json"
    files.write_json(path, {"b": 1, "a": "ü"})
    first = path.read_bytes()
    files.write_json(path, {"a": "ü", "b": 1})
    assert path.read_bytes() == first
    assert files.read_json(path) == {"a": "ü", "b": 1}
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    assert path.read_bytes() == first


def test_equal_frames_give_equal_parquet(tmp_path: Path) -> None:
    """Whatever their index."""
    import pandas as pd

    frame = pd.DataFrame({"a": ["x", None], "b": [1.5, 2.0]})
    files.write_parquet(tmp_path / "one.parquet", frame)
    files.write_parquet(tmp_path / "two.parquet", frame.set_axis([5, 7]))
    assert files.md5(tmp_path / "one.parquet") == files.md5(tmp_path / "two.parquet")


def test_a_memo_is_made_once_per_key() -> None:
    """Equal keys share one file, whatever their order; another key has its own."""
    calls: list[str] = []

    def make(path: Path) -> None:
        calls.append(path.name)
        path.write_text("made")

    first = files.memo("rows", {"a": 1, "b": 2}, ".txt", make)
    assert files.memo("rows", {"b": 2, "a": 1}, ".txt", make) == first
    assert files.memo("rows", {"a": 1, "b": 3}, ".txt", make) != first
    assert len(calls) == 2
    assert first.read_text() == "made"


def test_a_memo_that_failed_is_not_kept() -> None:
    """The next call makes it."""

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.memo("rows", "key", ".txt", fail)
    made = files.memo("rows", "key", ".txt", lambda path: path.write_text("whole") and None)
    assert made.read_text() == "whole"
    assert names(made.parent) == [made.name, f"{made.name}.sha256"]


@pytest.mark.parametrize("torn", [b"", b"ma", b"\0\0\0\0", b"\xffade"])
def test_a_torn_memo_is_made_again(torn: bytes) -> None:
    """Whatever is left of it, also where only its hash was torn."""

    def make(path: Path) -> None:
        path.write_text("made")

    made = files.memo("rows", "key", ".txt", make)
    made.write_bytes(torn)
    assert files.memo("rows", "key", ".txt", make).read_text() == "made"
    made.with_name(f"{made.name}.sha256").write_bytes(torn)
    made.write_text("older")
    assert files.memo("rows", "key", ".txt", make).read_text() == "made"
    assert files.is_sealed(made)


# ── a power cut ───────────────────────────────────────────────────────────────────────────────────

TORN = [b"", b'{"a": ', b"\0\0\0\0", b"\xff\xfe\x01", b"[]", b"null"]


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_state_file_is_named_set_aside_and_counts_as_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes
) -> None:
    """What it held stays to be looked at."""
    path = settings.VAR / "memo" / "note.json"
    files.write_text(path, "")
    path.write_bytes(torn)
    assert files.read_state(path, {"a": 1}) == {"a": 1}
    assert not path.exists()
    (aside,) = (settings.VAR / "torn").iterdir()
    assert aside.name.startswith("memo_note.json.")
    assert aside.read_bytes() == torn
    assert f"{path} is torn" in caplog.text
    assert files.read_state(path, {"a": 2}) == {"a": 2}
    files.write_json(path, {"a": 3})
    assert files.read_state(path, {"a": 1}) == {"a": 3}
    assert files.read_state(path, 0, lambda said: int(said["a"])) == 3


@pytest.mark.parametrize("torn", TORN[:4])
def test_who_cannot_do_without_a_file_is_told_which_one_is_torn(tmp_path: Path, torn: bytes) -> None:
    """As an error of ours, with what to do."""
    path = tmp_path / "slices.json"
    path.write_bytes(torn)
    with pytest.raises(FileTorn, match=r"slices\.json is not whole: .* Move it away, or restore it from a backup"):
        files.read_json(path)


def test_what_is_written_is_on_the_disk_before_it_takes_the_place_of_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, then the name, then the folder; of a folder all files. What stages make again is not waited for."""
    happened: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def flushed(file: int) -> None:
        happened.append(f"flush {Path(f'/proc/self/fd/{file}').readlink().name.partition('.')[0]}")
        fsync(file)

    def renamed(path: Path, target: Path) -> Path:
        happened.append(f"rename to {target.name}")
        return rename(path, target)

    monkeypatch.setattr(settings, "BUILD", tmp_path / "build")
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    files.write_text(tmp_path / "kept" / "note", "new")
    assert happened == ["flush ", "rename to note", "flush kept"]
    happened.clear()
    with files.replacing(tmp_path / "folder") as beside:
        beside.mkdir()
        (beside / "one").write_text("1")
    assert happened[0] == "flush one"
    assert happened[-2] == "rename to folder"
    happened.clear()
    json_lines.append(tmp_path / "kept" / "book", 1)
    json_lines.append(tmp_path / "kept" / "book", 2)
    assert happened == ["flush book", "flush kept", "flush book"]
    happened.clear()
    files.write_text(tmp_path / "build" / "rows", "new")
    assert happened == ["rename to rows"]


HOLDS = """
import sys, time, pathlib
from tasks.ground import files, settings
settings.VAR = pathlib.Path(sys.argv[1])
with files.lock("data"):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_by_one_process_until_that_dies(tmp_path: Path, child: list[subprocess.Popen[str]]) -> None:
    """Whoever wants it waits; a killed holder lets go. Another name is another lock."""
    holder = python(child, HOLDS, settings.VAR)
    got: list[float] = []

    def want() -> None:
        with files.lock("data"):
            got.append(time.monotonic())

    waiting = threading.Thread(target=want)
    waiting.start()
    with files.lock("other"):
        pass
    time.sleep(0.3)
    assert not got
    holder.kill()
    waiting.join(timeout=10)
    assert len(got) == 1


def test_who_waits_for_a_lock_says_for_whom(
    child: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, again and again, and when it goes on; who need not wait says nothing."""
    monkeypatch.setattr(files, "WAIT_SECONDS", 0.2)
    holder = python(child, HOLDS, settings.VAR)
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            holder.kill()

    with files.lock("data", tell), files.lock("other", said.append):
        pass
    assert re.fullmatch(rf"waits for process {holder.pid} \(.+ -c .*, since 20.+\), which holds data", said[0])
    assert said[1].startswith("still waits for process ")
    assert re.fullmatch(r"goes on after \d+ s", said[-1])
    assert len(said) >= 3
    second = python(child, HOLDS, settings.VAR)
    threading.Timer(0.3, second.kill).start()
    with files.lock("data"):
        pass
    assert capsys.readouterr().err.startswith(f"waits for process {second.pid} (")


def test_a_sweep_takes_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    """What is being written by a process that lives, and files of other names, stay."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = {f".a.json.{os.getpid()}-1.tmp", "deep/.tmp", "deep/b.tmp", f"deep/{dead.pid}-1.tmp"}
    for name in {*kept, f".a.json.{dead.pid}-1.tmp", f"deep/.folder.{dead.pid}-7.old.tmp/file"}:
        files.write_text(tmp_path / name, "")
    files.sweep(tmp_path, tmp_path / "missing", below=False)
    assert (tmp_path / f"deep/.folder.{dead.pid}-7.old.tmp").exists()
    files.sweep(tmp_path)
    assert files.tree(tmp_path).keys() == kept


def test_memos_that_are_asked_for_are_kept_and_the_others_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each day makes one of its own, and asks for one that all share; what is unused for long goes with its seal."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    folder = files.memos()
    for day in range(100):
        for key in (day, "shared"):
            files.memo("kind", key, ".txt", lambda path: path.write_text("x") and None)
        files.forget_unused(folder, days=30)
        for seal in folder.rglob("*.sha256"):  # a day goes by
            at = seal.stat().st_mtime - 86_400
            os.utime(seal, (at, at))
        assert len(list(folder.rglob("*.txt"))) <= 32
    left = {path.name for path in folder.rglob("*.*")}
    assert {f"{name}.sha256" for name in left if name.endswith(".txt")} == {n for n in left if n.endswith(".sha256")}
    made = []
    files.memo("kind", "shared", ".txt", made.append)
    assert not made
