"""Reconciler of the landing zone: accepts what has arrived into data/, or quarantines it with the reason.

It looks at what lies there now, whatever triggered it and however often; a run that was killed anywhere is repaired by
the next. A file leaves the landing zone last: when its content is in quarantine, or (`clear`) when the data version
that holds it was made and pushed. What becomes of a delivery: docs/reference/deliveries.md.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from tasks.data import changes, file_hashes, quarantine, revisions, validate, zones
from tasks.data.quarantine import Refusal
from tasks.data.validation_report import Report
from tasks.data.zones import Landed, Zone
from tasks.ground import files, paths, settings, storage
from tasks.ground.errors import did_you_mean
from tasks.ground.params import NO_MODEL, Params
from tasks.tables import partitions, table_files

PARTITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")

WITHDRAWN = ".withdrawn"
"""By a file of this suffix, a source withdraws the partition of its name."""

ALREADY_THERE = "already in data/"

PACKED = ": unpack it, or have it written as Parquet, which is packed by itself"

Log = Callable[[str], object]

DeliveryCheck = Callable[[Landed, Path], Refusal | None]
"""What is checked of a fetched file beyond its contract."""


@dataclass(frozen=True)
class Collected:
    """What one look at the landing zone did."""

    accepted: list[Landed] = field(default_factory=list)
    already_there: list[Landed] = field(default_factory=list)
    withdrawn: list[Landed] = field(default_factory=list)
    outdated: list[Landed] = field(default_factory=list)
    """Former revisions, and withdrawals of what is not in data/; each with the reason."""
    quarantined: list[Landed] = field(default_factory=list)
    still_arriving: list[Landed] = field(default_factory=list)


def collect(params: Params, log: Log = print, check: DeliveryCheck = lambda _landed, _local: None) -> Collected:
    """Take in what has arrived: the good into data/, the rest into quarantine.

    Accepted files stay in the landing zone until `clear`.

    Args:
        params: the whole of params.yaml.
        log: gets a line per file: what becomes of it.
        check: is called with each file that passes its contract.

    Raises:
        SourceUnavailable: the landing zone or the quarantine cannot be reached.
        ContractError: an expectation suite cannot be used; nothing is quarantined for that.
    """
    look = _Look(params, log, check)
    with files.lock("data"), storage.naming_full_disk("data/"):
        _sweep(params)
        newest = {(landed.dataset, landed.partition): landed for landed in look.arrived}
        postponed = [
            landed
            for landed in look.arrived
            if not look.take(landed, is_last=newest[landed.dataset, landed.partition] is not landed)
        ]
        for landed in reversed(postponed):
            look.take(landed, is_last=True)
    return look.collected


def clear(params: Params, collected: Collected) -> None:
    """Remove from the landing zone what is safely in data/: to be called after the data version was made and pushed.

    A file that was replaced since it was read stays for the next look.
    """
    landing = zones.landing(params.landing)
    for landed in [*collected.accepted, *collected.already_there, *collected.withdrawn, *collected.outdated]:
        landing.clear(landed)


class _Look:
    """One look at the landing zone."""

    def __init__(self, params: Params, log: Log, check: DeliveryCheck) -> None:
        self.params, self.log, self.check = params, log, check
        self.zone = zones.landing(params.landing)
        self.arrived, arriving = _arrived(self.zone, params.settle_seconds)
        self.collected = Collected(still_arriving=arriving)
        for landed in arriving:
            log(f"{landed}: still arriving, left for the next look")

    def take(self, landed: Landed, *, is_last: bool) -> bool:
        """Bring one file to where it belongs, and log it; False where it was refused and is to be tried again.

        A refused file may be good beside what comes in the same look: a row that moves from February to January stands
        in both until February is corrected as well. So it is tried again, the newest partition first (`is_last`).
        """
        paths.incoming_data().mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=paths.incoming_data()) as folder:
            local = Path(folder) / quarantine.safe(PurePosixPath(landed.path).name)
            if not self.zone.fetch(landed, local):
                self._note("still_arriving", landed, "changed while it was read, left for the next look")
                return True
            refusal = misplaced(landed, self.params)
            if refusal is None and (reason := _stale(landed, local)):
                outcome = "already_there" if reason == ALREADY_THERE else "outdated"
                self._note(outcome, replace(landed, reason=reason), reason)
                return True
            refusal = refusal or self._refusal(landed, local)
            if refusal is not None and not is_last:
                return False
            self._settle(landed, local, refusal)
            return True

    def _refusal(self, landed: Landed, local: Path) -> Refusal | None:
        if local.suffix == WITHDRAWN:
            return refuse_withdrawal(landed, self.params)
        return refuse(landed, local, self.params) or self.check(landed, local)

    def _settle(self, landed: Landed, local: Path, refusal: Refusal | None) -> None:
        if refusal is not None:
            quarantine.supersede(landed, "a newer delivery was refused", self.params, but=local)
            where = quarantine.put(landed, local, refusal, self.params)
            self.zone.clear(landed)
            refused = replace(landed, reason=refusal.reason)
            self._note("quarantined", refused, f"quarantined in {where}: {refusal.reason}")
        elif local.suffix == WITHDRAWN:
            quarantine.supersede(landed, "it was withdrawn", self.params)
            remove(landed)
            self._note("withdrawn", landed, "withdrawn by its source")
        else:
            quarantine.supersede(landed, "a newer delivery was accepted", self.params)
            self._note("accepted", landed, f"accepted{accept(landed, local, self.params)}")

    def _note(self, outcome: str, landed: Landed, message: str) -> None:
        getattr(self.collected, outcome).append(landed)
        self.log(f"{landed}: {message}")


# ── one file ──────────────────────────────────────────────────────────────────────────────────────


def _stale(landed: Landed, local: Path) -> str | None:
    return (_stale_withdrawal if local.suffix == WITHDRAWN else _stale_content)(landed, local)


def _stale_content(landed: Landed, local: Path) -> str | None:
    """Its content is in data/, or is a former revision of what is there."""
    md5 = files.md5(local)
    if any(file_hashes.md5(path) == md5 for path in in_data(landed.dataset, landed.partition)):
        return ALREADY_THERE
    if number := revisions.superseded(revisions.read(), f"{landed.dataset}/{landed.partition}", md5):
        return (
            f"not taken: its content is revision {number} of this partition, and a newer one counts. "
            f"`evergreen revert {landed.dataset} {landed.partition} --to {number}` makes it count again"
        )
    return None


def _stale_withdrawal(landed: Landed, local: Path) -> str | None:
    """The partition is not in data/, or the content that the withdrawal names was replaced."""
    current = in_data(landed.dataset, landed.partition)
    if not current:
        return "nothing to withdraw: data/ has no such partition"
    named = re.findall(r"\b[0-9a-f]{32}\b", local.read_text(encoding="utf-8", errors="replace").lower())
    if named and not any(file_hashes.md5(path) in named for path in current):
        return "not withdrawn: it names another content than the one that counts"
    return None


def accept(landed: Landed, local: Path, params: Params) -> str:
    """Put a file into data/; gives in words what it changes of the partition that was there."""
    target = settings.ROOT / "data" / landed.dataset / PurePosixPath(landed.path).name
    words = ""
    revisions.plan(f"{landed.dataset}/{landed.partition}")
    for former in in_data(landed.dataset, landed.partition):
        difference = changes.between(
            (former.name, former), (local.name, local), landed.dataset, params.readers(landed.dataset)[0]
        )
        words = f" as a revision: {difference or 'the former content cannot be read, so what changed is unknown'}"
        if former.name != target.name:
            files.remove(former)
    with files.replacing(target) as beside:
        shutil.copyfile(local, beside)
    return words


def remove(landed: Landed) -> None:
    """Take a partition out of data/."""
    revisions.plan(f"{landed.dataset}/{landed.partition}")
    for path in in_data(landed.dataset, landed.partition):
        files.remove(path)


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────


def misplaced(landed: Landed, params: Params) -> Refusal | None:
    """Why a file is refused by its name alone."""
    known = f"datasets: {', '.join(params.datasets)}" if params.models else NO_MODEL
    todo = f"Deliver it as `<dataset>/<partition>.csv`, `.tsv` or `.parquet`; {known}"
    suffix = PurePosixPath(landed.path).suffix
    if not landed.dataset or "/" in landed.dataset:
        reason = f"it lies in {landed.dataset or 'no folder'}, not directly in the folder of a dataset"
    elif landed.dataset not in params.datasets:
        reason = f"no model reads a dataset {landed.dataset!r}{did_you_mean(landed.dataset, params.datasets)}"
    elif suffix not in (*table_files.SUFFIXES, WITHDRAWN):
        hint = PACKED if suffix in (".gz", ".bz2", ".zip", ".xz", ".zst") else ""
        hint = ": JSON says no types: have it written as Parquet" if ".json" in suffix else hint
        reason = f"its suffix is {suffix or 'missing'}, not {' or '.join(table_files.SUFFIXES)}{hint}"
    elif not PARTITION.fullmatch(landed.partition):
        reason = f"{landed.partition!r} is not a partition's name: letters, digits, - and _, at most 100"
    elif (meant := partitions.subject(landed.partition)) in {*params.datasets} - {landed.dataset}:
        reason = f"its name says that it is of {meant}, and it lies in the folder of {landed.dataset}"
        todo = f"Deliver it in the folder of {meant}; or, if it is of {landed.dataset}, under another name"
    else:
        return None
    return Refusal(reason, todo)


def refuse(landed: Landed, local: Path, params: Params) -> Refusal | None:
    """Why a file may not be in data/, by its content and beside what is there; None where it may."""
    accepted = validate.partitions(landed.dataset)
    if refusal := _called_otherwise(landed, [path.stem for path in accepted]):
        return refusal
    before, after = validate.neighbours(landed.partition, accepted)
    reports, failures = _checked(local, landed, before, params)
    todo = (
        "If the file is wrong, have it made again and delivered under the same name. If the expectation is too strict, "
        f"change models/<model>/expectations/{landed.dataset}.yaml, then `evergreen quarantine retry`"
    )
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return Refusal(f"{failures[0]}{more}", todo, reports)
    return _refused_by_next(landed, after, local, "with it", todo, params)


def _called_otherwise(landed: Landed, accepted: list[str]) -> Refusal | None:
    """Its name has words before its date that no other's has: it could not be put in order among them."""
    subjects = {partitions.subject(name) for name in accepted}
    mine = partitions.subject(landed.partition)
    if not mine or not accepted or subjects & {mine, None} or mine == landed.dataset:
        return None
    return Refusal(
        f"its name begins with {mine!r}, and no other partition's of {landed.dataset} does ({accepted[0]}, …): "
        f"is it of another dataset?",
        f"If it is of {landed.dataset}, deliver it under a name like those of the others",
    )


