"""Revisions of partitions: which contents of each counted, oldest first; the last one counts now.

Kept in data.dvc beside the data version, as DVC leaves `meta` to its users:

    outs: …
    meta:
      revisions:
        flights/2013-02:
        - {file: 2013-02.csv, md5: 3f0c…}
        - {file: 2013-02.parquet, md5: 9ab1…}
        - {withdrawn: true}

A partition that was never revised is not in it, and no time is: equal deliveries give equal files. The content of a
former revision is in DVC's cache and remote, under its MD5, as long as nobody collects garbage there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tasks.ground import files, paths, settings, yaml_reader
from tasks.ground.errors import DataMissing
from tasks.journal import journal

Listing = dict[str, str]
"""The files of a version: path below data/ → MD5."""


@dataclass(frozen=True)
class Revision:
    """One content of a partition; with neither file nor MD5, that it was withdrawn."""

    file: str = ""
    md5: str = ""

    @property
    def withdrawn(self) -> bool:
        """Whether the partition does not count."""
        return not self.md5

    def __str__(self) -> str:
        return "withdrawn" if self.withdrawn else f"{self.file} {self.md5[:10]}"


Histories = dict[str, list[Revision]]
"""Partition (`<dataset>/<partition>`) → its revisions, oldest first."""


def partition_of(name: str) -> str:
    """The partition of a file: `flights/2013-02.csv` is of `flights/2013-02`."""
    return PurePosixPath(name).with_suffix("").as_posix()


def by_partition(listing: Mapping[str, str]) -> dict[str, Listing]:
    """Partition → its files, of which there is one where all is well."""
    grouped: dict[str, Listing] = {}
    for name, md5 in listing.items():
        grouped.setdefault(partition_of(name), {})[name] = md5
    return grouped


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[str]]:
    """The files that came, that were revised, and those that were withdrawn, from one version to another."""
    was, now = by_partition(before), by_partition(after)
    partitions = {
        "came": now.keys() - was.keys(),
        "revised": {name for name in now.keys() & was.keys() if now[name] != was[name]},
        "withdrawn": was.keys() - now.keys(),
    }
    return {
        what: sorted(file for name in of for file in now.get(name, was.get(name, {})))
        for what, of in partitions.items()
    }


def _of_files(listing: Mapping[str, str]) -> Revision:
    """The revision that the files of one partition are."""
    return next((Revision(PurePosixPath(name).name, md5) for name, md5 in listing.items()), Revision())


def read() -> Histories:
    """The histories in data.dvc; empty where nothing was revised."""
    path = settings.ROOT / "data.dvc"
    return parse(path.read_text(encoding="utf-8")) if path.exists() else {}


def parse(text: str | None) -> Histories:
    """The histories in the text of a data.dvc.

    Raises:
        DataMissing: they cannot be read.
    """
    try:
        entries = ((yaml_reader.load(text or "") or {}).get("meta") or {}).get("revisions") or {}
        return {name: [_parsed(entry) for entry in history] for name, history in entries.items()}
    except (yaml_reader.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise DataMissing(f"data.dvc: meta.revisions cannot be read ({' '.join(str(error).split())})") from None


def _parsed(entry: Mapping[str, Any]) -> Revision:
    return Revision() if entry.get("withdrawn") else Revision(str(entry["file"]), str(entry["md5"]))


def written(text: str, histories: Histories) -> str:
    """The text of data.dvc with these histories in it."""
    content = yaml_reader.load(text)
    plain = {name: [_plain(revision) for revision in histories[name]] for name in sorted(histories)}
    content["meta"] = {**(content.pop("meta", None) or {}), "revisions": plain}
    return yaml_reader.dump(content)


def _plain(revision: Revision) -> dict[str, Any]:
    return {"withdrawn": True} if revision.withdrawn else {"file": revision.file, "md5": revision.md5}


def followed(histories: Histories, before: Mapping[str, str], now: Mapping[str, str]) -> Histories:
    """The histories after a version: each partition that differs has one revision more.

    Args:
        histories: as they were. Their last entries may be ahead of `before`, where a version was not made to the end.
        before: the files of the version before.
        now: the files of the version that is made.
    """
    earlier, current, result = by_partition(before), by_partition(now), dict(histories)
    for partition in {*earlier, *histories}:
        revision = _of_files(current.get(partition, {}))
        history = histories.get(partition, [_of_files(earlier.get(partition, {}))])
        if history[-1] != revision:
            result[partition] = [*history, revision]
    return result


def superseded(histories: Histories, partition: str, md5: str) -> int | None:
    """The number of the former revision that has this content; None where it has none."""
    history = histories.get(partition, [])
    if not history or history[-1].md5 == md5:
        return None
    return next((number for number, revision in enumerate(history, 1) if revision.md5 == md5), None)


def noted() -> dict[tuple[str, int], journal.Line]:
    """Partition and number of a revision → the line of the journal that says when it came, and why."""
    return {
        (partition, number): line
        for line in journal.lines(journal.PLATFORM, "data")
        for partition, number in line.what["revisions"].items()
    }


def plan(partition: str) -> None:
    """Note, before data/ is touched, that a partition is accepted anew or withdrawn: a kill then loses nothing."""
    files.write_json(paths.planned_revisions(), sorted({*planned(), partition}))


def planned() -> set[str]:
    """The partitions that the next version may have in another revision, or not at all."""
    return set(files.read_state(paths.planned_revisions(), list[str]()))


def end_plan() -> None:
    """Forget what was planned: the version is made."""
    paths.planned_revisions().unlink(missing_ok=True)


@dataclass(frozen=True)
class Side:
    """A data version with its histories."""

    listing: Listing
    histories: Histories


def join(base: Side, ours: Side, theirs: Side, theirs_for: Iterable[str] = ()) -> tuple[Side, list[str]]:
    """Join what both sides did since `base`, partition by partition.

    Gives the result, and the partitions that both gave another content: of those ours stands in it, but for
    `theirs_for`.
    """
    joined, conflicts = Side({}, {}), []
    base_files, our_files, their_files = (by_partition(side.listing) for side in (base, ours, theirs))
    for partition in sorted({*our_files, *their_files, *ours.histories, *theirs.histories}):
        b, o, t = (listing.get(partition, {}) for listing in (base_files, our_files, their_files))
        our_history, their_history = (side.histories.get(partition, []) for side in (ours, theirs))
        takes_theirs = o == b and t != b
        if o != t and b not in (o, t):
            conflicts.append(partition)
            takes_theirs = partition in theirs_for
            our_history, their_history = our_history or [_of_files(o)], their_history or [_of_files(t)]
        joined.listing.update(t if takes_theirs else o)
        kept, other = (their_history, our_history) if takes_theirs else (our_history, their_history)
        if history := _joined(kept, other):
            joined.histories[partition] = history
    return joined, conflicts


def _joined(kept: list[Revision], other: list[Revision]) -> list[Revision]:
    """The history that ends as `kept` does, and has what `other` has beside."""
    if other[: len(kept)] == kept and other and kept and other[-1] == kept[-1]:
        return other
    unknown = [revision for revision in other if revision not in kept]
    return [*kept[:-1], *unknown, *kept[-1:]]
