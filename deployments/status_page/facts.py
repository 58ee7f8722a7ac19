"""What the status page shows, read where it is kept: small files, Git, and Prefect. Nothing is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from flows.prefect_support import api
from tasks.data import revisions, versions
from tasks.ground import files, http, params, paths, settings
from tasks.ground.errors import EvergreenError, Mistake
from tasks.ground.git import Clone
from tasks.release.registry import candidate_outcome, desired_state, verdict_ledger
from tasks.release.registry.desired_state import DesiredState, ReleaseRef

BROKEN = (EvergreenError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What a file that is not as it should be makes of whoever reads it: it is told where its part would be."""

TAIL = 400_000
"""Of a ledger, so many bytes are read, from its end."""

VERSIONS = 8
"""So many data versions are looked up in Git."""

T = TypeVar("T")


Ledger = list[dict[str, Any]]
"""The lines of a ledger, oldest first."""


@dataclass(frozen=True)
class Broken:
    """What could not be read, and why."""

    why: str


def attempt(read: Callable[[], T]) -> T | Broken:
    """What is read, or why it cannot be."""
    try:
        return read()
    except BROKEN as error:
        return Broken(said(error))


def unbroken(read: T | Broken) -> T:
    """What was read.

    Raises:
        Mistake: it could not be; says why.
    """
    if isinstance(read, Broken):
        raise Mistake(read.why)
    return read


def said(error: BaseException) -> str:
    """An error in one line; one that is not ours with its kind, as its text alone may be a word."""
    text = " ".join(str(error).split())
    return text if isinstance(error, EvergreenError) else f"{type(error).__name__}: {text}"


# ── files ─────────────────────────────────────────────────────────────────────────────────────────


