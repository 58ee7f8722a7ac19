"""What the status page shows of models, data and tools, read from small files and Git. Nothing is written."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tasks.data import quarantine, revisions, versions
from tasks.data.quarantine import QuarantineEntry
from tasks.ground import files, http, params, paths, settings
from tasks.ground.errors import EvergreenError, FileTorn, Mistake
from tasks.ground.git import Clone
from tasks.ground.words import one_line
from tasks.journal import journal
from tasks.release import bento_store
from tasks.release.registry import candidate_outcome, desired_state
from tasks.release.registry.desired_state import DesiredState, ReleaseRef

BROKEN = (EvergreenError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What reading a file that is not as it should be raises: the reason stands where its part would be."""

NEWEST = 200  # so many verdicts and decisions are shown at most
VERSIONS = 8  # so many data versions are looked up in Git

T = TypeVar("T")
Lines = list[dict[str, Any]]  # of the journal, oldest first


@dataclass(frozen=True)
class Broken:
    """What could not be read, and why."""

    why: str


def attempt(read: Callable[[], T]) -> T | Broken:
    """What is read, or why it cannot be."""
    try:
        return read()
    except BROKEN as error:
        return Broken(reason(error))


def unbroken(read: T | Broken) -> T:
    """What was read; an error that says why where it could not be."""
    if isinstance(read, Broken):
        raise Mistake(read.why)
    return read


def reason(error: BaseException) -> str:
    """An error in one line; one that is not ours with its kind, as its text alone may be a word."""
    text = one_line(error)
    return text if isinstance(error, EvergreenError) else f"{type(error).__name__}: {text}"


# ── files ─────────────────────────────────────────────────────────────────────────────────────────


def read(path: Path) -> Any:
    """A JSON file; None where there is none. An error names no folder of this machine: the page is shown to others."""
    try:
        return files.read_json(path)
    except FileNotFoundError:
        return None
    except FileTorn as error:
        raise FileTorn(str(error).replace(str(path), shown(path))) from None


def shown(path: Path) -> str:
    """A path relative to the project's folder, if it is below it."""
    return path.relative_to(settings.ROOT).as_posix() if path.is_relative_to(settings.ROOT) else str(path)


# ── a model ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ModelFacts:
    """What was read of one model; each may be broken by itself."""

    name: str
    section: params.Model
    serving: DesiredState | Broken
    release: ReleaseFacts | Broken | None
    report: dict[str, Any] | Broken | None  # the monitor's
    verdicts: Lines | Broken  # the gate's
    outcome: candidate_outcome.CachedOutcome | Broken | None
    decisions: Lines | Broken  # the retrain policy's
    rollouts: Lines | Broken

    @classmethod
    def read(cls, name: str, section: params.Model) -> ModelFacts:
        """Read all of it."""
        now = attempt(lambda: desired_state.read(name))
        live = None if isinstance(now, Broken) else now.live
        return cls(
            name,
            section,
            now,
            attempt(lambda: release(name, live.candidate)) if live else None,
            attempt(lambda: monitoring_report(name)),
            attempt(lambda: _newest(name, "verdict")),
            attempt(lambda: candidate_outcome.find(name)),
            attempt(lambda: _newest(name, "decision")),
            attempt(lambda: desired_state.history(name)),
        )

    @property
    def live(self) -> ReleaseRef | None:
        """The live release; None where there is none, or it cannot be read."""
        return None if isinstance(self.serving, Broken) else self.serving.live

    @property
    def alarms(self) -> Lines:
        """The open ones, the newest first."""
        reported = self.report.get("alarms") or [] if isinstance(self.report, dict) else []
        are_open = [alarm for alarm in reported if alarm.get("closed") is None]
        return sorted(are_open, key=lambda alarm: str(alarm.get("opened")), reverse=True)


def _newest(model: str, kind: journal.Kind) -> Lines:
    return [line.flat for line in journal.newest(model, NEWEST, kind)]


def monitoring_report(model: str) -> dict[str, Any] | None:
    """The monitor's report."""
    path = paths.monitoring_report(model)
    report = read(path)
    if report is None or (isinstance(report, dict) and all(isinstance(a, dict) for a in report.get("alarms") or [])):
        return report
    raise Mistake(
        f"{shown(path)} is not what the monitor writes: remove it, and the next run of monitor/{model} makes it again"
    )


