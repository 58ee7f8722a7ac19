"""Data versions, as DVC keeps them: made, pushed, pulled, joined.

The data version is the MD5 in data.dvc. Whether anything changed is known without importing DVC (0.7 s): DVC's hash
of a folder is the MD5 of the JSON list of its files. Git commits are not made here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data import dvc_store, file_hashes, revisions
from tasks.data.revisions import Histories, Listing, Side
from tasks.ground import dvc_files, files, settings, yaml_reader
from tasks.ground.errors import DataMissing, DataVersionDiffers, SourceUnavailable
from tasks.ground.words import listed
from tasks.journal import journal

if TYPE_CHECKING:
    pass

_log = logging.getLogger("evergreen")

IGNORED = (".*.tmp", "*.pyc")
"""As in .dvcignore: what is being written, and byte code."""

FOUND = "was there: brought by Git, made by a run that was killed, or older than the journal"
"""Why the journal tells of a data version that it had no line of."""

ABANDONED = 3600.0
"""Seconds after which a half-written file of a remote has no writer any more."""


@dataclass(frozen=True)
class DataVersion:
    """The entry of data.dvc."""

    md5: str
    nfiles: int | None
    size: int | None


# ── what there is ─────────────────────────────────────────────────────────────────────────────────


def current() -> str | None:
    """The data version that data.dvc names (an MD5 with `.dir`), or None when there is no data.dvc."""
    named_version = named()
    return named_version.md5 if named_version else None


def present() -> bool:
    """Whether data/ holds exactly the version that data.dvc names; DVC is not needed for it."""
    return current() is not None and dir_hash(tree()) == current()


def behind() -> bool:
    """Whether data/ is not the version that data.dvc names: `catch_up` fetches what it lacks."""
    return current() is not None and not present()


def tree(folder: Path | None = None) -> Listing:
    """The files in data/ now (or in another folder), as DVC would list them."""
    folder = folder or settings.ROOT / "data"
    paths = [path for path in folder.rglob("*") if path.is_file() and not _ignored(path.relative_to(folder))]
    return {path.relative_to(folder).as_posix(): md5 for path, md5 in file_hashes.md5s(paths).items()}


def _ignored(path: Path) -> bool:
    return "__pycache__" in path.parts or any(fnmatch(part, pattern) for part in path.parts for pattern in IGNORED)


def dir_hash(listing: Listing) -> str:
    """DVC's hash of a folder: the MD5 of the list of its files, with `.dir`."""
    return hashlib.md5(_as_dvc_lists(listing), usedforsecurity=False).hexdigest() + ".dir"


def _as_dvc_lists(listing: Listing) -> bytes:
    """The files by path, as JSON (dvc_data.hashfile.tree)."""
    return json.dumps([{"md5": listing[name], "relpath": name} for name in sorted(listing)], sort_keys=True).encode()


def named() -> DataVersion | None:
    """What data.dvc names; None when there is no data.dvc."""
    path = settings.ROOT / "data.dvc"
    return parse(path.read_text(encoding="utf-8")) if path.exists() else None


def parse(text: str) -> DataVersion:
    """The data version in the text of a data.dvc.

    Raises:
        DataMissing: it names none; says what to do.
    """
    try:
        out = yaml_reader.load(text)["outs"][0]
        return DataVersion(str(out["md5"]), out.get("nfiles"), out.get("size"))
    except (yaml_reader.YAMLError, KeyError, IndexError, TypeError) as error:
        if "<<<<<<<" in text:
            raise DataMissing(
                "data.dvc holds both sides of a merge: `evergreen merge` makes the data version of both"
            ) from None
        raise DataMissing(
            f"data.dvc names no data version ({' '.join(str(error).split())}). "
            f"`git checkout HEAD -- data.dvc` brings the committed one"
        ) from None


# ── making one ────────────────────────────────────────────────────────────────────────────────────


def make(why: str = "delivered") -> str | None:
    """Bring data.dvc up to date with data/; gives the new data version, or None when nothing changed.

    A partition may be changed or gone if that was planned when it was accepted or taken out (`revisions.plan`); it gets
    a revision. Every other file of the version before must be in the new one.

    Args:
        why: the cause of the revisions, for the journal.

    Raises:
        DataMissing: data/ lacks files of the version that data.dvc names, or these are unknown.
    """
    with files.lock("data"):
        before, now, planned = current(), tree(), revisions.planned()
        if not (now or planned) or dir_hash(now) == before:
            revisions.end_plan()
            note(FOUND)
            return None
        kept = _nothing_lost(before, now, planned) if before else {}
        _note(before, kept, FOUND)
        return _make(before, revisions.followed(revisions.read(), kept, now), why)


