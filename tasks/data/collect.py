"""collect: what has arrived in the landing zone goes into data/, or into quarantine with the reason.

A reconciler. It looks at what lies there now, whoever called it and however often; a run that was killed anywhere
is repaired by the next. A file leaves the landing zone last: when its content is in quarantine, or (`clear`) when the
data version that holds it was made and pushed.

The landing zone and the quarantine are addressed by URL (fsspec), so that a bucket works where a folder does.
"""

from __future__ import annotations

import errno
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from tasks import files, settings
from tasks.data import hashes, validate
from tasks.errors import DataMissing, EvergreenError, ParamsError, SourceUnavailable, WorldError, did_you_mean
from tasks.params import Params

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload")
PARTITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")

Log = Callable[[str], object]


@dataclass(frozen=True)
class Landed:
    """A file in the landing zone, as it was when it was read."""

    dataset: str
    partition: str
    path: str
    """Where it lies, as its file system names it."""
    seen: str
    """What it looked like (size, times, tag): a file that was replaced since looks different."""
    reason: str | None = None
    """Why it was quarantined."""

    def __str__(self) -> str:
        return f"{self.dataset} {self.partition}"


@dataclass(frozen=True)
class Collected:
    """What one look at the landing zone did."""

    accepted: list[Landed] = field(default_factory=list)
    already_there: list[Landed] = field(default_factory=list)
    quarantined: list[Landed] = field(default_factory=list)
    still_arriving: list[Landed] = field(default_factory=list)


def collect(params: Params, log: Log = print) -> Collected:
    """Take in what has arrived: the good into data/, the rest into quarantine.

    Accepted files stay in the landing zone until `clear`.

    Raises:
        SourceUnavailable: the landing zone or the quarantine cannot be reached.
        ContractError: an expectation suite cannot be used; nothing is quarantined for that.
    """
    landing = Place.of(params.landing, "landing")
    settled, arriving = _settled(landing, params.settle_seconds)
    collected = Collected(still_arriving=arriving)
    for landed in arriving:
        log(f"{landed}: still arriving, left for the next look")
    with files.lock("data"), _disk("data/"):
        _sweep(params)
        for landed in settled:
            _take(landed, landing, params, collected, log)
    return collected


def clear(params: Params, collected: Collected) -> None:
    """Remove from the landing zone what is safely in data/: to be called after the data version was made and pushed.

    A file that was replaced since it was read stays for the next look.
    """
    landing = Place.of(params.landing, "landing")
    for landed in [*collected.accepted, *collected.already_there]:
        landing.remove(landed)


def deliver(params: Params, partitions: list[str], log: Log = print) -> list[str]:
    """Have the upstream put partitions into the landing zone; gives the names of the files it put there.

    Raises:
        ParamsError: params.yaml names no upstream, or one that cannot be imported.
        DataMissing: the upstream has no such partition.
        SourceUnavailable: the landing zone cannot be reached.
    """
    source = upstream(params)
    if unknown := [name for name in partitions if name not in source.partitions()]:
        hint = did_you_mean(unknown[0], source.partitions())
        raise DataMissing(f"the upstream {params.upstream} has no partition {unknown[0]!r}{hint}")
    landing = Place.of(params.landing, "landing")
    put = []
    for partition in partitions:
        for dataset, name, content in offered(source, params.datasets, partition):
            landing.put_bytes(f"{dataset}/{name}", content)
            put.append(f"{dataset}/{name}")
            log(f"delivered {dataset}/{name} ({len(content):,} bytes)")
    return put


def upstream(params: Params) -> ModuleType:
    """The module that plays the outside world: it has `partitions()` and `deliver(dataset, partition)`."""
    if params.upstream is None:
        raise ParamsError(
            "params.yaml: upstream is null, so nobody here delivers partitions: "
            "put files into the landing zone yourself"
        )
    try:
        module = import_module(params.upstream)
    except ImportError as error:
        raise ParamsError(f"params.yaml: upstream: {params.upstream} cannot be imported: {error}") from None
    for name in ("partitions", "deliver"):
        if not callable(getattr(module, name, None)):
            raise ParamsError(f"params.yaml: upstream: {params.upstream} has no {name}()")
    return module


