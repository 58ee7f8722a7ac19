"""Quarantine of refused files: each waits in a folder with its report until it is closed.

    <quarantine>/<dataset>/<partition>-<first digits of its MD5>/   the file, report.json, report.md
                                                      closed.json   why it no longer waits, and since when

A refusal is closed when the partition is delivered anew (accepted or refused for itself), when it is tried again, or by
a person. The file stays; only a retry takes it out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tasks.data import zones
from tasks.data.validation_report import Report
from tasks.data.zones import Landed, Zone
from tasks.ground import addresses, files
from tasks.ground.errors import Mistake, did_you_mean
from tasks.ground.params import Params


@dataclass(frozen=True)
class Refusal:
    """Why a file is refused, and the reports of its validation."""

    reason: str
    todo: str
    reports: list[Report] = field(default_factory=list)


@dataclass(frozen=True)
class QuarantineEntry:
    """A file in quarantine."""

    id: str
    """`<dataset>/<partition>-<digits>`: its folder."""
    dataset: str
    partition: str
    file: str
    reason: str
    todo: str
    seen: str
    """What its report looked like: one that was refused once more looks different."""
    time: datetime
    closed: str | None = None
    """Why it no longer waits; None: it waits."""


def entries(url: str) -> list[QuarantineEntry]:
    """What is in quarantine, the newest first.

    Args:
        url: the quarantine, as params.yaml names it.

    Raises:
        SourceUnavailable: it cannot be reached.
    """
    place = zones.quarantine(url)
    if not place.exists():
        return []
    folders: dict[str, dict[str, tuple[Landed, float | None]]] = {}
    for landed, age in place.look():
        folder, _, name = landed.path.rpartition("/")
        folders.setdefault(folder, {})[name] = landed, age
    refused = [
        _entry(place / folder, folder, *beside["report.json"], beside.keys())
        for folder, beside in folders.items()
        if "report.json" in beside
    ]
    return sorted(refused, key=lambda entry: (entry.time, entry.id), reverse=True)


def waiting(url: str) -> list[QuarantineEntry]:
    """What is in quarantine and not closed, the newest first."""
    return [entry for entry in entries(url) if entry.closed is None]


def put(landed: Landed, local: Path, refusal: Refusal, params: Params) -> str:
    """Put a file with its report into quarantine; the same file is put to the same place. Gives where."""
    place, name = zones.quarantine(params.quarantine), _id(landed, local)
    content = {"dataset": landed.dataset, "partition": landed.partition, "file": local.name, **asdict(refusal)}
    (local.parent / "report.md").write_text(_page(landed, local, refusal), encoding="utf-8")
    files.write_json(local.parent / "report.json", content)
    (place / f"{name}/closed.json").remove()
    place.put_folder(name, local.parent)
    return f"{addresses.masked(params.quarantine)}/{name}"


def supersede(landed: Landed, why: str, params: Params, but: Path | None = None) -> None:
    """Close earlier refusals of a partition that was delivered anew.

    Args:
        landed: the new delivery.
        why: what became of it.
        params: the whole of params.yaml.
        but: the new delivery itself, when it was refused too.
    """
    place = zones.quarantine(params.quarantine)
    kept, alike = _id(landed, but) if but else "", re.compile(f"{safe(landed.partition)}-[0-9a-f]{{8}}")
    dataset = safe(landed.dataset)
    for name in (place / dataset).names():
        entry = place / dataset / name
        if alike.fullmatch(name) and f"{dataset}/{name}" != kept and not (entry / "closed.json").exists():
            _close(entry, why)


def page(params: Params, name: str) -> str:
    """The report of a refused file, as Markdown."""
    (entry,) = _chosen(entries(params.quarantine), [name])
    text = (zones.quarantine(params.quarantine) / f"{entry.id}/report.md").read().decode("utf-8")
    return text + (f"\n**Closed:** {entry.closed}\n" if entry.closed else "")


def close(params: Params, names: list[str]) -> list[QuarantineEntry]:
    """Close refusals: a person has seen to them, and the files stay where they are."""
    chosen = _chosen(waiting(params.quarantine), names)
    for entry in chosen:
        _close(zones.quarantine(params.quarantine) / entry.id, "closed by hand")
    return chosen


def retry(params: Params, names: list[str]) -> list[QuarantineEntry]:
    """Move refused files back into the landing zone, for the next ingest; no name means all that wait.

    Raises:
        Mistake: there is no such file in quarantine, or a newer delivery of its name waits in the landing zone.
    """
    quarantine, landing = zones.quarantine(params.quarantine), zones.landing(params.landing)
    chosen = _chosen(entries(params.quarantine), names) if names else waiting(params.quarantine)
    for entry in chosen:
        target = landing / entry.dataset / entry.file
        if target.exists():
            raise Mistake(
                f"{target.shown} waits in the landing zone: it is newer than {entry.id}. "
                f"Run ingest first, then try again"
            )
        target.write_bytes((quarantine / entry.id / entry.file).read())
        (quarantine / entry.id).remove()
    return chosen


def _chosen(among: list[QuarantineEntry], names: list[str]) -> list[QuarantineEntry]:
    by_id = {entry.id: entry for entry in among}
    if unknown := [name for name in names if name.rstrip("/") not in by_id]:
        raise Mistake(
            f"{unknown[0]!r} does not wait in quarantine; `evergreen quarantine list` lists what "
            f"does{did_you_mean(unknown[0], list(by_id))}"
        )
    return [by_id[name] for name in dict.fromkeys(name.rstrip("/") for name in names)]


def _entry(entry: Zone, name: str, report: Landed, age: float | None, beside: Collection[str]) -> QuarantineEntry:
    """What a report says; of one that is torn, what the names of folder and file say."""
    time = datetime.fromtimestamp(datetime.now(UTC).timestamp() - (age or 0), UTC)
    dataset, _, folder = name.partition("/")
    content = {
        "dataset": dataset,
        "partition": folder.rpartition("-")[0],
        "file": min({*beside} - {"report.json", "report.md", "closed.json"}, default=""),
        "reason": "its report is torn: why it was refused is not known any more",
        "todo": "have it looked at again",
    }
    content |= {key: str(value) for key, value in _json(entry / "report.json").items() if key in content}
    closed = None
    if "closed.json" in beside:
        closed = _json(entry / "closed.json").get("why", "why is not known any more")
    return QuarantineEntry(name, **content, seen=report.seen, time=time, closed=closed)


def _json(file: Zone) -> dict[str, str]:
    try:
        return dict(json.loads(file.read()))
    except (ValueError, TypeError):  # torn
        return {}


def _close(entry: Zone, why: str) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    (entry / "closed.json").write_bytes(json.dumps({"why": f"{why}, {at}"}).encode())


def _id(landed: Landed, local: Path) -> str:
    return f"{safe(landed.dataset)}/{safe(landed.partition)}-{files.md5(local)[:8]}"


def _page(landed: Landed, local: Path, refusal: Refusal) -> str:
    title = f"# Quarantined: {landed.dataset or '(no dataset)'} / {local.name}"
    head = f"{title}\n\n**Why:** {refusal.reason}.\n\n**What to do:** {refusal.todo}.\n"
    return head + (
        "\n" + "\n".join(line for report in refusal.reports for line in report.markdown()) if refusal.reports else ""
    )


def safe(name: str) -> str:
    """A name that can only be a name: no separator, nothing hidden, not long."""
    return re.sub(r"[^A-Za-z0-9_.=-]", "_", name).lstrip(".")[-100:] or "unnamed"