def _make(before: str | None, histories: Histories, why: str) -> str | None:
    """Make a version of data/; the histories first, so that no version lacks its own.

    Killed in between, the histories are ahead of the version, and the next one corrects them.
    """
    path, former = settings.ROOT / "data.dvc", revisions.read()
    if histories != former:
        files.write_text(path, revisions.written(path.read_text(encoding="utf-8"), histories))
    with dvc_store.dvc("make a data version") as repo:
        # a relative target would be below the working directory
        dvc_files.wait_for_others(lambda: repo.add([str(settings.ROOT / "data")]))
    revisions.end_plan()
    note(why)
    after = current()
    return after if after != before else None


def note(why: str) -> None:
    """Have the journal say which data version there is, what came with it, and why; once each."""
    _note(current(), tree(), why)


def _note(version: str | None, now: Listing, why: str) -> None:
    last = journal.last(journal.PLATFORM, "data")
    before = last.what.get("version") if last else None
    if version is None or version == before:
        return
    was = dvc_store.listing(before) if before else {}
    changed = revisions.differences(was, now)
    files_now = {name: now[name] for name in (*changed["came"], *changed["revised"]) if name in now}
    what = {"version": version, "before": before, "came": files_now, "withdrawn": changed["withdrawn"]}
    partitions = {revisions.partition_of(name) for names in changed.values() for name in names}
    numbers = {name: len(history) for name, history in revisions.read().items() if name in partitions}
    journal.append(journal.PLATFORM, "data", {**what, "revisions": numbers}, why)


def content(md5: str) -> Path:
    """The file that has this MD5, in the cache; fetched from the remote when it is lacking.

    Raises:
        DataMissing: neither has it.
        SourceUnavailable: the remote cannot be reached, or has another content by that name.
    """
    if not dvc_store.is_cached(md5):
        dvc_store.fetch([md5], "bring a former revision")
    if not dvc_store.is_cached(md5):
        raise DataMissing(
            f"its content ({md5}) is neither in DVC's cache nor in its remote: was it collected as garbage?"
        )
    return dvc_store.path_of(md5)


def _nothing_lost(before: str, now: Listing, planned: Collection[str]) -> Listing:
    """The files of the version before, of which only planned ones may be missing or changed."""
    kept = files_of(before)
    if not kept:
        raise DataMissing(
            f"data.dvc names the data version {before}, which is neither in the cache nor in the remote: whether "
            f"data/ holds all of it cannot be told, so no new one was made. `evergreen data` brings it; to begin anew, "
            f"remove data.dvc"
        )
    other = sorted(n for n, md5 in kept.items() if now.get(n) != md5 and revisions.partition_of(n) not in planned)
    lost, changed = [name for name in other if name not in now], [name for name in other if name in now]
    if other:
        differences = [
            f"{what}: {listed(names, 5)}" for what, names in (("missing", lost), ("changed", changed)) if names
        ]
        raise DataMissing(
            f"data/ does not hold all of the version that data.dvc names ({'; '.join(differences)}): no new one was "
            f"made. `evergreen data` brings them back; a correction goes through the landing zone, and "
            f"`evergreen withdraw` takes a partition out"
        )
    return kept


def files_of(version: str) -> Listing:
    """The files of a version, from the cache or the remote; empty when neither has its listing."""
    if not dvc_store.is_cached(version) and dvc_store.remote_address():
        dvc_store.fetch([version], "read the listing of a data version")
    return dvc_store.listing(version)


# ── the remote ────────────────────────────────────────────────────────────────────────────────────


def push() -> bool:
    """Push the current version to the default remote; False when the remote is known to have it.

    Raises:
        SourceUnavailable: the remote cannot be reached, or data.dvc's files are not in the cache.
    """
    version = current()
    return version is not None and dvc_store.push_version(version)