def refuse_withdrawal(landed: Landed, params: Params) -> Refusal | None:
    """Why a partition that is in data/ may not be taken out; None where it may."""
    accepted = validate.partitions(landed.dataset)
    if {path.stem for path in accepted} <= {landed.partition}:
        return Refusal(
            f"it is the only partition of {landed.dataset}, and nothing can be learned from a dataset without one",
            "Deliver another partition first, then the withdrawal again",
        )
    before, after = validate.neighbours(landed.partition, accepted)
    todo = f"Change models/<model>/expectations/{landed.dataset}.yaml, or have {after and after.stem} withdrawn first"
    return _refused_by_next(landed, after, before, "without it", todo, params)


def _refused_by_next(
    landed: Landed, after: Path | None, before: Path | None, how: str, todo: str, params: Params
) -> Refusal | None:
    """The partition after it must still pass: the validate stage would stop at it."""
    if after is None:
        return None
    reports, failures = _checked(after, landed, before, params)
    if failures:
        reason = f"{how}, {after.stem}, which is in data/ already, would not pass: {failures[0]}"
        return Refusal(reason, todo, reports)
    return None


def _checked(path: Path, landed: Landed, before: Path | None, params: Params) -> tuple[list[Report], list[str]]:
    """The reports of every model that reads the dataset, and what failed in sentences."""
    reports = [validate.check(path, landed.dataset, model, before) for model in params.readers(landed.dataset)]
    return reports, [failure.sentence() for report in reports for failure in report.failures]


def in_data(dataset: str, partition: str) -> list[Path]:
    """The file of a partition in data/, if there is one."""
    candidates = [settings.ROOT / f"data/{dataset}/{partition}{suffix}" for suffix in table_files.SUFFIXES]
    return [path for path in candidates if path.exists()]


# ── the landing zone ──────────────────────────────────────────────────────────────────────────────


def _arrived(landing: Zone, seconds: float) -> tuple[list[Landed], list[Landed]]:
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
    in_order = sorted(look, key=lambda entry: (entry[0].partition, entry[0].dataset, -(entry[1] or 0.0)))
    return [landed for landed, _ in in_order if landed not in arriving], arriving


def _sweep(params: Params) -> None:
    """Remove what a killed run left beside its targets. The lock is held, so no other process is writing."""
    files.remove(paths.incoming_data())
    for left in (settings.ROOT / "data").glob("*/.*.tmp"):
        files.remove(left)
    files.sweep(files.memos(), *filter(None, [zones.quarantine(params.quarantine).local]))
