"""What waiting costs: `make up` as a user starts it, a partition that arrives, a wake-up with nothing to do.

The platform runs in a scratch copy of the project as it ships, started by `make up DETACH=1` on free ports and ended by
`make down`. What training waits for anyway is measured twice, each time in one process without watcher, worker or
wake-ups: the flows `ingest` and `train` on a second copy in the same state, and the bare script on the same months.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from flows.prefect_support import api
from tasks.ground import files, http, process_tags

if TYPE_CHECKING:
    from benchmarks.scratch import Project, Scratch

MODELS = ("flight_delay", "hourly_departures")
FIRST, NEXT = range(1, 7), (7, 8, 9, 10)
"""The months that are there before, and those of which one arrives per round."""

PORTS = ("PREFECT_SERVER_API_PORT", "MLFLOW_PORT", "EVERGREEN_PORT")
OURS = ("EVERGREEN_", "PREFECT_", "MLFLOW_", "BENTOML_", "DVC_", "PYTHON", "OMP_", "MAKE", "MFLAGS")

READY, PSS, RSS, LATER, LOAD = "ready", "pss", "rss", "later", "load"
DIRECT, BARE, WAKE = "direct", "bare", "wake {}"
BARE_LATER = {"import MLflow", "train", "evaluate, with pictures", "log and register", "exit"}
"""What the bare script does when it has begun to train."""

MOMENTS = (("ingest", "start_time"), ("ingest", "end_time"), ("train", "start_time"))


@dataclass
class Figures:
    """What was measured, round by round: a name → seconds, or bytes."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def note(self, name: str, value: float) -> None:
        """Keep one figure."""
        self.rounds.setdefault(name, []).append(value)


def measure(scratch: Scratch, repeat: int) -> Figures:
    """Start, deliver, wake, end; as often as there are months."""
    figures = Figures()
    up, direct = (scratch.project(name, list(MODELS)) for name in ("up", "direct"))
    for project in (up, direct):
        project.arrive(FIRST)
        project.flows("ingest", *(f"train:{model}" for model in MODELS))
    shutil.copy2(Path(__file__).parent.parent / "Makefile", up.root)
    (up.root / ".venv").symlink_to(sys.prefix)
    for number, month in zip(range(repeat), NEXT, strict=False):
        print(f"the platform, round {number + 1}", flush=True)
        figures.note(LOAD, os.getloadavg()[0])
        _directly(direct, month, figures)
        parts = scratch.bare(range(1, month + 1), "bare-waiting").parts
        figures.note(BARE, sum(seconds for part, seconds in parts.items() if part not in BARE_LATER))
        with _platform(up.root, figures) as server:
            _arrival(up.root, scratch, server, month, figures)
            _idle_wakes(up.root, server, figures)
    return figures


