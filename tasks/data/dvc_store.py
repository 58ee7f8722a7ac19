"""DVC's object stores, the cache of this clone and the default remote: what is there, whole, fetched and pushed.

An object is a file by its MD5; a folder is an object too, the list of its files (`….dir`). DVC is content with a file
of the right name, here and there: one that was written half, or damaged, is found here. What can be told without
importing DVC (0.7 s) is told without it.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from configparser import ConfigParser
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.ground import addresses, dvc_files, files, paths, settings
from tasks.ground.errors import EvergreenError, SourceUnavailable
from tasks.ground.words import many, one_line

if TYPE_CHECKING:
    from dvc.repo import Repo

_log = logging.getLogger("evergreen")

ABANDONED = 3600.0
"""Seconds after which a half-written file of a remote has no writer any more."""

_OBJECT = re.compile(r"[0-9a-f]{32}(?:\.dir)?")
_NAMED = re.compile(rf"\bmd5: ({_OBJECT.pattern})$", re.MULTILINE)
"""An object that a dvc.lock names."""


# ── fetched ───────────────────────────────────────────────────────────────────────────────────────


def fetch(objects: Iterable[str], purpose: str) -> None:
    """Have objects in the cache, whole, as far as the remote has them.

    Raises:
        SourceUnavailable: the remote cannot be reached, or what it has by such a name is damaged.
    """
    if not (lacking := [name for name in objects if _is_lacking(name)]):
        return
    failed: list[BaseException] = []
    with dvc(purpose) as repo:
        remote, own = repo.cloud.get_remote_odb(), repo.cache.local
        wanted = remote.oids_exist(lacking)  # asked for one by one: DVC's index of a remote may be old
        if wanted:
            sources = [remote.oid_to_path(name) for name in wanted]
            own.add(sources, remote.fs, wanted, on_error=lambda _, error: failed.append(error))
    if failed:
        raise SourceUnavailable(
            f"could not {purpose}: {len(failed)} files failed to download: {_causes(failed[0])}"
        ) from failed[0]
    if damaged := [name for name in lacking if is_cached(name) and _is_lacking(name)]:
        raise SourceUnavailable(f"{damaged[0]} is damaged in the remote: push it again from a checkout that has it")


def fetch_made(model: str) -> None:
    """Have the cache hold what another worker's stages made for a model, and the run cache that knows from what.

    What does not come whole, as the remote lacks it, has it damaged, or fails midway, is told, and made here again.

    Raises:
        SourceUnavailable: the remote cannot be reached.
    """
    from dvc.exceptions import DownloadError

    before = _cached_objects()
    with dvc("bring what another worker made") as repo:
        try:
            target = f"{settings.ROOT / 'dvc.yaml'}:package@{model}"
            repo.fetch(targets=[target], with_deps=True, run_cache=True)
        except DownloadError as error:
            _log.warning("%s: not all that another worker made could be brought (%s): it is made again", model, error)
    if damaged := [name for name in _cached_objects() - before if _is_lacking(name)]:
        count = many(len(damaged), "file")
        _log.warning("%s: %s of what another worker made came damaged: it is made again", model, count)


def _cached_objects() -> set[str]:
    names = (f"{file.parent.name}{file.name}" for file in (cache() / "files" / "md5").glob("??/*"))
    return {name for name in names if _OBJECT.fullmatch(name)}  # not what another process is writing


def _is_lacking(name: str) -> bool:
    """Whether the cache has no such object; one that does not hash to its name is taken out of it."""
    cached = path_of(name)
    if cached.is_file() and files.md5(cached) != name.removesuffix(".dir"):
        files.remove(cached)
    return not cached.is_file()


# ── pushed ────────────────────────────────────────────────────────────────────────────────────────


def push_version(version: str) -> bool:
    """Push a data version, which data.dvc names, to the default remote; False when the remote is known to have it.

    Raises:
        SourceUnavailable: the remote cannot be reached, or data.dvc's files are not in the cache.
    """
    remote = _remote()
    if _is_pushed(version, remote):
        return False
    _push("push the data version", "data.dvc", [version], remote)
    if remote is not None:
        files.write_json(paths.pushed_data(), {"remote": remote.url, "version": version})
    return True


def push_made() -> None:
    """Push what the stages made, and the run cache that knows from what, to the default remote.

    Raises:
        SourceUnavailable: the remote cannot be reached.
    """
    lock = (settings.ROOT / "dvc.lock").read_text(encoding="utf-8")
    _push("push what the stages made", "dvc.yaml", sorted({*_NAMED.findall(lock)}), _remote(), run_cache=True)


def _push(purpose: str, target: str, objects: Iterable[str], remote: Remote | None, run_cache: bool = False) -> None:
    folder = remote.folder if remote and remote.folder else None
    with dvc(purpose) as repo, settings.for_others(folder or settings.VAR):
        if folder is not None:
            _drop_halves(folder, objects)
        repo.push(targets=[str(settings.ROOT / target)], run_cache=run_cache)


def _drop_halves(remote: Path, objects: Iterable[str]) -> None:
    """Remove from a remote that is a folder what a killed DVC wrote half: DVC takes any file there for a whole one.

    And the listing of a folder that is not all there: DVC takes it for a promise that its files are; without it, it
    looks.
    """
    for name in objects:
        parts = list(listing(name).values()) if name.endswith(".dir") else []
        halves = [each for each in (*parts, name) if not _is_whole(remote, each)]
        for each in {*halves, name} if halves else ():
            (remote / _object(each)).unlink(missing_ok=True)
    for left in (remote / "files" / "md5").glob("*/.*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED:  # another checkout may be writing there now
                left.unlink()


def _is_pushed(version: str, remote: Remote | None) -> bool:
    """In a folder the files themselves are looked at, as somebody may have removed them; else a note says so."""
    if remote is None:
        return False
    if remote.folder is None:
        return files.read_state(paths.pushed_data(), dict[str, str]()) == {"remote": remote.url, "version": version}
    if not _is_whole(remote.folder, version):
        return False
    return all(_is_whole(remote.folder, entry["md5"]) for entry in files.read_json(remote.folder / _object(version)))


def _is_whole(remote: Path, name: str) -> bool:
    """Whether a remote on this machine has an object, and not the beginning of it.

    A listing is read; a file, which may be large, is as large as the cache's.
    """
    pushed, cached = remote / _object(name), path_of(name)
    if not pushed.is_file():
        return False
    if name.endswith(".dir"):
        return files.md5(pushed) == name.removesuffix(".dir")
    return not cached.is_file() or pushed.stat().st_size == cached.stat().st_size


# ── the cache ─────────────────────────────────────────────────────────────────────────────────────


def is_cached(name: str) -> bool:
    """Whether the cache has an object by this name."""
    return path_of(name).is_file()


def path_of(name: str) -> Path:
    """Where the cache keeps an object."""
    return cache() / _object(name)


def listing(name: str) -> dict[str, str]:
    """The files of a folder, by their paths in it, as the cache lists them; empty where the cache does not have it."""
    if not is_cached(name):
        return {}
    return {entry["relpath"]: entry["md5"] for entry in files.read_json(path_of(name))}


def put(name: str, content: bytes | Path) -> None:
    """Have the cache hold an object: bytes, or what a file holds."""
    with files.replacing(path_of(name)) as beside:
        if isinstance(content, Path):
            shutil.copyfile(content, beside)
        else:
            beside.write_bytes(content)


def _object(name: str) -> str:
    """Where a cache or a remote of DVC keeps an object."""
    return f"files/md5/{name[:2]}/{name[2:]}"


# ── where they are ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Remote:
    """DVC's default remote, as .dvc/config names it."""

    url: str
    folder: Path | None
    """Where it is, when it is a folder on this machine."""