def offered(source: ModuleType, datasets: list[str], partition: str) -> Iterator[tuple[str, str, bytes]]:
    """What an upstream has of one partition, as (dataset, file name, bytes); it need not have every dataset."""
    for dataset in datasets:
        try:
            name, content = source.deliver(dataset, partition)
        except LookupError:
            continue
        yield dataset, name, content


# ── one file ──────────────────────────────────────────────────────────────────────────────────────


def _take(landed: Landed, landing: Place, params: Params, collected: Collected, log: Log) -> None:
    """Bring one file to where it belongs, and say so."""
    with TemporaryDirectory(dir=_incoming()) as folder:
        local = Path(folder) / _safe(PurePosixPath(landed.path).name)
        if not landing.get(landed, local):
            collected.still_arriving.append(landed)
            log(f"{landed}: changed while it was read, left for the next look")
            return
        refusal = _misplaced(landed, params)
        if refusal is None:
            there = _same_name(landed)
            if there is not None and hashes.md5(there) == hashes.md5(local):
                collected.already_there.append(landed)
                log(f"{landed}: already in data/")
                return
            refusal = _refused(landed, local, there, params)
        if refusal is None:
            with files.replacing(_home(landed)) as beside:
                shutil.copyfile(local, beside)
            collected.accepted.append(landed)
            log(f"{landed}: accepted")
            return
        where = _quarantine(landed, local, refusal, params)
        landing.remove(landed)
        collected.quarantined.append(_because(landed, refusal.reason))
        log(f"{landed}: quarantined in {where}: {refusal.reason}")


@dataclass(frozen=True)
class Refusal:
    """Why a file may not be taken, and the reports when it was validated."""

    reason: str
    todo: str
    reports: list[validate.Report] = field(default_factory=list)


def _misplaced(landed: Landed, params: Params) -> Refusal | None:
    """What can be said of a file from its name alone."""
    todo = f"Deliver it as `<dataset>/<partition>.csv` or `.parquet`; datasets: {', '.join(params.datasets)}"
    path = PurePosixPath(landed.path)
    if not landed.dataset or "/" in landed.dataset:
        return Refusal(f"it lies in {landed.dataset or 'no folder'}, not directly in the folder of a dataset", todo)
    if landed.dataset not in params.datasets:
        hint = did_you_mean(landed.dataset, params.datasets)
        return Refusal(f"no model reads a dataset {landed.dataset!r}{hint}", todo)
    if path.suffix not in validate.SUFFIXES:
        hint = did_you_mean(path.suffix, list(validate.SUFFIXES))
        return Refusal(f"its suffix is {path.suffix or 'missing'}, not .csv or .parquet{hint}", todo)
    if not PARTITION.fullmatch(landed.partition):
        return Refusal(f"{landed.partition!r} is not a partition's name: letters, digits, - and _, at most 100", todo)
    return None


def _refused(landed: Landed, local: Path, there: Path | None, params: Params) -> Refusal | None:
    """What can be said of a file from its content."""
    if there is not None:
        return Refusal(
            f"same name, other content: data/{landed.dataset}/{there.name} is there already, "
            "and partitions are immutable",
            f"Deliver a correction under a new name; or, to replace it, remove data/{landed.dataset}/{there.name}, "
            f"`dvc add data`, and deliver again",
        )
    readers = params.readers(landed.dataset)
    before, after = _neighbours(landed)
    reports = validate.validate_partition(local, landed.dataset, readers, before)
    todo = (
        "If the file is wrong, have it made again and delivered under the same name. If the expectation is too strict, "
        f"change models/<model>/expectations/{landed.dataset}.yaml and deliver the file again"
    )
    if failed := [check for report in reports for check in report.failures]:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return Refusal(f"{validate.sentence(failed[0])}{more}", todo, reports)
    if after is not None:
        # arrived late: the one after it, accepted before, must still pass, or the validate stage would stop at it
        later = validate.validate_partition(after, landed.dataset, readers, local)
        if failed := [check for report in later for check in report.failures]:
            why = f"with it, {after.stem}, which is in data/ already, would not pass: {validate.sentence(failed[0])}"
            return Refusal(why, todo, later)
    return None


def _neighbours(landed: Landed) -> tuple[Path | None, Path | None]:
    """The accepted partitions just before and just after this one."""
    there = validate.partitions(landed.dataset)
    before = [path for path in there if path.stem < landed.partition]
    after = [path for path in there if path.stem > landed.partition]
    return (before[-1] if before else None), (after[0] if after else None)