def pull() -> bool:
    """Bring the version that data.dvc names from the default remote into data/; False when it is there already.

    Raises:
        SourceUnavailable: the remote cannot be reached, or does not have all of it.
        DataVersionDiffers: data/ holds files that are in no version, which would be lost.
    """
    version = current()
    if version is None or present():
        return False
    with files.lock("data"):
        refuse_strangers(_fetch_version(version))
        with dvc_store.dvc("pull the data version") as repo:
            # without force it may ask, and wait for an answer
            checkout = partial(repo.checkout, targets=[str(settings.ROOT / "data.dvc")], force=True)
            dvc_files.wait_for_others(checkout)
        note("brought from the remote")
    return True


def fetch(version: str) -> None:
    """Have the cache hold all files of any version.

    Raises:
        SourceUnavailable: it lacks some, and the remote cannot be reached or does not have them.
    """
    _fetch_version(version)


def catch_up() -> list[str]:
    """Fetch what data/ lacks of the version that data.dvc names, or has in another revision; gives the partitions.

    Files that are in no version stay: an ingest that was killed had accepted them, or a person put them there, and
    `make` decides.

    Raises:
        SourceUnavailable: the remote cannot be reached, or does not have all of it.
    """
    with files.lock("data"):
        wanted = revisions.by_partition(_fetch_version(str(current())))
        current_files, histories = revisions.by_partition(tree()), revisions.read()
        brought = []
        for partition in sorted({*wanted, *current_files}):
            have, want = current_files.get(partition, {}), wanted.get(partition, {})
            is_new = any(not dvc_store.is_cached(md5) for name, md5 in have.items() if want.get(name) != md5)
            if have != want and not is_new and (want or partition in histories):
                _replace(have, want)
                brought.append(partition)
        if present():
            note("brought from the remote")
    return brought


def _fetch_version(version: str) -> Listing:
    """Fetch all of a version into the cache; gives its files.

    What data/ lacks of it is hashed in the cache, so that data/ afterwards is exactly the version.
    """
    purpose = "pull the data version"
    dvc_store.fetch([version], purpose)
    listing, here = files_of(version), set(tree().values())
    dvc_store.fetch([md5 for md5 in listing.values() if md5 not in here or not dvc_store.is_cached(md5)], purpose)
    lacking = [name for name, md5 in listing.items() if not dvc_store.is_cached(md5)]
    if lacking or not listing:
        what = listed(lacking, 5) if lacking else version
        raise SourceUnavailable(
            f"could not {purpose}: the remote does not have {what} (whole): push it from a checkout that has it"
        )
    return listing


# ── joining two ───────────────────────────────────────────────────────────────────────────────────


def side(text: str | None) -> Side:
    """What a data.dvc names, with all of its files in the cache; nothing where there is no data.dvc.

    Raises:
        SourceUnavailable: neither the cache nor the remote has all of it.
    """
    return Side(_fetch_version(parse(text).md5), revisions.parse(text)) if text is not None else Side({}, {})


def adopt(joined: Side, why: str) -> None:
    """Make a version of files that are in data/ or in the cache, with their histories; the lock `data` is held."""
    _replace(tree(), joined.listing)
    _make(None, joined.histories, why)


def _replace(have: Listing, want: Listing) -> None:
    """Bring data/ from some files to others, which are in data/ already or in the cache."""
    for name in have.keys() - want.keys():
        files.remove(settings.ROOT / "data" / name)
    for name, md5 in want.items():
        if have.get(name) != md5:
            with files.replacing(settings.ROOT / "data" / name) as beside:
                shutil.copyfile(dvc_store.path_of(md5), beside)


def refuse_strangers(wanted: Listing) -> None:
    """Stop before anything in data/ is lost: a file that is neither wanted nor in the cache is in no version."""
    if strangers := sorted(
        name for name, md5 in tree().items() if wanted.get(name) != md5 and not dvc_store.is_cached(md5)
    ):
        raise DataVersionDiffers(
            f"data/ holds files that the version in data.dvc does not: {listed(strangers, 5)}. They are in no version: "
            f"move them away (or back to the landing zone), then run again"
        )


def put_into_cache(folder: Path, listing: Listing) -> None:
    """Have the cache hold a version of which a folder holds the files: `pull` brings it then."""
    for name, md5 in listing.items():
        dvc_store.put(md5, folder / name)
    dvc_store.put(dir_hash(listing), _as_dvc_lists(listing))