@dataclass(frozen=True)
class ReleaseFacts:
    """A release by its own documents."""

    metrics: Mapping[str, float]
    overall: Mapping[str, Mapping[str, float]]  # the same with intervals, as far as its evaluation is on this machine
    rows: int
    until: str | None  # the time of the newest row it was trained on; None where rows have none
    document: Mapping[str, Any] = field(default_factory=dict)  # release.json
    details: Mapping[str, Any] = field(default_factory=dict)  # slices.json, as far as it is on this machine

    @property
    def slices(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """Column → value → its rows and metrics."""
        return self.details.get("slices", {})  # type: ignore[no-any-return]

    @property
    def importance(self) -> Mapping[str, Mapping[str, float]]:
        """Feature → how much worse the answers are without it."""
        return self.details.get("importance", {})  # type: ignore[no-any-return]

    @property
    def baseline(self) -> Mapping[str, float]:
        """The metrics of the usual answer, whatever is asked."""
        return self.details.get("baseline", {})  # type: ignore[no-any-return]


def release(model: str, candidate: str) -> ReleaseFacts | None:
    """A release in the store or in build/; None where it is in neither."""
    build = settings.BUILD / model
    store = bento_store.release_folder(model, candidate)
    in_build = (read(build / "release" / "candidate.json") or {}).get("candidate") == candidate
    document = read(build / "release" / "release.json" if in_build else store / "release.json")
    if document is None:
        return None
    evaluation = build / "evaluation" if in_build else paths.champions() / candidate / "evaluation"
    details = read(evaluation / "slices.json") or {}
    overall = details.get("overall", {}).get("metrics", {})
    training = document["training"]
    return ReleaseFacts(document["metrics"], overall, training["rows"], training["until"], document, details)


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class CommittedVersion:
    """A data version as Git has it."""

    commit: str
    time: str
    subject: str
    md5: str
    nfiles: int | None


def partitions() -> dict[str, list[str]]:
    """Dataset → the names of its partitions in data/."""
    folders = sorted(path for path in (settings.ROOT / "data").glob("*") if path.is_dir())
    return {
        folder.name: sorted(path.stem for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        for folder in folders
    }


def revised() -> dict[str, int]:
    """Dataset → how many of its partitions were corrected or withdrawn since they came."""
    return dict(Counter(name.partition("/")[0] for name in revisions.read()))


def version() -> tuple[str, datetime] | None:
    """The data version that data.dvc names, and since when."""
    named = versions.current()
    if named is None:
        return None
    return named, datetime.fromtimestamp((settings.ROOT / "data.dvc").stat().st_mtime, UTC)


def committed() -> list[CommittedVersion]:
    """The newest data versions of this branch's history, the newest first; none where there is no Git."""
    clone, form = Clone(settings.ROOT), "--format=%h%x02%cI%x02%s"
    done = clone.attempt("log", f"-n{VERSIONS}", form, "--", "data.dvc")
    if done.returncode:
        return []
    entries = (line.split("\x02") for line in done.stdout.splitlines())
    committed = []
    for commit, time, subject in entries:
        with suppress(*BROKEN):  # it took data.dvc out, or committed one that names nothing
            named = versions.parse(clone.show(commit, "data.dvc") or "")
            committed.append(CommittedVersion(commit, time, subject, named.md5, named.nfiles))
    return committed


def announced() -> str | None:
    """The data version that the models were notified of last."""
    note = read(paths.announced_data())
    return note["version"] if note else None


def refused(url: str) -> list[QuarantineEntry] | None:
    """What waits in quarantine, the newest first; None where the quarantine is a bucket."""
    return None if "://" in url else quarantine.waiting(url)


# ── where the tools are ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Tools:
    """Addresses for a browser; None for what does not answer."""

    prefect: str | None
    mlflow: str | None
    router: str | None

    def run(self, noted: str | None) -> str | None:
        """The address, at the server of now, of a flow run whose address was noted.

        The server of then may have been another over the same database: `make run` starts one that ends with it.
        """
        *_, marked, name = (noted or "").rpartition("/runs/flow-run/")
        return f"{self.prefect}{marked}{name}" if self.prefect and marked else None

    def version(self, model: str, number: int) -> str | None:
        """A version of the registry."""
        return f"{self.mlflow}/#/models/{model}/versions/{number}" if self.mlflow else None


def tools() -> Tools:
    """Which of them answer now, within a second."""
    prefect = os.environ["PREFECT_API_URL"]
    ui = os.environ.get("PREFECT_UI_URL") or prefect.removesuffix("/api")
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    mlflow = tracking.rstrip("/") if tracking.startswith("http") else f"http://127.0.0.1:{os.environ['MLFLOW_PORT']}"
    host = os.environ["EVERGREEN_HOST"]
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    router = f"http://{host}:{os.environ['EVERGREEN_PORT']}"
    return Tools(
        ui if http.answers(f"{prefect}/health") else None,
        mlflow if http.answers(f"{mlflow}/health") else None,
        router if http.answers(f"{router}/healthz") else None,
    )


# ── what is looked at for changes ─────────────────────────────────────────────────────────────────

SOURCES = ("params.yaml", "data.dvc", "data/*", ".git/logs/HEAD")  # what is looked at below the project's folder

OF_MODELS = (
    paths.desired_state,
    paths.journal,
    paths.failed_rollout,
    paths.monitoring_report,
    paths.judged_candidates,
)
"""What is looked at of every model."""


def state_of_files(url: str | None) -> frozenset[tuple[str, int, int]]:
    """Changes when something does that the page shows; `url` is the quarantine's."""
    state = [*(path("*") for path in OF_MODELS), paths.announced_data(), paths.reports() / "data-docs" / "index.html"]
    patterns = [*SOURCES, *map(shown, state), *([f"{url}/*/*"] if url and "://" not in url else [])]
    states = set()
    for pattern in patterns:
        for path in glob.iglob(pattern, root_dir=settings.ROOT):  # noqa: PTH207 - a pattern may be absolute
            with suppress(FileNotFoundError):
                stat = (settings.ROOT / path).stat()
                states.add((path, stat.st_mtime_ns, stat.st_size))
    return frozenset(states)
