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
from collections.abc import Callable, Collection, Iterable, Iterator
from configparser import ConfigParser
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tasks.data import delivery, file_hashes, revisions
from tasks.data.revisions import Histories, Listing, Side
from tasks.ground import dvc_files, files, ledger, paths, settings, storage, yaml_reader
from tasks.ground.errors import (
    DataMissing,
    DataVersionDiffers,
    EvergreenError,
    Mistake,
    SourceUnavailable,
    did_you_mean,
)
from tasks.ground.params import Params

if TYPE_CHECKING:
    from dvc.repo import Repo

IGNORED = (".*.tmp", "*.pyc")
"""As in .dvcignore: what is being written, and byte code."""


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


def behind() -> bool:
    """Whether data/ is not the version that data.dvc names: `catch_up` brings what it lacks."""
    return current() is not None and not present()


def tree() -> Listing:
    """The files in data/ now, as DVC would list them."""
    return _tree(settings.ROOT / "data")


def dir_hash(listing: Listing) -> str:
    """DVC's hash of a folder: the MD5 of the JSON list of its files by path, with `.dir` (dvc_data.hashfile.tree)."""
    entries = [{"md5": listing[name], "relpath": name} for name in sorted(listing)]
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _named() -> Version | None:
    path = settings.ROOT / "data.dvc"
    return parse(path.read_text(encoding="utf-8")) if path.exists() else None


def parse(text: str) -> Version:
    """What the text of a data.dvc says.

    Raises:
        DataMissing: it names no data version; says what to do.
    """
    try:
        out = yaml_reader.load(text)["outs"][0]
        return Version(str(out["md5"]), out.get("nfiles"), out.get("size"))
    except (yaml_reader.YAMLError, KeyError, IndexError, TypeError) as error:
        if "<<<<<<<" in text:
            raise DataMissing(
                "data.dvc holds both sides of a merge: `evergreen merge` makes the data version of both"
            ) from None
        raise DataMissing(
            f"data.dvc names no data version ({' '.join(str(error).split())}). "
            f"`git checkout HEAD -- data.dvc` brings the committed one"
        ) from None


def _tree(folder: Path) -> Listing:
    found = [path for path in folder.rglob("*") if path.is_file() and not _ignored(path.relative_to(folder))]
    md5 = file_hashes.md5s(found)
    return {path.relative_to(folder).as_posix(): md5[path] for path in found}


def _ignored(path: Path) -> bool:
    return "__pycache__" in path.parts or any(fnmatch(part, pattern) for part in path.parts for pattern in IGNORED)


# ── making one ────────────────────────────────────────────────────────────────────────────────────


def make(why: str = "delivered") -> str | None:
    """Bring data.dvc up to date with data/; gives the new data version, or None when nothing changed.

    A partition may be other than it was, or gone, if that was noted when it was accepted or taken out
    (`revisions.plan`); it gets a revision. Every other file of the version before must be in the new one.

    Args:
        why: what the revisions came of, for the journal.

    Raises:
        DataMissing: data/ lacks files of the version that data.dvc names, or nobody can say which those are.
    """
    with files.lock("data"):
        before, now, taken = current(), tree(), revisions.planned()
        if not (now or taken) or dir_hash(now) == before:
            revisions.end_plan()
            return None
        kept = _nothing_lost(before, now, taken) if before else {}
        histories = revisions.followed(revisions.read(), kept, now)
        return _made(before, histories, why)


def _made(before: str | None, histories: Histories, why: str) -> str | None:
    """Make a version of data/; the histories first, so that no version lacks what it says.

    Killed in between, the histories is ahead of the version, and the next one corrects it.
    """
    path, known = settings.ROOT / "data.dvc", revisions.read()
    if histories != known:
        files.write_text(path, revisions.written(path.read_text(encoding="utf-8"), histories))
        _note(histories, known, why)
    with _dvc("make a data version") as repo:
        # a relative target would be below the working directory
        dvc_files.wait_for_others(lambda: repo.add([str(settings.ROOT / "data")]))
    revisions.end_plan()
    after = current()
    return after if after != before else None