def remote_address() -> str | None:
    """Where the default remote is: a URL, or the absolute path of a folder; None where there is none."""
    remote = _remote()
    return None if remote is None else str(remote.folder or remote.url)


def _remote() -> Remote | None:
    config = _config()
    name = config.get("core", "remote", fallback=None)
    url = config.get(f"'remote \"{name}\"'", "url", fallback=None)
    if name is None or url is None:
        return None
    return Remote(url, None if "://" in url else (settings.ROOT / ".dvc" / url).resolve())


def cache() -> Path:
    """The folder of this clone's cache."""
    return settings.ROOT / ".dvc" / _config().get("cache", "dir", fallback="cache")


def share(clone: Path) -> None:
    """Have DVC in another clone of this project use the cache and the remote of this one."""
    config, remote = _config(), _remote()
    if not config.has_section("cache"):
        config.add_section("cache")
    config.set("cache", "dir", str(cache().resolve()))
    if remote is not None and remote.folder is not None:
        config.set(f"'remote \"{config.get('core', 'remote')}\"'", "url", str(remote.folder))
    path = clone / ".dvc" / "config.local"
    path.touch(mode=0o600)  # it may hold the credentials of this one's remote
    with path.open("w", encoding="utf-8") as file:
        config.write(file)


def _config() -> ConfigParser:
    """Read as DVC does (config, then config.local over it) but without importing it."""
    config = ConfigParser(interpolation=None)
    config.read([settings.ROOT / ".dvc" / name for name in ("config", "config.local")], encoding="utf-8")
    return config


# ── DVC ───────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def dvc(purpose: str) -> Iterator[Repo]:
    """DVC in this process, waiting for its lock; its errors, and its remotes' own, as one of ours."""
    from dvc.repo import Repo
    from dvc.utils.serialize import _yaml

    dvc_files.repair()
    dvc_files.write_whole(_yaml)
    logging.getLogger("dvc").setLevel(logging.WARNING)  # its advice is for somebody at a terminal
    # _wait_for_lock is not public; without it DVC gives up after three seconds (`dvc --wait-for-lock` sets the same)
    try:
        with Repo(str(settings.ROOT), _wait_for_lock=True) as repo:
            repo.scm_context.quiet = True  # no advice to `git add`: commits are the flow's
            yield repo
    except EvergreenError:
        raise
    except Exception as error:  # a remote's client raises exceptions of its own kind; none is swallowed
        raise SourceUnavailable(f"could not {purpose}: {_causes(error)}") from error


def _causes(error: BaseException) -> str:
    messages: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = addresses.masked(one_line(cause))
        if text and text not in messages:
            messages.append(text)
        cause = cause.__cause__
    return ": ".join(messages) or type(error).__name__