def read(path: Path) -> Any:
    """A JSON file; None where there is none.

    Raises:
        Mistake: it is not JSON. Says which file.
    """
    try:
        return files.read_json(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Mistake(
            f"{shown(path)} is not JSON ({error}): whoever writes it next makes it whole, or remove it"
        ) from None


def ledger(path: Path) -> Ledger:
    """The newest lines of a ledger, oldest first. One that is just being written, or is torn, is left out."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - TAIL))
            content = stream.read()
    except FileNotFoundError:
        return []
    begin = content.find(b"\n") + 1 if size > TAIL else 0
    return files.whole_lines(content[begin : content.rfind(b"\n") + 1], path)


def shown(path: Path) -> str:
    """A path as a person who stands in the project's folder would write it."""
    return path.relative_to(settings.ROOT).as_posix() if path.is_relative_to(settings.ROOT) else str(path)


# ── a model ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Model:
    """What was read of one model; each may be broken by itself."""

    name: str
    section: params.Model
    serving: DesiredState | Broken
    release: Release | Broken | None
    report: dict[str, Any] | Broken | None
    """What the monitor wrote."""
    verdicts: Ledger | Broken
    """What the gate said: var/verdicts/<model>.jsonl (tasks/release/registry/verdict_ledger.py)."""
    settled: candidate_outcome.CachedOutcome | Broken | None
    decisions: Ledger | Broken
    """What the retrain policy said: var/decisions/<model>.jsonl."""
    rollouts: Ledger | Broken

    @classmethod
    def read(cls, name: str, section: params.Model) -> Model:
        """Read everything there is to know of it."""
        now = attempt(lambda: desired_state.read(name))
        live = None if isinstance(now, Broken) else now.live
        return cls(
            name,
            section,
            now,
            attempt(lambda: release(name, live.candidate)) if live else None,
            attempt(lambda: _report(name)),
            attempt(lambda: ledger(verdict_ledger.path(name))),
            attempt(lambda: candidate_outcome.find(name)),
            attempt(lambda: ledger(paths.decisions(name))),
            attempt(lambda: desired_state.history(name)),
        )

    @property
    def live(self) -> ReleaseRef | None:
        """Who serves, as far as that is known."""
        return None if isinstance(self.serving, Broken) else self.serving.live

    @property
    def alarms(self) -> Ledger:
        """Those that are open, the newest first."""
        kept = self.report.get("alarms") or [] if isinstance(self.report, dict) else []
        return sorted(
            (one for one in kept if one.get("closed") is None), key=lambda one: str(one.get("opened")), reverse=True
        )


def _report(model: str) -> dict[str, Any] | None:
    """The monitor's report.

    Raises:
        Mistake: it is something else. Says which file.
    """
    path = paths.monitoring_report(model)
    found = read(path)
    if found is None or (isinstance(found, dict) and all(isinstance(one, dict) for one in found.get("alarms") or [])):
        return found
    raise Mistake(
        f"{shown(path)} is not what the monitor writes: remove it, and the next run of monitor/{model} makes it again"
    )


@dataclass(frozen=True)
class Release:
    """What a release says of itself."""

    metrics: Mapping[str, float]
    overall: Mapping[str, Mapping[str, float]]
    """The same with intervals, as far as its evaluation is on this machine."""
    rows: int
    until: str
    """The time of the newest row it learned from."""


def release(model: str, candidate: str) -> Release | None:
    """Of one that is in the store or in build/; None where it is in neither."""
    build = settings.BUILD / model
    store = Path(os.environ["BENTOML_HOME"]) / "bentos" / model / candidate / "src"
    in_build = (read(build / "release" / "candidate.json") or {}).get("candidate") == candidate
    held = read(build / "release" / "release.json" if in_build else store / "release.json")
    if held is None:
        return None
    evaluation = build / "evaluation" if in_build else paths.champions() / candidate / "evaluation"
    overall = (read(evaluation / "slices.json") or {}).get("overall", {}).get("metrics", {})
    training = held["training"]
    return Release(held["metrics"], overall, training["rows"], training["until"])


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Version:
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


def committed() -> list[Version]:
    """The newest data versions of this branch's history, the newest first; none where there is no Git."""
    clone, form = Clone(settings.ROOT), "--format=%h%x02%cI%x02%s"
    done = clone.attempt("log", f"-n{VERSIONS}", form, "--", "data.dvc")
    if done.returncode:
        return []
    entries = (line.split("\x02") for line in done.stdout.splitlines())
    return [found for commit, time, subject in entries if (found := _committed(clone, commit, time, subject))]


def _committed(clone: Clone, commit: str, time: str, subject: str) -> Version | None:
    """What a commit says; None where it took data.dvc out, or committed one that names nothing."""
    named = attempt(lambda: versions.parse(clone.show(commit, "data.dvc") or ""))
    return None if isinstance(named, Broken) else Version(commit, time, subject, named.md5, named.nfiles)


def announced() -> str | None:
    """The data version that the models were told of last."""
    note = read(paths.announced_data())
    return note["version"] if note else None


@dataclass(frozen=True)
class Refused:
    """A partition that waits in quarantine."""

    dataset: str
    partition: str
    reason: str
    todo: str
    time: datetime
    folder: str


def refused(quarantine: str) -> list[Refused] | None:
    """What waits in quarantine, the newest first; None where that is not a folder of this machine."""
    if "://" in quarantine:
        return None
    found = []
    for path in (settings.ROOT / quarantine).glob("*/*/report.json"):
        if path.with_name("closed.json").exists():
            continue
        held = read(path) or {}
        time = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        folder = shown(path.parent)
        found.append(Refused(held["dataset"], held["partition"], held["reason"], held["todo"], time, folder))
    return sorted(found, key=lambda one: (one.time, one.folder), reverse=True)


# ── where the tools are ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Tools:
    """Addresses for a browser; None for what does not answer."""

    prefect: str | None
    mlflow: str | None
    router: str | None

    def run(self, noted: str | None) -> str | None:
        """A flow run that somebody noted the address of, at the server of now.

        The one of then may have been another over the same database: `make run` starts one that ends with it.
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
    known = os.environ["MLFLOW_TRACKING_URI"]
    mlflow = known.rstrip("/") if known.startswith("http") else f"http://127.0.0.1:{os.environ['MLFLOW_PORT']}"
    router = f"http://{_reachable(os.environ['EVERGREEN_HOST'])}:{os.environ['EVERGREEN_PORT']}"
    return Tools(
        ui if http.answers(f"{prefect}/health") else None,
        mlflow if http.answers(f"{mlflow}/health") else None,
        router if http.answers(f"{router}/healthz") else None,
    )


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound


# ── what Prefect has ahead ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Plan:
    """A deployment: when it runs next, and what its last run said."""

    title: str
    """As Prefect writes it: flow/deployment."""
    url: str
    cron: str | None
    """The schedule; None where there is none, or it is off."""
    paused: bool
    next: str | None
    running: str | None
    """Where a person looks at the run that is under way."""
    last: Last | None


@dataclass(frozen=True)
class Last:
    """How the last run ended."""

    state: str
    """COMPLETED, FAILED, CRASHED or CANCELLED."""
    name: str
    message: str
    time: str
    url: str


def plans(ui: str) -> dict[str, Plan]:
    """Title → what is planned, for each of Evergreen's deployments.

    Raises:
        PrefectApiError: the Prefect server does not answer, or refuses.
    """
    ours = {"deployments": {"tags": {"all_": ["evergreen"]}}}
    names = {one["id"]: one["name"] for one in api.call("/flows/filter", {}, patience=0)}
    there = api.call("/deployments/filter", ours, patience=0)
    ahead = _runs(ours, ["SCHEDULED"], "NEXT_SCHEDULED_START_TIME_ASC")
    going = _runs(ours, ["PENDING", "RUNNING", "CANCELLING"], "EXPECTED_START_TIME_DESC")
    ended = _runs(ours, ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"], "END_TIME_DESC")
    found = [
        _plan(
            ui,
            f"{names.get(one['flow_id'], '?')}/{one['name']}",
            one,
            _of(ahead, one),
            _of(going, one),
            _of(ended, one),
        )
        for one in there
    ]
    return {plan.title: plan for plan in sorted(found, key=lambda plan: plan.title)}


def _runs(ours: dict[str, Any], types: list[str], sort: str) -> list[dict[str, Any]]:
    wanted = {"state": {"type": {"any_": types}, "name": {"not_any_": ["Coalesced"]}}}
    return list(api.call("/flow_runs/filter", {**ours, "flow_runs": wanted, "sort": sort, "limit": 100}, patience=0))


def _of(runs: list[dict[str, Any]], deployment: Mapping[str, Any]) -> dict[str, Any] | None:
    return next((run for run in runs if run["deployment_id"] == deployment["id"]), None)


def _plan(
    ui: str,
    title: str,
    one: Mapping[str, Any],
    ahead: Mapping[str, Any] | None,
    going: Mapping[str, Any] | None,
    ended: Mapping[str, Any] | None,
) -> Plan:
    active = [entry["schedule"].get("cron") for entry in one["schedules"] if entry["active"]]
    last = None
    if ended:
        state = ended["state"]
        message = " ".join((state["message"] or "").split())
        time = ended["end_time"] or state["timestamp"]
        last = Last(state["type"], state["name"], message, time, api.run_url(ended["id"]))
    return Plan(
        title=title,
        url=f"{ui}/deployments/deployment/{one['id']}",
        cron=next((cron for cron in active if cron), None),
        paused=bool(one["paused"]),
        next=ahead["next_scheduled_start_time"] or ahead["expected_start_time"] if ahead else None,
        running=api.run_url(going["id"]) if going else None,
        last=last,
    )


# ── what is looked at for changes ─────────────────────────────────────────────────────────────────

LOOKED_AT = (
    "params.yaml",
    "data.dvc",
    "data/*",
    ".git/logs/HEAD",
    "var/serving/*.json",
    "var/rollouts/*",
    "var/monitoring/*/report.json",
    "var/verdicts/*.jsonl",
    "var/decisions/*.jsonl",
    "var/mlflow/settled/*.json",
    "var/memo/announced.json",
    "var/reports/data-docs/index.html",
)
"""Below the project's folder."""


def state_of_files(quarantine: str | None) -> frozenset[tuple[str, int, int]]:
    """Changes when something does that the page shows."""
    patterns = (*LOOKED_AT, *([f"{quarantine}/*/*"] if quarantine and "://" not in quarantine else []))
    return frozenset(_states(patterns))


def _states(patterns: tuple[str, ...]) -> Iterator[tuple[str, int, int]]:
    for pattern in patterns:
        root = Path(pattern) if Path(pattern).is_absolute() else settings.ROOT / pattern
        parts = root.parts
        plain = next((k for k, part in enumerate(parts) if "*" in part), len(parts))
        base, rest = Path(*parts[:plain]), "/".join(parts[plain:])
        for path in base.glob(rest) if rest else [base]:
            try:
                held = path.stat()
            except FileNotFoundError:
                continue
            yield str(path), held.st_mtime_ns, held.st_size
