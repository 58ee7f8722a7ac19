"""versions: which data there is, as DVC keeps it. The one module of this wing that touches DVC.

The data version is the MD5 in data.dvc. Whether anything changed is told without importing DVC (0.7 s): DVC's hash
of a folder is the MD5 of the JSON list of its files, and that is quickly made. Git commits are not made here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import yaml

from tasks import books, files, settings
from tasks.data import collect, hashes
from tasks.errors import DataMissing, DataVersionDiffers, EvergreenError, SourceUnavailable
from tasks.params import Params

if TYPE_CHECKING:
    from dvc.repo import Repo

IGNORED = (".*.tmp", "*.pyc")
"""As in .dvcignore: what is being written, and byte code."""

Listing = dict[str, str]
"""The files of a version: path below data/ → MD5."""


@dataclass(frozen=True)
class Version:
    """What data.dvc says."""

    md5: str
    nfiles: int | None
    size: int | None


# ── what there is ─────────────────────────────────────────────────────────────────────────────────


def current() -> str | None:
    """The data version that data.dvc names (an MD5 with `.dir`), or None when there is no data.dvc."""
    named = _named()
    return named.md5 if named else None


def present() -> bool:
    """Whether data/ holds exactly the version that data.dvc names (told without DVC)."""
    return current() is not None and dir_hash(tree()) == current()


def lacking() -> bool:
    """Whether data/ lacks files of the version that data.dvc names: `pull` brings them."""
    named = _named()
    return named is not None and not present() and (named.nfiles is None or len(tree()) < named.nfiles)


def tree() -> Listing:
    """The files in data/ now, as DVC would list them."""
    return _tree(settings.ROOT / "data")


def dir_hash(listing: Listing) -> str:
    """DVC's hash of a folder: the MD5 of the JSON list of its files by path, with `.dir` (dvc_data.hashfile.tree)."""
    entries = [{"md5": listing[name], "relpath": name} for name in sorted(listing)]
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _named() -> Version | None:
    try:
        text = (settings.ROOT / "data.dvc").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        out = yaml.safe_load(text)["outs"][0]
        return Version(str(out["md5"]), out.get("nfiles"), out.get("size"))
    except (yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise DataMissing(
            f"data.dvc names no data version ({' '.join(str(error).split())}). "
            f"`git checkout data.dvc` brings the committed one"
        ) from None


def _tree(folder: Path) -> Listing:
    found = [path for path in folder.rglob("*") if path.is_file() and not _ignored(path.relative_to(folder))]
    md5 = hashes.md5s(found)
    return {path.relative_to(folder).as_posix(): md5[path] for path in found}


def _ignored(path: Path) -> bool:
    return "__pycache__" in path.parts or any(fnmatch(part, pattern) for part in path.parts for pattern in IGNORED)


# ── making one ────────────────────────────────────────────────────────────────────────────────────


def make() -> str | None:
    """Bring data.dvc up to date with data/; gives the new data version, or None when nothing changed.

    Raises:
        DataMissing: data/ lacks files of the version that data.dvc names, or nobody can say which those are: a
            version only ever grows.
    """
    with files.lock("data"):
        before, now = current(), tree()
        if not now or dir_hash(now) == before:
            return None
        _only_grows(before, now)
        with _dvc("make a data version") as repo:
            repo.add([str(settings.ROOT / "data")])  # a relative target would be below the working directory
        after = current()
        return after if after != before else None


def files_of(version: str) -> Listing:
    """The files of a version, as far as the cache or the remote has its listing; else none."""
    return _listing(version)


def _only_grows(before: str | None, now: Listing) -> None:
    if before is None:
        return
    kept = _listing(before)
    if not kept:
        raise DataMissing(
            f"data.dvc names the data version {before}, which is neither in the cache nor in the remote: whether "
            f"data/ holds all of it cannot be told, so no new one was made. `make data` brings it; to begin anew, "
            f"remove data.dvc"
        )
    lost = sorted(name for name in kept if name not in now)
    changed = sorted(name for name in kept if name in now and now[name] != kept[name])
    if lost or changed:
        said = [f"{what}: {_some(which)}" for what, which in (("missing", lost), ("changed", changed)) if which]
        raise DataMissing(
            f"data/ does not hold all of the version that data.dvc names ({'; '.join(said)}): no new one was made. "
            f"`make data` brings them back; to take them out on purpose, `dvc add data` by hand"
        )


def _listing(version: str) -> Listing:
    """The files of a version, from the cache or the remote; empty when neither has it."""
    remote = _remote()
    folders = [_cache()] + ([remote.folder] if remote and remote.folder else [])
    for path in (folder / _object(version) for folder in folders):
        if path.exists():
            return {entry["relpath"]: entry["md5"] for entry in files.read_json(path)}
    if remote is None or remote.folder is not None:
        return {}
    with _dvc("read the listing of a data version") as repo:
        odb = repo.cloud.get_remote_odb()
        path = odb.oid_to_path(version)
        if not odb.fs.exists(path):
            return {}
        return {entry["relpath"]: entry["md5"] for entry in json.loads(odb.fs.cat_file(path))}


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


ABANDONED = 3600.0
"""Seconds after which nobody writes a half-written file of a remote any more."""


# ── the remote ────────────────────────────────────────────────────────────────────────────────────


def push() -> bool:
    """Bring the current version to the default remote; False when it is known to be there.

    Raises:
        SourceUnavailable: the remote cannot be reached, or data.dvc's files are not in the cache.
    """
    version, remote = current(), _remote()
    if version is None or _known_pushed(version, remote):
        return False
    with _dvc("push the data version") as repo:
        if remote is not None and remote.folder is not None and _cached(version):
            # DVC takes a listing in the remote for a promise that its files are there too; without it, it looks.
            # And a file that is there for a whole one: but it writes there directly, and may have been killed
            (remote.folder / _object(version)).unlink(missing_ok=True)
            for md5 in _listing(version).values():
                if not _whole(remote.folder, md5):
                    (remote.folder / _object(md5)).unlink(missing_ok=True)
            _sweep(remote.folder)
        repo.push(targets=[str(settings.ROOT / "data.dvc")])
    if remote is not None:
        files.write_json(_marker(), {"remote": remote.url, "version": version})
    return True


def pull() -> bool:
    """Bring the version that data.dvc names from the default remote into data/; False when it is there already.

    Raises:
        SourceUnavailable: the remote cannot be reached, or does not have all of it.
        DataVersionDiffers: data/ holds files that are in no version, which would be lost.
    """
    version = current()
    if version is None or present():
        return False
    target = str(settings.ROOT / "data.dvc")
    with files.lock("data"), _dvc("pull the data version") as repo:
        repo.fetch(targets=[target])
        listing = _listing(version)
        lacking = [name for name, md5 in listing.items() if not _cached(md5)]
        if lacking or not listing:
            what = _some(lacking) if lacking else version
            raise SourceUnavailable(f"could not pull the data version: the remote does not have {what}")
        _no_strangers(listing)
        repo.checkout(targets=[target], force=True)  # without force it may ask, and wait for an answer
    return True


def _sweep(folder: Path) -> None:
    """Remove what DVC left in a remote when it was killed; not what another checkout may be writing there now."""
    for left in (folder / "files" / "md5").glob("*/.*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink()


def push_made() -> None:
    """Bring what the stages made, and the run cache that knows from what, to the default remote.

    Raises:
        SourceUnavailable: the remote cannot be reached.
    """
    with _dvc("push what the stages made") as repo:
        repo.push(targets=[str(settings.ROOT / "dvc.yaml")], run_cache=True)


def join(version: str, commit: str) -> list[str]:
    """Make a version of what data/ holds and of another version, which `data.dvc` of a Git commit names.

    Gives the files that have other content there: theirs are kept, as they were first.

    Raises:
        SourceUnavailable: the remote cannot be reached, or does not have all of the other version.
    """
    if version == current():
        return []
    with files.lock("data"), _dvc("bring another worker's data version") as repo:
        repo.fetch(targets=["data.dvc"], revs=[commit], workspace=False)
        theirs, here = _listing(version), tree()
        if lacking := [name for name, md5 in theirs.items() if not _cached(md5)]:
            raise SourceUnavailable(f"another worker's data version {version} is not in the remote: {_some(lacking)}")
        for name, md5 in theirs.items():
            if here.get(name) != md5:
                with files.replacing(settings.ROOT / "data" / name) as beside:
                    shutil.copyfile(_cache() / _object(md5), beside)
        repo.add([str(settings.ROOT / "data")])
    return [name for name, md5 in theirs.items() if here.get(name, md5) != md5]


@dataclass(frozen=True)
class Remote:
    """DVC's default remote, as .dvc/config names it."""

    name: str
    url: str
    folder: Path | None
    """Where it is, when it is a folder on this machine."""


def _remote() -> Remote | None:
    """The default remote, read as DVC does (config, then config.local over it) but without importing it."""
    config = ConfigParser(interpolation=None)
    folder = settings.ROOT / ".dvc"
    config.read([folder / "config", folder / "config.local"], encoding="utf-8")
    name = config.get("core", "remote", fallback=None)
    url = config.get(f"'remote \"{name}\"'", "url", fallback=None)
    if name is None or url is None:
        return None
    return Remote(name, url, None if "://" in url else (folder / url).resolve())


def _cache() -> Path:
    config = ConfigParser(interpolation=None)
    folder = settings.ROOT / ".dvc"
    config.read([folder / "config", folder / "config.local"], encoding="utf-8")
    return folder / config.get("cache", "dir", fallback="cache")


def _known_pushed(version: str, remote: Remote | None) -> bool:
    """A folder is asked for the files themselves, as somebody may have removed them; for others a marker says so."""
    if remote is None:
        return False
    if remote.folder is None:
        marker = _marker()
        return marker.exists() and bool(files.read_json(marker) == {"remote": remote.url, "version": version})
    listing = remote.folder / _object(version)
    if not listing.is_file() or files.md5(listing) != version.removesuffix(".dir"):
        return False
    return all(_whole(remote.folder, entry["md5"]) for entry in files.read_json(listing))


def _whole(folder: Path, md5: str) -> bool:
    """Whether a remote on this machine has a file, and not the beginning of it; told without reading it."""
    there, here = folder / _object(md5), _cache() / _object(md5)
    return there.is_file() and (not here.is_file() or there.stat().st_size == here.stat().st_size)


def _object(md5: str) -> str:
    """Where a cache or a remote of DVC keeps what hashes to this."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def _marker() -> Path:
    return settings.VAR / "memo" / "pushed.json"


# ── bringing one back ─────────────────────────────────────────────────────────────────────────────


def restore_from_upstream(params: Params, log: Callable[[str], object] = print) -> bool:
    """Bring the version that data.dvc names into data/: from the remote, else by asking the upstream again.

    What the upstream gives is accepted only when it hashes to the same version. False when it is there already.

    Raises:
        DataVersionDiffers: the upstream gives something else now, or data/ holds files that are in no version.
        DataMissing: there is no data.dvc, or neither the remote nor an upstream has its version.
    """
    named = _named()
    if named is None:
        raise DataMissing("there is no data.dvc: no data version was made yet. Let partitions arrive and run ingest")
    if present():
        log(f"data/ holds {named.md5} already")
        return False
    try:
        pull()
    except SourceUnavailable as error:
        if params.upstream is None:
            raise DataMissing(f"{error}. params.yaml names no upstream that could be asked for it again") from error
        log("the remote does not have it; asking the upstream again")
    else:
        log(f"brought {named.md5} from the remote")
        return True
    _from_upstream(named, params, log)
    return True


def _from_upstream(named: Version, params: Params, log: Callable[[str], object]) -> None:
    settings.VAR.mkdir(parents=True, exist_ok=True)
    with files.lock("data"), TemporaryDirectory(dir=settings.VAR, prefix="restore-") as staging:
        folder = Path(staging)
        asked = _ask(named, params, folder, log)
        given = _tree(folder)
        if dir_hash(given) != named.md5:
            raise DataVersionDiffers(_difference(named, given, asked, folder))
        _no_strangers(given)
        for name in [name for name in tree() if name not in given]:
            files.remove(settings.ROOT / "data" / name)  # of another version, and in the cache
        for name in given:
            target = settings.ROOT / "data" / name
            with files.replacing(target) as beside:
                shutil.move(folder / name, beside)
        with _dvc("put the data version into the cache") as repo:
            repo.commit(str(settings.ROOT / "data.dvc"), force=True)
    log(f"brought {named.md5} from the upstream: {len(given)} partitions, the hash is the same")
    push()


def _ask(named: Version, params: Params, folder: Path, log: Callable[[str], object]) -> list[str]:
    """Ask for partitions, oldest first, until there are as many files as data.dvc names; gives the partitions."""
    source = collect.upstream(params)
    asked, count = [], 0
    for partition in source.partitions():
        if named.nfiles is not None and count >= named.nfiles:
            break
        for dataset, name, content in collect.offered(source, params.datasets, partition):
            target = folder / dataset / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            count += 1
        asked.append(partition)
        log(f"asked for {partition}")
    return asked


def _difference(named: Version, given: Listing, asked: list[str], folder: Path) -> str:
    """Which partitions are not what data.dvc names, where that is known; else what can be said."""
    if not asked:
        return f"the upstream has no partitions, and data.dvc names {named.md5}"
    size = sum((folder / name).stat().st_size for name in given)
    said = (
        f"it gave {len(given)} files of {size:,} bytes, data.dvc names {named.nfiles} of {named.size or 0:,}; which "
        f"partition differs is not known, as neither the cache nor the remote has the listing of that version"
    )
    if kept := _listing(named.md5):
        which = sorted(name for name in {*kept, *given} if kept.get(name) != given.get(name))
        said = f"these differ: {_some(which)}"
    return (
        f"the upstream ({asked[0]} to {asked[-1]}) gives {dir_hash(given)}, and data.dvc names {named.md5}: {said}. "
        f"Nothing was put into data/. Is data.dvc the committed one, and the upstream the one in requirements.lock? "
        f"Otherwise pull from a remote that has the version"
    )


def _no_strangers(wanted: Listing) -> None:
    """Stop before anything in data/ is lost: what is neither wanted nor in the cache is in no version."""
    if strangers := sorted(name for name, md5 in tree().items() if wanted.get(name) != md5 and not _cached(md5)):
        raise DataVersionDiffers(
            f"data/ holds files that the version in data.dvc does not: {_some(strangers)}. They are in no version: "
            f"move them away (or back to the landing zone), then run again"
        )


def _cached(md5: str) -> bool:
    return (_cache() / _object(md5)).is_file()


# ── DVC ───────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _dvc(purpose: str) -> Iterator[Repo]:
    """DVC in this process, waiting for whoever holds its lock; its errors, and its remotes' own, as one of ours."""
    from dvc.repo import Repo
    from dvc.utils.serialize import _yaml

    books.mend()
    books.write_whole(_yaml)
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
    """What DVC says, and what it says it of."""
    said: list[str] = []
    at: BaseException | None = error
    while at is not None:
        text = collect.masked(" ".join(str(at).split()))
        if text and text not in said:
            said.append(text)
        at = at.__cause__
    return ": ".join(said) or type(error).__name__
