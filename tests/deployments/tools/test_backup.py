"""A backup is a project: taken while others write, compared when it is restored, and used where it lies."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from deployments.tools import backup
from tasks.ground import files, leases
from tasks.ground.errors import DataMissing, Mistake
from tests.conftest import Project


@pytest.fixture
def used(small: Project) -> Project:
    """A project with a registry, a log, a journal, and what can be made again."""
    var = small.root / "var"
    for path, text in {
        "predictions/tiny/incoming/a.jsonl": "{}\n",
        "journal/tiny.jsonl": "{}\n",
        "monitoring/tiny/report.json": "{}",
        "mlflow/artifacts/1/release/model.skops": "a model",
        "log/router.log": "not copied",
        "memo/x": "not copied",
    }.items():
        (var / path).parent.mkdir(parents=True, exist_ok=True)
        (var / path).write_text(text)
    with closing(sqlite3.connect(var / "mlflow" / "mlflow.db")) as store, store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("CREATE TABLE versions (number INTEGER)")
        store.execute("INSERT INTO versions VALUES (1)")
    return small


def test_a_copy_holds_what_cannot_be_made_again(used: Project, tmp_path: Path) -> None:
    """Code, history, data and state; and it is its owner's alone."""
    copy = tmp_path / "copy"
    told = list(backup.backup(copy))
    assert "is a copy of" in told[0]
    kept = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert {"var/journal/tiny.jsonl", "var/predictions/tiny/incoming/a.jsonl", "data.dvc", ".git/HEAD"} <= kept
    assert not [path for path in kept if path.startswith(("var/log/", "var/memo/", ".venv/"))]
    assert files.tree(copy / "var/mlflow/artifacts") == files.tree(used.root / "var/mlflow/artifacts")
    assert copy.stat().st_mode & 0o777 == 0o700


def test_a_database_is_copied_as_of_one_moment(used: Project, tmp_path: Path) -> None:
    """With what a writer has committed, and without what it has not."""
    with closing(sqlite3.connect(used.root / "var/mlflow/mlflow.db")) as writer:
        writer.execute("INSERT INTO versions VALUES (2)")
        writer.commit()
        writer.execute("INSERT INTO versions VALUES (3)")
        list(backup.backup(tmp_path / "copy"))
    with closing(sqlite3.connect(tmp_path / "copy/var/mlflow/mlflow.db")) as copy:
        assert copy.execute("SELECT number FROM versions").fetchall() == [(1,), (2,)]


def test_a_backup_waits_for_the_flow_that_is_under_way(used: Project, tmp_path: Path) -> None:
    """So no half of a promotion is in it."""
    ready, done = threading.Event(), threading.Event()

    def train() -> None:
        with leases.hold("train-tiny"):
            ready.set()
            done.wait(20)
            (used.root / "var/journal/tiny.jsonl").write_text("promoted\n")

    flow = threading.Thread(target=train)
    flow.start()
    ready.wait(20)
    threading.Timer(0.5, done.set).start()
    list(backup.backup(tmp_path / "copy"))
    flow.join()
    assert (tmp_path / "copy/var/journal/tiny.jsonl").read_text() == "promoted\n"


def test_a_restored_project_is_as_it_was(used: Project, tmp_path: Path) -> None:
    """Every file is compared; there is no list of hashes in it, as it is no backup."""
    list(backup.backup(tmp_path / "copy"))
    told = list(backup.restore(tmp_path / "copy", tmp_path / "restored"))
    assert "compared" in told[0]
    assert "make setup" in told[1]
    hashes = json.loads((tmp_path / "copy/var/backup/hashes.json").read_text())
    assert {name: files.sha256(tmp_path / "restored" / name) for name in hashes} == hashes
    assert not (tmp_path / "restored/var/backup/hashes.json").exists()


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_a_backup_that_is_not_whole_is_not_restored(used: Project, tmp_path: Path, harm: str) -> None:
    """It names the file, and makes nothing."""
    list(backup.backup(tmp_path / "copy"))
    model = tmp_path / "copy/var/mlflow/artifacts/1/release/model.skops"
    model.write_text("another") if harm == "changed" else model.unlink()
    with pytest.raises(DataMissing, match=r"not as it was made: .*model\.skops"):
        list(backup.restore(tmp_path / "copy", tmp_path / "restored"))
    assert not (tmp_path / "restored").exists()


def test_a_folder_that_is_there_is_not_written_to(used: Project, tmp_path: Path) -> None:
    """Nor one within the project, nor from a folder that is no backup."""
    (tmp_path / "there").mkdir()
    with pytest.raises(Mistake, match="is there already"):
        list(backup.backup(tmp_path / "there"))
    with pytest.raises(Mistake, match="is within"):
        list(backup.backup(used.root / "var" / "copy"))
    with pytest.raises(Mistake, match="is no backup"):
        list(backup.restore(tmp_path / "there", tmp_path / "new"))


def test_what_a_team_keeps_elsewhere_is_told(used: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that copies it, and without its password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://me:secret@db.example/evergreen")
    told = "\n".join(backup.backup(tmp_path / "copy"))
    assert "not in it: postgresql://db.example:5432/evergreen" in told
    assert "pg_dump" in told
    assert "secret" not in told