def _note(histories: Histories, known: Histories, why: str) -> None:
    """Keep when a revision came: data.dvc holds no times."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    for partition, history in sorted(histories.items()):
        for number in range(len(known.get(partition, [])) + 1, len(history) + 1):
            if number > 1:
                line = {
                    "at": at,
                    "partition": partition,
                    "revision": number,
                    "md5": history[number - 1].md5,
                    "why": why,
                }
                ledger.append(journal(), line)


def journal() -> Path:
    """Where it is kept when each revision was made here, a line each."""
    return paths.revisions()


def content(md5: str) -> Path:
    """The file that has this MD5, in the cache; brought from the remote when it is lacking.

    Raises:
        DataMissing: neither has it.
        SourceUnavailable: the remote cannot be reached.
    """
    cached = _cache() / _object(md5)
    if not cached.is_file():
        with _dvc("bring a former revision") as repo:
            odb = repo.cloud.get_remote_odb()
            path = odb.oid_to_path(md5)
            if odb.fs.exists(path):
                with files.replacing(cached) as beside:
                    odb.fs.get_file(path, str(beside))
                    _check(beside, md5)
    if not cached.is_file():
        raise DataMissing(
            f"its content ({md5}) is neither in DVC's cache nor in its remote: was it collected as garbage?"
        )
    return cached


def _check(path: Path, md5: str) -> None:
    if files.md5(path) != md5:
        raise SourceUnavailable(f"the remote gives something else than {md5} under that name: it is damaged there")


def files_of(version: str) -> Listing:
    """The files of a version, as far as the cache or the remote has its listing; else none."""
    return _listing(version)


def _nothing_lost(before: str, now: Listing, taken: Collection[str]) -> Listing:
    """The files of the version before, of which none may be missing or changed that was not taken."""
    kept = _listing(before)
    if not kept:
        raise DataMissing(
            f"data.dvc names the data version {before}, which is neither in the cache nor in the remote: whether "
            f"data/ holds all of it cannot be told, so no new one was made. `evergreen data` brings it; to begin anew, "
            f"remove data.dvc"
        )
    other = sorted(n for n, md5 in kept.items() if now.get(n) != md5 and revisions.partition_of(n) not in taken)
    lost, changed = [name for name in other if name not in now], [name for name in other if name in now]
    if other:
        said = [f"{what}: {_some(which)}" for what, which in (("missing", lost), ("changed", changed)) if which]
        raise DataMissing(
            f"data/ does not hold all of the version that data.dvc names ({'; '.join(said)}): no new one was made. "
            f"`evergreen data` brings them back; a correction goes through the landing zone, and what is to go is taken "
            f"out by `evergreen withdraw`"
        )
    return kept


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
        with settings.for_others(remote.folder if remote and remote.folder else settings.VAR):
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
        _no_strangers(_bring(repo, version))
        # without force it may ask, and wait for an answer
        dvc_files.wait_for_others(lambda: repo.checkout(targets=[target], force=True))
    return True


def catch_up() -> list[str]:
    """Bring what data/ lacks of the version that data.dvc names, or has in another revision; gives the partitions.

    What is in no version stays: it was accepted by an ingest that was killed, or put there by hand, and `make` says so.

    Raises:
        SourceUnavailable: the remote cannot be reached, or does not have all of it.
    """
    with files.lock("data"), _dvc("bring the data version") as repo:
        listing = _bring(repo, str(current()))
        wanted, here, histories = revisions.by_partition(listing), revisions.by_partition(tree()), revisions.read()
        brought = []
        for partition in sorted({*wanted, *here}):
            there, named = here.get(partition, {}), wanted.get(partition, {})
            is_new = any(not _cached(md5) for name, md5 in there.items() if named.get(name) != md5)
            if there == named or is_new or (not named and partition not in histories):
                continue
            for name in there.keys() - named.keys():
                files.remove(settings.ROOT / "data" / name)
            for name, md5 in named.items():
                _place(name, md5)
            brought.append(partition)
    return brought


def _bring(repo: Repo, version: str) -> Listing:
    """Fetch the version that data.dvc names into the cache; gives its files.

    What data/ lacks of it is hashed there, as DVC is content with a file of the right name: a damaged one is fetched
    again, so that what stands in data/ afterwards is what the version says.

    Raises:
        SourceUnavailable: the remote cannot be reached, does not have all of it, or has a damaged file.
    """
    _drop_damaged([version])
    repo.fetch(targets=[str(settings.ROOT / "data.dvc")])
    lacking = set(_fetched(version).values()) - set(tree().values())
    if damaged := _drop_damaged(lacking):
        repo.fetch(targets=[str(settings.ROOT / "data.dvc")])
    if again := _drop_damaged(damaged):
        raise SourceUnavailable(f"{again[0]} is damaged in the remote: push it again from a checkout that has it")
    return _fetched(version)


def _drop_damaged(objects: Iterable[str]) -> list[str]:
    """Take out of the cache what does not hash to its name; gives these names."""
    damaged = []
    for name in objects:
        cached = _cache() / _object(name)
        if cached.is_file() and files.md5(cached) != name.removesuffix(".dir"):
            files.remove(cached)
            damaged.append(name)
    return damaged


def _fetched(version: str) -> Listing:
    """The files of a version that was fetched.

    Raises:
        SourceUnavailable: the remote did not have all of them.
    """
    listing = _listing(version)
    lacking = [name for name, md5 in listing.items() if not _cached(md5)]
    if lacking or not listing:
        what = _some(lacking) if lacking else version
        raise SourceUnavailable(f"could not pull the data version: the remote does not have {what}")
    return listing


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
    remote = _remote()
    folder = remote.folder if remote and remote.folder else settings.VAR
    with _dvc("push what the stages made") as repo, settings.for_others(folder):
        repo.push(targets=[str(settings.ROOT / "dvc.yaml")], run_cache=True)


def join(text: str, commit: str, base: str | None) -> list[str]:
    """Make a version of what data/ holds and of the version that another worker's data.dvc names.

    Gives the partitions of which both took another content since `base`: theirs counts, ours is a former revision.

    Args:
        text: their data.dvc, which stands in the Git commit `commit`.
        commit: where DVC is to look for what it names.
        base: the data.dvc that both began from.

    Raises:
        SourceUnavailable: the remote cannot be reached, or does not have all of the other version.
    """
    version = parse(text).md5
    if version == current():
        return []
    with files.lock("data"), _dvc("bring another worker's data version") as repo:
        repo.fetch(targets=["data.dvc"], revs=[commit], workspace=False)
        theirs, ours = side(text), Side(tree(), revisions.read())
        if lacking := [name for name, md5 in theirs.listing.items() if not _cached(md5)]:
            raise SourceUnavailable(f"another worker's data version {version} is not in the remote: {_some(lacking)}")
        was = side(base) if base else Side({}, {})
        every = {*revisions.by_partition(ours.listing), *revisions.by_partition(theirs.listing)}
        joined, conflicts = revisions.join(was, ours, theirs, every)
        _lay_down(joined.listing)
        _made(None, joined.histories, "of another worker")
    return conflicts


def join_merge(
    base: str | None, ours: str, theirs: str, ours_for: Collection[str], theirs_for: Collection[str]
) -> Side:
    """Make the data version of both sides of a Git merge; gives what it holds.

    Args:
        base: the data.dvc that both began from, if any.
        ours: the data.dvc of the branch that is checked out.
        theirs: that of the other.
        ours_for: the partitions of which ours counts, where both have another content.
        theirs_for: those of which theirs does.

    Raises:
        Mistake: ours_for or theirs_for name what is no such partition, or both the same.
        DataVersionDiffers: both sides took another content of a partition; or data/ holds what is in no version.
        SourceUnavailable: neither the cache nor the remote has all of both versions.
    """
    path = settings.ROOT / "data.dvc"
    with files.lock("data"):
        both = path.read_bytes()
        try:
            sides = [_fetched_side(text) for text in (base, ours, theirs)]
            joined, conflicts = revisions.join(sides[0], sides[1], sides[2], theirs_for)
            _decided(conflicts, ours_for, theirs_for)
            _no_strangers(joined.listing)
        except BaseException:
            path.write_bytes(both)
            raise
        files.write_text(path, ours)
        _lay_down(joined.listing)
        _made(None, joined.histories, "of both sides of a merge")
    return joined


def _decided(conflicts: list[str], ours: Collection[str], theirs: Collection[str]) -> None:
    by_hand = {*ours, *theirs}
    if both := sorted({*ours} & {*theirs}):
        raise Mistake(f"{_some(both)}: either ours counts or theirs, and both are named")
    if strange := sorted(by_hand - {*conflicts}):
        raise Mistake(
            f"{strange[0]}: there is nothing to decide{did_you_mean(strange[0], conflicts)}. Nothing was changed"
        )
    if undecided := sorted(name for name in conflicts if name not in by_hand):
        raise DataVersionDiffers(f"both sides have another content of {_some(undecided)}")


def _fetched_side(text: str | None) -> Side:
    """What a data.dvc names, with all of its files in the cache."""
    if text is None:
        return Side({}, {})
    files.write_text(settings.ROOT / "data.dvc", text)
    with _dvc("bring a side of the merge") as repo:
        return Side(_bring(repo, parse(text).md5), revisions.parse(text))


def side(text: str) -> Side:
    """What a data.dvc names: the files of its version as far as their listing can be had, and its histories."""
    return Side(_listing(parse(text).md5), revisions.parse(text))


def _lay_down(wanted: Listing) -> None:
    """Bring data/ to these files, which are in data/ already or in the cache."""
    here = tree()
    for name in here.keys() - wanted.keys():
        files.remove(settings.ROOT / "data" / name)
    for name, md5 in wanted.items():
        if here.get(name) != md5:
            _place(name, md5)


def _place(name: str, md5: str) -> None:
    """Copy a file from the cache into data/."""
    with files.replacing(settings.ROOT / "data" / name) as beside:
        shutil.copyfile(_cache() / _object(md5), beside)


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
        return files.read_state(_marker(), dict[str, str]()) == {"remote": remote.url, "version": version}
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
    return paths.pushed_data()


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
            dvc_files.wait_for_others(lambda: repo.commit(str(settings.ROOT / "data.dvc"), force=True))
    log(f"brought {named.md5} from the upstream: {len(given)} partitions, the hash is the same")
    push()


def _ask(named: Version, params: Params, folder: Path, log: Callable[[str], object]) -> list[str]:
    """Ask for partitions, oldest first, until there are as many files as data.dvc names; gives the partitions."""
    source = delivery.upstream(params)
    asked, count = [], 0
    for partition in source.partitions():
        if named.nfiles is not None and count >= named.nfiles:
            break
        for dataset, name, content in delivery.offered(source, params.datasets, partition):
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

    dvc_files.mend()
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
    """What DVC says, and what it says it of."""
    said: list[str] = []
    at: BaseException | None = error
    while at is not None:
        text = storage.masked(" ".join(str(at).split()))
        if text and text not in said:
            said.append(text)
        at = at.__cause__
    return ": ".join(said) or type(error).__name__
