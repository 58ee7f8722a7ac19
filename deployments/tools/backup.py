"""Back up a project, restore a backup, move a project: a copy that is whole, taken while the platform runs.

A copy is a project: code and its history, data with DVC's cache, and the state that cannot be made again. Flows and
commands that change several files wait while it is taken, by the leases that they take too; databases of SQLite are
copied by SQLite; replicas answer and log on. A list of hashes says what the copy held, and `restore` compares.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from tasks.ground import addresses, files, leases, params, paths, settings
from tasks.ground.errors import DataMissing, Mistake
from tasks.ground.words import listed, many

MADE_AGAIN = (".venv", "build", "dvc_plots", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".dvc/tmp")
STATE_MADE_AGAIN = (
    *("batch/incoming", "drafts", "dvc", "environments", "images", "incoming", "locks", "log", "memo", "reproduce"),
    *("run", "status", "torn", "try", "backup"),
)
"""Below var/ (docs/reference/state.md)."""

CACHE = ".dvc/cache/"


def backup(to: Path) -> Iterator[str]:
    """Copy this project to a folder that is not there yet; gives a line for each thing done.

    Raises:
        Mistake: the folder is there, or within the project.
    """
    _refuse_target(to, settings.ROOT)
    with files.replacing(to) as beside, _still():
        count = _copy(settings.ROOT, beside)
        hashes = {name: files.sha256(beside / name) for name in _listed(beside)}
        files.write_json(_list(beside), hashes)
    yield f"{to} is a copy of {settings.ROOT}: {many(count, 'file')}"
    yield from _elsewhere()
    yield f"it holds hashes of API keys, the journal's key and whatever was asked of the models. Use it: {_next(to)}"


def restore(source: Path, to: Path) -> Iterator[str]:
    """Copy a backup to a folder that is not there yet, and compare every file with what the backup held.

    Raises:
        Mistake: it is no backup, or the folder is there.
        DataMissing: a file is gone or changed; nothing is left of the copy.
    """
    if not _list(source).is_file():
        raise Mistake(f"{source} is no backup: it has no {_list(source)}. evergreen backup makes one")
    _refuse_target(to, source)
    hashes: dict[str, str] = files.read_json(_list(source))
    with files.replacing(to) as beside:
        _copy(source, beside)
        wrong = [name for name, hash_ in hashes.items() if not _is_whole(beside / name, hash_)]
        if wrong:
            gone = f"{source} is not as it was made: {listed(wrong, 3)}"
            raise DataMissing(f"{gone}. Take another backup; {to} is not made")
    yield f"{to} is as {source} was made: {many(len(hashes), 'file')} compared"
    yield f"go on there: {_next(to)}"


def _list(copy: Path) -> Path:
    """Path → SHA-256 of what a copy held, but for DVC's cache, whose names are hashes."""
    return copy / "var" / paths.backup_list().relative_to(settings.VAR)


def _next(to: Path) -> str:
    return f"cd {to} && make setup && . ./activate && dvc checkout && evergreen up"


def _is_whole(path: Path, hash_: str) -> bool:
    return path.is_file() and files.sha256(path) == hash_


def _refuse_target(to: Path, source: Path) -> None:
    if to.exists():
        raise Mistake(f"{to} is there already: name a folder that is not")
    if to.is_relative_to(source):
        raise Mistake(f"{to} is within {source}: name a folder beside it")


def _still() -> ExitStack:
    """Wait for the flows under way, and have others wait: whatever writes more than one file holds one of these."""
    models = list(params.load().models)
    names = ["ingest", *(f"{flow}-{model}" for model in models for flow in ("train", "rollout", "monitor"))]
    stack = ExitStack()
    try:
        for name in names:
            stack.enter_context(leases.hold(name, who="evergreen backup"))
        for model in models:
            stack.enter_context(files.lock(f"registry-{model}", who="evergreen backup"))
    except BaseException:
        stack.close()
        raise
    return stack


def _copy(source: Path, to: Path) -> int:
    """Copy what a project is made of; gives the number of files. A file that goes meanwhile was made again anyway."""
    count = 0
    for path in _files(source, source):
        target = to / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(path.readlink())
        elif path.is_file():  # no socket
            _copy_file(path, target)
        count += 1
    for path in (to / "var", to):
        path.chmod(0o700)
    return count


def _files(folder: Path, root: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        name = path.relative_to(root).as_posix()
        if path.name in MADE_AGAIN or name in MADE_AGAIN or name.endswith(("-wal", "-shm", ".tmp")):
            continue
        if name.partition("/")[0] == "var" and name.partition("/")[2] in STATE_MADE_AGAIN:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path, root)
        else:
            yield path


def _copy_file(path: Path, target: Path) -> None:
    """A database of SQLite is copied as of one moment, whoever writes to it."""
    with path.open("rb") as stream:
        is_database = stream.read(16) == b"SQLite format 3\0"
    if not is_database:
        shutil.copy2(path, target)
        return
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


def _listed(copy: Path) -> Iterator[str]:
    for path in _files(copy, copy):
        name = path.relative_to(copy).as_posix()
        if not path.is_symlink() and not name.startswith(CACHE):
            yield name


def _elsewhere() -> Iterator[str]:
    """What a team keeps in servers of its own, which this copy does not hold."""
    for setting in ("MLFLOW_TRACKING_URI", "PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        if os.environ.get(setting, "").startswith("postgresql"):
            shown = addresses.read(setting, "postgresql").shown
            yield f"not in it: {shown} ({setting}). Beside this copy: pg_dump --format=custom --file=<file> <address>"
