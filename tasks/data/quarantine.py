"""quarantine: where refused files wait, each in a folder with its report, until somebody or something closes it.

    <quarantine>/<dataset>/<partition>-<first digits of its MD5>/   the file, report.json, report.md
                                                      closed.json   why it waits no more, and since when

A refusal is closed when the partition is delivered anew (accepted or refused for itself), when it is tried again, or by
a person. The file stays; only a retry takes it out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from tasks.data import validate
from tasks.data.places import Landed, Place, masked
from tasks.ground import files
from tasks.ground.errors import Mistake, did_you_mean
from tasks.ground.params import Params


@dataclass(frozen=True)
class Refusal:
    """Why a file may not be taken, and the reports when it was validated."""

    reason: str
    todo: str
    reports: list[validate.Report] = field(default_factory=list)


@dataclass(frozen=True)
class Refused:
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
    """Why it waits no more; None: it waits."""


def refused(url: str) -> list[Refused]:
    """What is in quarantine, the newest first.

    Args:
        url: the quarantine, as params.yaml names it.

    Raises:
        SourceUnavailable: it cannot be reached.
    """
    place = Place.of(url, "quarantine")
    if not place.exists():
        return []
    look = {landed.path: (landed, age) for landed, age in place.look()}
    reports = [(landed, age) for path, (landed, age) in look.items() if path.endswith("/report.json")]
    kept = [
        _refused(place, landed, age, [path for path in look if _folder_of(path) == _folder(landed)])
        for landed, age in reports
    ]
    return sorted(kept, key=lambda entry: (entry.time, entry.id), reverse=True)


def waiting(url: str) -> list[Refused]:
    """What is in quarantine and not closed, the newest first."""
    return [entry for entry in refused(url) if entry.closed is None]


def put(landed: Landed, local: Path, refusal: Refusal, params: Params) -> str:
    """Put a file with its report into quarantine; the same file is put to the same place. Gives where."""
    place, name = Place.of(params.quarantine, "quarantine"), _id(landed, local)
    content = {
        "dataset": landed.dataset,
        "partition": landed.partition,
        "file": local.name,
        "reason": refusal.reason,
        "todo": refusal.todo,
        "reports": [report.to_dict() for report in refusal.reports],
    }
    (local.parent / "report.md").write_text(_page(landed, local, refusal), encoding="utf-8")
    files.write_json(local.parent / "report.json", content)
    place.remove(f"{name}/closed.json")
    place.put_folder(name, local.parent)
    return f"{masked(params.quarantine)}/{name}"


def supersede(landed: Landed, why: str, params: Params, but: Path | None = None) -> None:
    """Close what was refused of a partition before: it was delivered anew.

    Args:
        landed: the new delivery.
        why: what became of it.
        params: say where the quarantine is.
        but: the new delivery itself, when it was refused too.
    """
    place = Place.of(params.quarantine, "quarantine")
    kept, alike = _id(landed, but) if but else "", re.compile(f"{safe(landed.partition)}-[0-9a-f]{{8}}")
    for name in place.names(safe(landed.dataset)):
        if alike.fullmatch(name.rpartition("/")[2]) and name != kept and not place.exists(f"{name}/closed.json"):
            _close(place, name, why)


# ── what a person does ────────────────────────────────────────────────────────────────────────────


def page(params: Params, name: str) -> str:
    """The report of a refused file, as Markdown."""
    (entry,) = _chosen(params, [name], closed=True)
    text = Place.of(params.quarantine, "quarantine").read(f"{entry.id}/report.md").decode("utf-8")
    return text + (f"\n**Closed:** {entry.closed}\n" if entry.closed else "")


def close(params: Params, names: list[str]) -> list[Refused]:
    """Close refusals: a person has seen to them, and the files stay where they are."""
    entries = _chosen(params, names)
    for entry in entries:
        _close(Place.of(params.quarantine, "quarantine"), entry.id, "closed by hand")
    return entries


def retry(params: Params, names: list[str]) -> list[Refused]:
    """Move refused files back into the landing zone, for the next ingest; no name means all that wait.

    Raises:
        Mistake: there is no such file in quarantine, or a newer delivery of its name waits in the landing zone.
    """
    quarantine, landing = Place.of(params.quarantine, "quarantine"), Place.of(params.landing, "landing")
    entries = _chosen(params, names, closed=bool(names)) if names else waiting(params.quarantine)
    for entry in entries:
        target = str(PurePosixPath(entry.dataset) / entry.file)
        if landing.exists(target):
            raise Mistake(
                f"{masked(params.landing)}/{target} waits in the landing zone: it is newer than {entry.id}. "
                f"Run ingest first, then try again"
            )
        landing.put_bytes(target, quarantine.read(f"{entry.id}/{entry.file}"))
        quarantine.remove(entry.id)
    return entries


def _chosen(params: Params, names: list[str], *, closed: bool = False) -> list[Refused]:
    """The files that were asked for by id, each named once."""
    there = {entry.id: entry for entry in (refused if closed else waiting)(params.quarantine)}
    if unknown := [name for name in names if name.rstrip("/") not in there]:
        raise Mistake(
            f"{unknown[0]!r} does not wait in quarantine{did_you_mean(unknown[0], list(there))}. "
            f"`evergreen quarantine list` lists what does"
        )
    return [there[name] for name in dict.fromkeys(name.rstrip("/") for name in names)]


# ── how it lies there ─────────────────────────────────────────────────────────────────────────────


def _refused(place: Place, report: Landed, age: float | None, beside: list[str]) -> Refused:
    """What a report says; of one that is torn, what the names of folder and file say."""
    name = place.name(_folder(report))
    names = {path.rpartition("/")[2] for path in beside}
    time = datetime.fromtimestamp(datetime.now(UTC).timestamp() - (age or 0), UTC)
    said = {
        "dataset": name.partition("/")[0],
        "partition": name.rpartition("/")[2].rpartition("-")[0],
        "file": min(names - {"report.json", "report.md", "closed.json"}, default=""),
        "reason": "its report is torn: why it was refused is not known any more",
        "todo": "have it looked at again",
    }
    said |= {key: str(value) for key, value in _json(place, f"{name}/report.json").items() if key in said}
    closed = (
        _json(place, f"{name}/closed.json").get("why", "why is not known any more") if "closed.json" in names else None
    )
    return Refused(name, **said, seen=report.seen, time=time, closed=closed)


def _json(place: Place, name: str) -> dict[str, str]:
    try:
        return dict(json.loads(place.read(name)))
    except (ValueError, TypeError):  # torn
        return {}


def _close(place: Place, name: str, why: str) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    place.put_bytes(f"{name}/closed.json", json.dumps({"why": f"{why}, {at}"}).encode())


def _folder(landed: Landed) -> str:
    return _folder_of(landed.path)


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def _id(landed: Landed, local: Path) -> str:
    return f"{safe(landed.dataset)}/{safe(landed.partition)}-{files.md5(local)[:8]}"


def _page(landed: Landed, local: Path, refusal: Refusal) -> str:
    title = f"# Quarantined: {landed.dataset or '(no dataset)'} / {local.name}"
    head = f"{title}\n\n**Why:** {refusal.reason}.\n\n**What to do:** {refusal.todo}.\n"
    return head + ("\n" + validate.to_markdown(refusal.reports) if refusal.reports else "")


def safe(name: str) -> str:
    """A name that can only be a name: no separator, nothing hidden, not long."""
    return re.sub(r"[^A-Za-z0-9_.=-]", "_", name).lstrip(".")[-100:] or "unnamed"
