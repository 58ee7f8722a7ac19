"""collect: what has arrived in the landing zone goes into data/, or into quarantine with the reason.

A reconciler. It looks at what lies there now, whoever called it and however often; a run that was killed anywhere
is repaired by the next. A file leaves the landing zone last: when its content is in quarantine, or (`clear`) when the
data version that holds it was made and pushed.

What becomes of a delivery: docs/reference/deliveries.md.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from tasks.data import changes, file_hashes, quarantine, revisions, validate, zones
from tasks.data.quarantine import Refusal
from tasks.data.zones import Landed, Zone
from tasks.ground import files, paths, settings, storage
from tasks.ground.errors import did_you_mean
from tasks.ground.params import Params
from tasks.tables import partitions

PARTITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")

WITHDRAWN = ".withdrawn"
"""By a file of this suffix, a source withdraws the partition of its name."""

Log = Callable[[str], object]

Check = Callable[[Landed, Path], Refusal | None]
"""What may be said against a partition beyond its contract, of the file as it was fetched."""


@dataclass(frozen=True)
class Collected:
    """What one look at the landing zone did."""

    accepted: list[Landed] = field(default_factory=list)
    already_there: list[Landed] = field(default_factory=list)
    withdrawn: list[Landed] = field(default_factory=list)
    outdated: list[Landed] = field(default_factory=list)
    """What is no news: a former revision, or the withdrawal of what is not in data/. Each with the reason."""
    quarantined: list[Landed] = field(default_factory=list)
    still_arriving: list[Landed] = field(default_factory=list)


def collect(params: Params, log: Log = print, check: Check = lambda _landed, _local: None) -> Collected:
    """Take in what has arrived: the good into data/, the rest into quarantine.

    Accepted files stay in the landing zone until `clear`.

    Args:
        params: the whole of params.yaml.
        log: is told what becomes of each file.
        check: is asked about each file that passes its contract.

    Raises:
        SourceUnavailable: the landing zone or the quarantine cannot be reached.
        ContractError: an expectation suite cannot be used; nothing is quarantined for that.
    """
    landing = zones.landing(params.landing)
    settled, arriving = _settled(landing, params.settle_seconds)
    collected = Collected(still_arriving=arriving)
    for landed in arriving:
        log(f"{landed}: still arriving, left for the next look")
    with files.lock("data"), storage.disk("data/"):
        _sweep(params)
        take = partial(_take, landing=landing, params=params, collected=collected, log=log, check=check)
        newest = {(landed.dataset, landed.partition): landed for landed in settled}
        put_off = [
            landed
            for landed in settled
            if not take(landed, is_last=newest[landed.dataset, landed.partition] is not landed)
        ]
        for landed in reversed(put_off):
            take(landed, is_last=True)
    return collected


def clear(params: Params, collected: Collected) -> None:
    """Remove from the landing zone what is safely in data/: to be called after the data version was made and pushed.

    A file that was replaced since it was read stays for the next look.
    """
    landing = zones.landing(params.landing)
    for landed in [*collected.accepted, *collected.already_there, *collected.withdrawn, *collected.outdated]:
        landing.clear(landed)


# ── one file ──────────────────────────────────────────────────────────────────────────────────────


def _take(
    landed: Landed, landing: Zone, params: Params, collected: Collected, log: Log, check: Check, *, is_last: bool
) -> bool:
    """Bring one file to where it belongs, and say so; False where it was refused and is to be tried again.

    What is refused may be good beside what comes in the same look: a row that moves from February to January stands in
    both until February is corrected as well. So it is tried again, the newest partition first (`is_last`).
    """
    with TemporaryDirectory(dir=_incoming()) as folder:
        local = Path(folder) / quarantine.safe(PurePosixPath(landed.path).name)
        if not landing.fetch(landed, local):
            collected.still_arriving.append(landed)
            log(f"{landed}: changed while it was read, left for the next look")
            return True
        is_withdrawal = local.suffix == WITHDRAWN
        refusal = _misplaced(landed, params)
        if refusal is None and (why := (_no_withdrawal if is_withdrawal else _no_news)(landed, local)):
            is_there = why == ALREADY_THERE
            (collected.already_there if is_there else collected.outdated).append(replace(landed, reason=why))
            log(f"{landed}: {why}")
            return True
        if refusal is None:
            refusal = (
                refused_to_withdraw(landed, params)
                if is_withdrawal
                else refused(landed, local, params) or check(landed, local)
            )
        if refusal is not None and not is_last:
            return False
        if refusal is not None:
            quarantine.supersede(landed, "a newer delivery was refused", params, but=local)
            where = quarantine.put(landed, local, refusal, params)
            landing.clear(landed)
            collected.quarantined.append(replace(landed, reason=refusal.reason))
            log(f"{landed}: quarantined in {where}: {refusal.reason}")
            return True
        quarantine.supersede(landed, "it was withdrawn" if is_withdrawal else "a newer delivery was accepted", params)
        if is_withdrawal:
            remove(landed)
            collected.withdrawn.append(landed)
            log(f"{landed}: withdrawn by its source")
        else:
            words = accept(landed, local, params)
            collected.accepted.append(landed)
            log(f"{landed}: accepted{words}")
        return True


ALREADY_THERE = "already in data/"


def _no_news(landed: Landed, local: Path) -> str | None:
    """Why a file need not be looked at: its content is there, or was before what is there."""
    md5 = files.md5(local)
    if any(file_hashes.md5(path) == md5 for path in in_data(landed.dataset, landed.partition)):
        return ALREADY_THERE
    if number := revisions.superseded(revisions.read(), f"{landed.dataset}/{landed.partition}", md5):
        return (
            f"not taken: its content is revision {number} of this partition, and a newer one counts. "
            f"`evergreen revert {landed.dataset} {landed.partition} --to {number}` makes it count again"
        )
    return None


def _no_withdrawal(landed: Landed, local: Path) -> str | None:
    """Why a withdrawal is no news: there is nothing to withdraw, or what it names by its MD5 was replaced."""
    there = in_data(landed.dataset, landed.partition)
    if not there:
        return "nothing to withdraw: data/ has no such partition"
    named = re.findall(r"\b[0-9a-f]{32}\b", local.read_text(encoding="utf-8", errors="replace").lower())
    if named and not any(file_hashes.md5(path) in named for path in there):
        return "not withdrawn: it names another content than the one that counts"
    return None


def accept(landed: Landed, local: Path, params: Params) -> str:
    """Put a file into data/; says in words what it changes of the partition that was there."""
    home = settings.ROOT / "data" / landed.dataset / PurePosixPath(landed.path).name
    words = ""
    revisions.plan(f"{landed.dataset}/{landed.partition}")
    for former in in_data(landed.dataset, landed.partition):
        found = changes.between(former, local, landed.dataset, params.readers(landed.dataset)[0])
        words = f" as a revision: {found or 'what it changes cannot be told, as the former cannot be read any more'}"
        if former.name != home.name:
            files.remove(former)
    with files.replacing(home) as beside:
        shutil.copyfile(local, beside)
    return words


def remove(landed: Landed) -> None:
    """Take a partition out of data/."""
    revisions.plan(f"{landed.dataset}/{landed.partition}")
    for path in in_data(landed.dataset, landed.partition):
        files.remove(path)


def _misplaced(landed: Landed, params: Params) -> Refusal | None:
    """What can be said of a file from its name alone."""
    todo = f"Deliver it as `<dataset>/<partition>.csv` or `.parquet`; datasets: {', '.join(params.datasets)}"
    path = PurePosixPath(landed.path)
    if not landed.dataset or "/" in landed.dataset:
        return Refusal(f"it lies in {landed.dataset or 'no folder'}, not directly in the folder of a dataset", todo)
    if landed.dataset not in params.datasets:
        hint = did_you_mean(landed.dataset, params.datasets)
        return Refusal(f"no model reads a dataset {landed.dataset!r}{hint}", todo)
    if path.suffix not in (*validate.SUFFIXES, WITHDRAWN):
        hint = did_you_mean(path.suffix, list(validate.SUFFIXES))
        return Refusal(f"its suffix is {path.suffix or 'missing'}, not .csv or .parquet{hint}", todo)
    if not PARTITION.fullmatch(landed.partition):
        return Refusal(f"{landed.partition!r} is not a partition's name: letters, digits, - and _, at most 100", todo)
    return None


def refused(landed: Landed, local: Path, params: Params) -> Refusal | None:
    """What can be said of a file from its content: why it may not be in data/, beside what is there."""
    readers = params.readers(landed.dataset)
    before, after = _neighbours(landed)
    reports = validate.validate_partition(local, landed.dataset, readers, before)
    todo = (
        "If the file is wrong, have it made again and delivered under the same name. If the expectation is too strict, "
        f"change models/<model>/expectations/{landed.dataset}.yaml, then `evergreen quarantine retry`"
    )
    if failed := [check for report in reports for check in report.failures]:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return Refusal(f"{validate.sentence(failed[0])}{more}", todo, reports)
    return _refused_by_next(landed, after, local, "with it", todo, params)


def refused_to_withdraw(landed: Landed, params: Params) -> Refusal | None:
    """Why a partition that is in data/ may not be taken out."""
    before, after = _neighbours(landed)
    if {path.stem for path in validate.partitions(landed.dataset)} <= {landed.partition}:
        return Refusal(
            f"it is the only partition of {landed.dataset}, and a dataset without one can be learned from by nobody",
            "Deliver another partition first, then the withdrawal again",
        )
    todo = f"Change models/<model>/expectations/{landed.dataset}.yaml, or have {after and after.stem} withdrawn first"
    return _refused_by_next(landed, after, before, "without it", todo, params)


def _refused_by_next(
    landed: Landed, after: Path | None, before: Path | None, how: str, todo: str, params: Params
) -> Refusal | None:
    """The partition after it was accepted, and must still pass: the validate stage would stop at it."""
    if after is None:
        return None
    later = validate.validate_partition(after, landed.dataset, params.readers(landed.dataset), before)
    if failed := [check for report in later for check in report.failures]:
        why = f"{how}, {after.stem}, which is in data/ already, would not pass: {validate.sentence(failed[0])}"
        return Refusal(why, todo, later)
    return None


def _neighbours(landed: Landed) -> tuple[Path | None, Path | None]:
    """The accepted partitions just before and just after this one."""
    by_name = {path.stem: path for path in validate.partitions(landed.dataset)}
    before = partitions.before(landed.partition, by_name)
    after = partitions.after(landed.partition, by_name)
    return by_name[before] if before else None, by_name[after] if after else None


def in_data(dataset: str, partition: str) -> list[Path]:
    """The file of a partition in data/, if it is there."""
    return [
        path for suffix in validate.SUFFIXES if (path := settings.ROOT / f"data/{dataset}/{partition}{suffix}").exists()
    ]


# ── the landing zone ──────────────────────────────────────────────────────────────────────────────


def _settled(landing: Zone, seconds: float) -> tuple[list[Landed], list[Landed]]:
    """The files that have arrived (unchanged for `seconds`), and those that are still arriving.

    By partition; of one partition that was delivered twice meanwhile, what changed last comes last.
    """
    look = landing.look()
    young = {landed.path: landed for landed, age in look if age is not None and age < seconds}
    if young:
        time.sleep(seconds - max(0.0, min(age for _, age in look if age is not None)))
        again = {landed.path: landed for landed, _ in landing.look()}
        look = [(again[landed.path], age) for landed, age in look if landed.path in again]
    arriving = [landed for landed, _ in look if landed.path in young and landed != young[landed.path]]
    settled = sorted(look, key=lambda entry: (entry[0].partition, entry[0].dataset, -(entry[1] or 0.0)))
    return [landed for landed, _ in settled if landed not in arriving], arriving


def _incoming() -> Path:
    folder = paths.incoming_data()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sweep(params: Params) -> None:
    """Remove what a killed run left beside its targets. Called while the lock is held, so nobody is writing."""
    files.remove(paths.incoming_data())
    for left in (settings.ROOT / "data").glob("*/.*.tmp"):
        files.remove(left)
    files.sweep(paths.memos(), *filter(None, [zones.quarantine(params.quarantine).local]))
