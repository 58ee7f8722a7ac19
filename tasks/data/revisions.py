"""revisions: which contents of a partition counted, oldest first; the last one counts now.

Kept in data.dvc beside the data version, as DVC leaves `meta` to its users:

    outs: …
    meta:
      revisions:
        flights/2013-02:
        - {file: 2013-02.csv, md5: 3f0c…}
        - {file: 2013-02.parquet, md5: 9ab1…}
        - {withdrawn: true}

A partition that was never revised is not in it. There is no time in it: equal deliveries give equal files. The content
of a former revision is in DVC's cache and remote, under its MD5, as long as nobody collects garbage there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from tasks.ground import files, paths, settings
from tasks.ground.errors import DataMissing

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


Ledger = dict[str, list[Revision]]
"""Partition (`<dataset>/<partition>`) → its revisions, oldest first."""


def partition_of(name: str) -> str:
    """The partition that a file of a version is: `flights/2013-02.csv` is `flights/2013-02`."""
    return PurePosixPath(name).with_suffix("").as_posix()


def by_partition(listing: Mapping[str, str]) -> dict[str, Listing]:
    """Partition → its files, of which there is one where all is well."""
    grouped: dict[str, Listing] = {}
    for name, md5 in listing.items():
        grouped.setdefault(partition_of(name), {})[name] = md5
    return grouped


def of_files(listing: Mapping[str, str]) -> Revision:
    """The revision that the files of one partition are."""
    return next((Revision(PurePosixPath(name).name, md5) for name, md5 in listing.items()), Revision())


# ── the ledger ────────────────────────────────────────────────────────────────────────────────────


def read() -> Ledger:
    """The ledger in data.dvc; empty where nothing was revised."""
    path = settings.ROOT / "data.dvc"
    return parse(path.read_text(encoding="utf-8")) if path.exists() else {}


def parse(text: str | None) -> Ledger:
    """The ledger in the text of a data.dvc.

    Raises:
        DataMissing: that is none.
    """
    try:
        held = ((yaml.safe_load(text or "") or {}).get("meta") or {}).get("revisions") or {}
        return {name: [_parsed(entry) for entry in entries] for name, entries in held.items()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise DataMissing(f"data.dvc: meta.revisions cannot be read ({' '.join(str(error).split())})") from None


def _parsed(entry: Mapping[str, Any]) -> Revision:
    return Revision() if entry.get("withdrawn") else Revision(str(entry["file"]), str(entry["md5"]))


def written(text: str, ledger: Ledger) -> str:
    """The text of data.dvc with this ledger in it."""
    held = yaml.safe_load(text)
    plain = {name: [_plain(revision) for revision in ledger[name]] for name in sorted(ledger)}
    held["meta"] = {**(held.pop("meta", None) or {}), "revisions": plain}
    return yaml.safe_dump(held, sort_keys=False, allow_unicode=True)


def _plain(revision: Revision) -> dict[str, Any]:
    return {"withdrawn": True} if revision.withdrawn else {"file": revision.file, "md5": revision.md5}


def followed(ledger: Ledger, before: Mapping[str, str], now: Mapping[str, str]) -> Ledger:
    """The ledger after a version: what is other than it was has one revision more.

    Args:
        ledger: as it was. Its last entries may be ahead of `before`, where a version was not made to the end.
        before: the files of the version before.
        now: the files of the version that is made.
    """
    was, there, result = by_partition(before), by_partition(now), dict(ledger)
    for partition in {*was, *ledger}:
        former, current = of_files(was.get(partition, {})), of_files(there.get(partition, {}))
        history = ledger.get(partition, [former])
        if history[-1] != current:
            result[partition] = [*history, current]
    return result


def superseded(ledger: Ledger, partition: str, md5: str) -> int | None:
    """The number of the former revision that has this content; None where it has none."""
    history = ledger.get(partition, [])
    if not history or history[-1].md5 == md5:
        return None
    return next((number for number, revision in enumerate(history, 1) if revision.md5 == md5), None)


# ── what the next version may change ──────────────────────────────────────────────────────────────


def intend(partition: str) -> None:
    """Note, before data/ is touched, that a partition is accepted anew or withdrawn: a kill then loses nothing."""
    files.write_json(_intended(), sorted({*intended(), partition}))


def intended() -> set[str]:
    """The partitions that the next version may have in another revision, or not at all."""
    return set(files.read_state(_intended(), list[str]()))


def done() -> None:
    """The version was made."""
    _intended().unlink(missing_ok=True)


def _intended() -> Path:
    return paths.planned_revision()


# ── joining two ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Side:
    """A data version with its ledger."""

    listing: Listing
    ledger: Ledger


def join(base: Side, ours: Side, theirs: Side, theirs_for: Iterable[str] = ()) -> tuple[Side, list[str]]:
    """What both sides did since `base`, partition by partition; and the partitions that both gave another content.

    Of those, ours stands in the result, but for `theirs_for`.
    """
    was, here, there = (by_partition(side.listing) for side in (base, ours, theirs))
    listing: Listing = {}
    ledger: Ledger = {}
    conflicts = []
    for partition in sorted({*here, *there, *ours.ledger, *theirs.ledger}):
        b, o, t = (files.get(partition, {}) for files in (was, here, there))
        take_theirs = o == b and t != b
        histories = [side.ledger.get(partition, []) for side in (ours, theirs)]
        if o != t and b not in (o, t):
            conflicts.append(partition)
            take_theirs = partition in theirs_for
            histories = [known or [of_files(files)] for known, files in zip(histories, (o, t), strict=True)]
        listing |= t if take_theirs else o
        if history := _joined(*(reversed(histories) if take_theirs else histories)):
            ledger[partition] = history
    return Side(listing, ledger), conflicts


def _joined(kept: list[Revision], other: list[Revision]) -> list[Revision]:
    """The history that ends as `kept` does, and knows what `other` knew."""
    if other[: len(kept)] == kept and other and kept and other[-1] == kept[-1]:
        return other
    unknown = [revision for revision in other if revision not in kept]
    return [*kept[:-1], *unknown, *kept[-1:]]