# ── the platform ──────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _platform(root: Path, figures: Figures) -> Iterator[str]:
    """`make up DETACH=1` until `make down`, also when something fails; gives the address of its Prefect API."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    ports = {name: str(http.free_port()) for name in PORTS}

    def make(*words: str) -> None:
        # -o: .venv is this one, and not to be made again for the copied lock's date
        command = ["make", "-o", ".venv/.ready", *words]
        done = subprocess.run(command, cwd=root, env={**kept, **ports}, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")

    try:
        begin = time.monotonic()
        make("up", "DETACH=1")
        figures.note(READY, time.monotonic() - begin)
        for name, size in _weight(root).items():
            figures.note(name, size)
        yield f"http://127.0.0.1:{ports['PREFECT_SERVER_API_PORT']}/api"
        figures.note(LATER, _weight(root)[RSS])
    finally:
        make("down")
    if left := process_tags.tagged(str(root)):
        sys.exit(f"make down has left {', '.join(str(one.pid) for one in left)}")


def _stack(root: Path) -> dict[str, Any]:
    return dict(files.read_json(root / "var" / "run" / "stack.json"))


def _weight(root: Path) -> dict[str, float]:
    """Bytes of all that the platform has started, itself included; a shared page counts in part (PSS) or wholly."""
    weighed = [one.memory_full_info() for one in [*process_tags.tagged(str(root)), psutil.Process(_stack(root)["pid"])]]
    return {PSS: sum(getattr(one, "pss", one.uss) for one in weighed), RSS: sum(one.rss for one in weighed)}


# ── a partition arrives ───────────────────────────────────────────────────────────────────────────


def _arrival(root: Path, scratch: Scratch, server: str, month: int, figures: Figures) -> None:
    """From the moment its last file has its name in the landing zone to the start of each training."""
    for file in sorted((scratch.folder / "delivered").glob(f"*/*-{month:02d}.csv")):
        target = root / "var" / "landing" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target.with_suffix(".tmp"))
        target.with_suffix(".tmp").rename(target)
    arrived = time.time()
    for model in MODELS:
        figures.note(model, _began(server, model, arrived) - arrived)
    _until(lambda: not _going(server), "the end of the trainings")
    for flow, moment in MOMENTS:
        which = {"flows": {"name": {"any_": [flow]}}, "flow_runs": {"start_time": {"after_": _said(arrived)}}}
        runs = _ask(server, "/flow_runs/filter", {**which, "sort": "START_TIME_ASC"})
        run = next(one for one in runs if one["parameters"].get("model", MODELS[0]) == MODELS[0])
        figures.note(f"{flow} {moment}", datetime.fromisoformat(run[moment]).timestamp() - arrived)


def _directly(project: Project, month: int, figures: Figures) -> None:
    """The same in one process, from its start to the training of the first model."""
    project.arrive(range(month, month + 1))
    begin = time.time()
    project.flows("ingest", *(f"train:{model}" for model in MODELS))
    figures.note(DIRECT, _began(project.scratch.api, MODELS[0], begin) - begin)


def _began(server: str, model: str, since: float) -> float:
    """When the stage `train` of a model began, the first time after a moment; waits for it."""

    def found() -> list[float]:
        runs = _ask(server, "/task_runs/filter", {"task_runs": {"name": {"any_": [f"train@{model}"]}}})
        starts = [datetime.fromisoformat(one["start_time"]).timestamp() for one in runs if one["start_time"]]
        return sorted(start for start in starts if start > since)  # seconds since 1970

    return float(_until(found, f"the training of {model}")[0])


# ── a wake-up with nothing to do ──────────────────────────────────────────────────────────────────


def _idle_wakes(root: Path, server: str, figures: Figures) -> None:
    """What the flow run's processes use: worker and forkserver have waited for them, so the kernel has added them up.

    The schedules rest meanwhile, as theirs would be added up, too.
    """
    parents = [psutil.Process(_stack(root)["services"][name]) for name in ("worker", "forkserver")]
    for deployment in _ask(server, "/deployments/filter", {}):
        _ask(server, f"/deployments/{deployment['id']}/pause_deployment", {})
    for title in ("ingest/ingest", *(f"train/{model}" for model in MODELS)):
        _until(lambda: not _going(server) and not _children(parents), "rest")
        before = _used(parents)
        message = _woken(server, title)
        _until(lambda: not _children(parents), "rest")
        if not message.startswith(("nothing to do", "nothing new")):
            sys.exit(f"{title} did something although nothing had changed: {message}")
        figures.note(WAKE.format(title), _used(parents) - before)


def _children(parents: list[psutil.Process]) -> list[psutil.Process]:
    return [child for one in parents for child in one.children()]


def _used(parents: list[psutil.Process]) -> float:
    """Seconds of processor time of the children that have ended."""
    return sum(times.children_user + times.children_system for times in (one.cpu_times() for one in parents))


def _woken(server: str, title: str) -> str:
    """Wake a deployment as its button does, which a pause does not stop; gives what its run said at its end."""
    deployment = _ask(server, f"/deployments/name/{title}")["id"]
    run = _ask(server, f"/deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]

    def ended() -> dict[str, Any] | None:
        state = dict(_ask(server, f"/flow_runs/{run}")["state"])
        return state if state["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None

    return str(_until(ended, f"the end of {title}")["message"])


def _said(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


def _going(server: str) -> int:
    """How many runs are due, starting or at work."""
    due = {"flow_runs": {"state": {"name": {"any_": ["Late", "AwaitingConcurrencySlot"]}}}}
    going = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}}
    return sum(int(_ask(server, "/flow_runs/count", which)) for which in (due, going))


def _ask(server: str, path: str, body: Any = None) -> Any:
    os.environ["PREFECT_API_URL"] = server
    return api.call(path, body)


def _until(true: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.5)  # what asks costs the server time, too
    return found


# ── what is told ──────────────────────────────────────────────────────────────────────────────────


def table(figures: Figures) -> Iterator[str]:
    """The lines of a Markdown table: median (minimum–maximum) of the rounds."""
    rounds = figures.rounds
    first = rounds[MODELS[0]]
    yield "| the platform of `make up` | measured | goal |"
    yield "| --- | --- | --- |"
    yield f"| `make up DETACH=1`, from its start until all is ready | {_seconds(rounds[READY])} | ≤ 30 s |"
    yield f"| memory of all it has started, when ready: PSS | {_gigabytes(rounds[PSS])} | |"
    yield f"| … RSS, which counts shared pages more than once | {_gigabytes(rounds[RSS])} | ≤ 1.5 GB |"
    yield f"| … RSS after trainings | {_gigabytes(rounds[LATER])} | |"
    yield f"| a partition is in the landing zone → stage train of {MODELS[0]} begins | {_seconds(first)} | |"
    steps = ", ".join(f"{statistics.median(rounds[f'{flow} {moment}']):.1f}" for flow, moment in MOMENTS)
    yield f"| … ingest begins, ends, the flow train begins after | {steps} s | |"
    for work, said in ((DIRECT, "the same flows in one process"), (BARE, "the bare script")):
        more = [one - other for one, other in zip(first, rounds[work], strict=True)]
        yield f"| … {said}, from its start until it trains | {_seconds(rounds[work])} | |"
        yield f"| … more than that | **{_seconds(more)}** | ≤ 10 s |"
    yield f"| … of {MODELS[1]}, beside it | {_seconds(rounds[MODELS[1]])} | |"
    for name, values in rounds.items():
        if name.startswith(WAKE.format("")):
            title = name.removeprefix(WAKE.format(""))
            yield f"| a wake-up with nothing to do, {title}: CPU | {_seconds(values)} | ≤ 3 s |"
    yield ""
    loads = ", ".join(f"{load:.1f}" for load in rounds[LOAD])
    yield f"Load average of the machine before each round, which the one before may have left: {loads}."


def _seconds(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} s ({min(values):.1f}–{max(values):.1f})"


def _gigabytes(values: list[float]) -> str:
    return f"{statistics.median(values) / 1e9:.2f} GB"