def _same_name(landed: Landed) -> Path | None:
    return next((path for path in validate.partitions(landed.dataset) if path.stem == landed.partition), None)


def _home(landed: Landed) -> Path:
    return settings.ROOT / "data" / landed.dataset / PurePosixPath(landed.path).name


def _because(landed: Landed, reason: str) -> Landed:
    return Landed(landed.dataset, landed.partition, landed.path, landed.seen, reason)


# ── quarantine ────────────────────────────────────────────────────────────────────────────────────


def _quarantine(landed: Landed, local: Path, refusal: Refusal, params: Params) -> str:
    """Put a file with its report into quarantine; the same file is put to the same place."""
    place = Place.of(params.quarantine, "quarantine")
    folder = f"{_safe(landed.dataset)}/{_safe(landed.partition)}-{files.md5(local)[:8]}"
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
    place.put_folder(folder, local.parent)
    return f"{masked(params.quarantine)}/{folder}"


def _page(landed: Landed, local: Path, refusal: Refusal) -> str:
    title = f"# Quarantined: {landed.dataset or '(no dataset)'} / {local.name}"
    head = f"{title}\n\n**Why:** {refusal.reason}.\n\n**What to do:** {refusal.todo}.\n"
    return head + ("\n" + validate.to_markdown(refusal.reports) if refusal.reports else "")


def _safe(name: str) -> str:
    """A name that can only be a name: no separator, nothing hidden, not long."""
    return re.sub(r"[^A-Za-z0-9_.=-]", "_", name).lstrip(".")[-100:] or "unnamed"


# ── the landing zone ──────────────────────────────────────────────────────────────────────────────


def _settled(landing: Place, seconds: float) -> tuple[list[Landed], list[Landed]]:
    """The files that have arrived (unchanged for `seconds`), and those that are still arriving."""
    look = landing.look()
    young = {landed.path: landed for landed, age in look if age is not None and age < seconds}
    if young:
        time.sleep(seconds - max(0.0, min(age for _, age in look if age is not None)))
        again = {landed.path: landed for landed, _ in landing.look()}
        look = [(again[landed.path], age) for landed, age in look if landed.path in again]
    arriving = [landed for landed, _ in look if landed.path in young and landed != young[landed.path]]
    settled = [landed for landed, _ in look if landed not in arriving]
    return sorted(settled, key=lambda landed: (landed.partition, landed.dataset)), arriving


def _incoming() -> Path:
    folder = settings.VAR / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _sweep(params: Params) -> None:
    """Remove what a killed run left beside its targets. Called while the lock is held, so nobody is writing."""
    files.remove(settings.VAR / "incoming")
    for left in (settings.ROOT / "data").glob("*/.*.tmp"):
        files.remove(left)
    quarantine = Place.of(params.quarantine, "quarantine")
    files.sweep(settings.VAR / "memo", *([Path(quarantine.root)] if quarantine.local else []))


@dataclass(frozen=True)
class Place:
    """A folder or a bucket's prefix."""

    fs: Any
    root: str
    url: str = field(repr=False)  # may hold credentials
    role: str

    @classmethod
    def of(cls, url: str, role: str) -> Place:
        """The place a URL or a path (relative ones are below settings.ROOT) names."""
        from fsspec.core import url_to_fs

        with _reaching(url, role):
            fs, root = url_to_fs(url if "://" in url else str(settings.ROOT / url))
        place = cls(fs, root.rstrip("/"), url, role)
        if place.local and Path(root).is_relative_to(settings.ROOT):
            Path(root).mkdir(parents=True, exist_ok=True)
        return place

    @property
    def local(self) -> bool:
        """Whether this is a folder, where a rename replaces in one step."""
        return "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def look(self) -> list[tuple[Landed, float | None]]:
        """Every file that is not hidden or unfinished, with its age in seconds where the store knows it."""
        with _reaching(self.url, self.role):
            self.fs.invalidate_cache()
            found: Mapping[str, Mapping[str, Any]] = self.fs.find(self.root, detail=True)
            if not found:
                self._must_be_there()
        result = []
        for path in sorted(found):
            parts = PurePosixPath(path.removeprefix(self.root).strip("/")).parts
            if not any(part.startswith(".") and part != ".." for part in parts) and not path.endswith(UNFINISHED):
                stem, dataset = PurePosixPath(path).stem, "/".join(parts[:-1])
                result.append((Landed(dataset, stem, path, _looks(found[path])), _age(found[path])))
        return result

    def get(self, landed: Landed, local: Path) -> bool:
        """Copy a landed file here; False when it is gone or was replaced since it was seen."""
        if not self._unchanged(landed):
            return False
        with _reaching(self.url, self.role), _disk("var/incoming/"):
            self.fs.get_file(landed.path, str(local))
        return self._unchanged(landed)

    def remove(self, landed: Landed) -> None:
        """Remove a landed file, unless it was replaced since it was seen."""
        if self._unchanged(landed):
            with _reaching(self.url, self.role):
                self.fs.rm_file(landed.path)

    def put_bytes(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        if self.local:
            with _disk(masked(self.url)), files.replacing(Path(self.root) / name) as beside:
                beside.write_bytes(content)
            return
        with _reaching(self.url, self.role):
            self.fs.pipe_file(f"{self.root}/{name}", content)

    def put_folder(self, name: str, folder: Path) -> None:
        """Write the files of a folder: at once where a rename can do it, else one by one, the report.json last."""
        if self.local:
            with _disk(masked(self.url)), files.replacing(Path(self.root) / name) as beside:
                beside.mkdir()
                for path in folder.iterdir():
                    shutil.copyfile(path, beside / path.name)
            return
        with _reaching(self.url, self.role):
            for path in sorted(folder.iterdir(), key=lambda path: path.name == "report.json"):
                self.fs.pipe_file(f"{self.root}/{name}/{path.name}", path.read_bytes())

    def _unchanged(self, landed: Landed) -> bool:
        with _reaching(self.url, self.role):
            self.fs.invalidate_cache()
            try:
                return _looks(self.fs.info(landed.path)) == landed.seen
            except FileNotFoundError:
                return False

    def _must_be_there(self) -> None:
        """An empty listing may also mean that the folder is not mounted or the bucket does not exist."""
        if self.local:
            Path(self.root).stat()
        else:
            self.fs.ls(self.root.split("/")[0])


def _looks(info: Mapping[str, Any]) -> str:
    """What tells that a file was replaced: its size and the store's own tag, or else its time and inode."""
    lower = {key.lower(): info[key] for key in info}
    tag = lower.get("etag") or lower.get("md5hash")
    return files.digest([lower.get("size"), str(tag) if tag else [str(_moment(info)), lower.get("ino")]])


def _age(info: Mapping[str, Any]) -> float | None:
    """Seconds since a file last changed, as far as the store says."""
    moment = _moment(info)
    return None if moment is None else time.time() - moment


def _moment(info: Mapping[str, Any]) -> float | None:
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        moment = info.get(key)
        if moment is not None:
            seconds = moment.timestamp() if hasattr(moment, "timestamp") else moment
            return float(seconds) if isinstance(seconds, int | float) else None
    return None


def masked(text: str, url: str = "") -> str:
    """A text as it may be shown: without what stands before the @ of the URLs in it, nor of this one."""
    for secret in re.findall(r"://([^/@]*)@", url):
        text = text.replace(secret, "***")
    return re.sub(r"://[^/@]*@", "://***@", text)


@contextmanager
def _reaching(url: str, role: str) -> Iterator[None]:
    """Whatever a store's own client raises, said as one error."""
    try:
        yield
    except EvergreenError:
        raise
    except Exception as error:  # every store has its own client with its own exceptions; none is swallowed
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise _full(masked(url), error) from error
        said = " ".join(str(error).split()) or type(error).__name__
        raise SourceUnavailable(
            f"the {role} zone {masked(url)} cannot be reached: {masked(said, url)}. "
            f"Check `{role}` in params.yaml, the network and the credentials, then run again: nothing was lost"
        ) from error


@contextmanager
def _disk(where: str) -> Iterator[None]:
    """A full disk, said as such. What was being written is gone (files.replacing), what was there is untouched."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full(where, error) from error
        raise


def _full(where: str, error: OSError) -> WorldError:
    named = f" ({error.filename})" if error.filename else ""
    return WorldError(
        f"no space left on the disk while writing to {where}{named}. "
        "Nothing is half-written; free some space, then run again"
    )
