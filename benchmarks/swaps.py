"""`make bench-swaps`: releases change and bad ones are withdrawn, under constant load; then all of it is killed, too.

In a scratch copy of this project, with MLflow, Prefect and the router as `make up` runs them: an act sets the alias
`champion` as a person does it in MLflow's UI, and starts the flow rollout as the worker does. Two parts:

    calm     acts and nothing else: are requests lost, and how much slower are they while a release changes?
    killed   kill -9 of replicas, their fork server, the router and the flow, at random moments of acts; each is started
             again as `make up` would, the flow as its schedule would

    python -m benchmarks.swaps [--seconds 300] [--swaps 20] [--bad 12] [--kills 12] [--rate 100] [--bake 10]
                               [--page FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks import swap_figures as figures
from benchmarks.releases import BAD, Made, predicted
from benchmarks.scratch import PROJECT, ROOT
from benchmarks.swap_figures import Act, TrialRecord
from deployments.orchestration import flow_run
from deployments.tools import load, load_clients
from tasks.ground import files, http, paths, priority, settings

MODEL = "flight_delay"
COPIED = (*PROJECT, "dvc.lock", "data.dvc")

LIMITS = {"start_s": 8, "replay": 200, "latency_ms": 100, "bake_s": 10, "canary": 0.2, "min_requests": 20}
"""Of the rollouts: shorter than production would have them, so that many fit into minutes."""

WAITING = 4096
"""`serving.max_waiting`: while a router that was killed comes back, requests wait rather than being shed."""

NOBODY = 2**22
"""The number of no process (proc(5), pid_max)."""

KILLED = ("replica", "forkserver", "router", "flow")


# ── a scratch project ─────────────────────────────────────────────────────────────────────────────


def copy(root: Path, model: str, limits: dict[str, float]) -> None:
    """The project's code and numbers, but these of the rollouts, and what the model's stages have made."""
    if not (settings.BUILD / model / "release").exists():
        sys.exit(f"there is no release of {model}: make run, or dvc repro, packages one")
    for name in (*COPIED, f"build/{model}"):
        source, target = (ROOT if name == "benchmarks" else settings.ROOT) / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, target)
    path = root / "params.yaml"
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    said["models"][model]["rollout"] = {**said["models"][model].get("rollout", {}), **limits}
    said["models"][model]["serving"]["max_waiting"] = WAITING
    path.write_text(yaml.safe_dump(said, sort_keys=False, allow_unicode=True), encoding="utf-8")


def environment(root: Path) -> dict[str, str]:
    """A state of its own, on ports of its own."""
    ours = ("EVERGREEN_", "PREFECT_", "MLFLOW_", "BENTOML_", "DVC_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    ports = {name: str(http.free_port()) for name in ("EVERGREEN_PORT", "PREFECT_SERVER_API_PORT", "MLFLOW_PORT")}
    return {**kept, **ports, "EVERGREEN_ROOT": str(root), "PYTHONPATH": str(root)}


@contextmanager
def serving() -> Iterator[None]:
    """MLflow, Prefect, the router and the flows' forkserver, kept up as `make up` keeps them, until the block ends."""
    code = """if True:
        import asyncio, sys
        from deployments.local.services import local_services
        from deployments.local.supervisor import Supervisor
        from deployments.local.console import Console
        from deployments.local import run_state
        wanted = [one for one in local_services() if one.name in ("prefect", "mlflow", "router", "forkserver")]
        sys.exit(asyncio.run(Supervisor(wanted, Console(), run_state.take_lock()).run()))
    """
    paths.run_folder().mkdir(parents=True, exist_ok=True)
    log = paths.log("stack")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        started = subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=out, cwd=settings.ROOT)
    try:
        while " ready after " not in (said := log.read_text(encoding="utf-8")):
            if started.poll() is not None:
                sys.exit(f"what should serve did not come up:\n{said[-3000:]}")
            time.sleep(0.2)
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{os.environ['PREFECT_SERVER_API_PORT']}/api"
        os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{os.environ['MLFLOW_PORT']}"
        yield
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(timeout=60)


def set_alias(model: str, version: int) -> None:
    """Make a version champion, as MLflow's UI does it."""
    url = f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/registered-models/alias"
    body = json.dumps({"name": model, "alias": "champion", "version": str(version)}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, {"content-type": "application/json"}), timeout=30):
        pass


def run_flow(model: str) -> tuple[int, str]:
    """The flow rollout, as the worker starts it: its exit code, and what it said."""
    log = paths.logs() / flow_run.LOG
    before = log.stat().st_size if log.exists() else 0
    command = [
        sys.executable,
        "-m",
        "deployments.orchestration.flow_run",
        flow_run.ASIDE,
        "deployments.cli",
        "rollout",
        model,
    ]
    code = subprocess.run(command, cwd=settings.ROOT, start_new_session=True, check=False).returncode
    return code, log.read_bytes()[before:].decode(errors="replace")


def _apart() -> None:
    os.setsid()
    priority.lower(os.getpid())


HAND = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _apart)
"""Who acts, beside the clients: a process that starts others and parses answers is late for its own requests."""


# ── acts ──────────────────────────────────────────────────────────────────────────────────────────


class Trial(TrialRecord):
    """A part of the measurement that acts, and records what was answered."""

    async def act(self, kind: str, one: Made, killer: Killer | None = None) -> Act:
        """Set the alias, and have the flow run until it says that nothing is left to do."""
        act = Act(kind, one, time.perf_counter())
        self.acts.append(act)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(HAND, set_alias, self.model, one.version)
        watching = asyncio.create_task(self._watch(act))
        killing = asyncio.create_task(killer.kill(self, act)) if killer else None
        while True:
            act.runs += 1
            code, said = await loop.run_in_executor(HAND, run_flow, self.model)
            if code != -signal.SIGKILL:
                break
        if killing:
            await killing
        watching.cancel()
        act.end = time.perf_counter()
        if (self.live == one.candidate) != (one.kind == "good"):
            act.surprise = said.strip().splitlines()[-1]
        return act

    @property
    def live(self) -> str | None:
        """Who is to serve."""
        path = paths.desired_state(self.model)
        found: str | None = files.read_json(path)["live"]["candidate"] if path.exists() else None
        return found

    async def _watch(self, act: Act) -> None:
        """When it had a share, and when a bad one was taken out of what should serve."""
        path = paths.desired_state(self.model)
        was_there = False
        while True:
            said = path.read_text(encoding="utf-8") if path.exists() else "{}"
            there, now = act.one.candidate in said, time.perf_counter()
            if json.loads(said).get("canary"):
                act.baked = (act.baked[0] if act.baked else now, now)
            if was_there and not there:
                act.withdrawn = now
            was_there = there
            await asyncio.sleep(0.02)


@dataclass
class Killer:
    """Kills what has its turn, at a random moment of an act."""

    draw: random.Random = field(default_factory=lambda: random.Random(0))
    turns: int = 0

    async def kill(self, trial: Trial, act: Act) -> None:
        """One of them, some time into the act."""
        what = KILLED[self.turns % len(KILLED)]
        self.turns += 1
        await asyncio.sleep(self.draw.uniform(0.5, 5.0))
        pid = await asyncio.to_thread(_process, trial.model, what)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            trial.kills.append((time.perf_counter(), what))
            act.killed[what] += 1


def _process(model: str, what: str) -> int:
    """Its number; of a flow that is over already, one that nobody has."""
    if what == "flow":
        below = psutil.Process().children(recursive=True)
        flows = [one.pid for one in below if {"deployments.cli", "rollout"} <= {*one.cmdline()}]
        return flows[0] if flows else NOBODY
    with urllib.request.urlopen(f"{load.address()}/status", timeout=30) as response:
        said = json.loads(response.read())
    if what == "router":
        return int(said["pid"])
    if what == "forkserver":
        children = psutil.Process(said["pid"]).children()
        return next(one.pid for one in children if any("fork_server.py" in word for word in one.cmdline()))
    found = said["models"][model]
    return int(next(iter(found["releases"][found["answers"]]["pids"]), 0) or said["pid"])


def plan(live: Made, fresh: list[Made], failing: Sequence[Made], swaps: int) -> list[tuple[str, Made]]:
    """To a new release, to the one before (it is warm), to an older one (it is not), by turns; bad ones between."""
    former: list[Made] = []
    older: list[Made] = []
    acts: list[tuple[str, Made]] = []
    for number in range(swaps):
        kind = "new" if fresh and (number % 2 == 0 or not former) else "again" if older and number % 2 == 0 else "back"
        one = (fresh if kind == "new" else older if kind == "again" else former).pop(0)
        acts.append((kind, one))
        if kind != "back":
            older, former = [*older, *former], []
        former, live = [live], one
    placed = [((number + 0.5) / swaps, act) for number, act in enumerate(acts)]
    placed += [((number + 1) / (len(failing) + 1), (bad.kind, bad)) for number, bad in enumerate(failing)]
    return [act for _, act in sorted(placed, key=lambda one: one[0])]


async def run(trial: Trial, requests: list[load_clients.LoadRequest], acts: list[tuple[str, Made]], rate: float,
              seconds: float, killer: Killer | None = None) -> None:  # fmt: skip
    """The load, and the acts spread over its time; it goes on until the last of them is done."""
    host, port = os.environ["EVERGREEN_HOST"], int(os.environ["EVERGREEN_PORT"])
    asking = load_clients.LoadClients(host, port, trial.tell)
    loading = asyncio.create_task(asking.at_rate(requests, rate, float("inf")))
    begin = time.perf_counter()
    await asyncio.sleep(2)
    for number, (kind, one) in enumerate(acts):
        await asyncio.sleep(max(1.0, begin + 2 + number * (seconds - 2) / len(acts) - time.perf_counter()))
        if trial.live == one.candidate:  # the one that was to take its place was refused
            continue
        act = await trial.act(kind, one, killer)
        print(f"{act.begin - begin:6.1f} s  {_told(trial, act)}", flush=True)
    await asyncio.sleep(max(2.0, begin + seconds - time.perf_counter()))
    asking.end()
    await loading
    asking.close()


def _told(trial: Trial, act: Act) -> str:
    meanwhile = [one for one in trial.answers if one.done >= act.begin]
    failed = Counter(one.failed for one in meanwhile if one.failed)
    kinds = ", ".join(f"{kind}: {number}" for kind, number in failed.items())
    said = f"{len(meanwhile)} requests, {load.latencies([one.ms for one in meanwhile])}, {kinds or 'none'} failed"
    killed = f", killed: {', '.join(act.killed)}" if act.killed else ""
    if act.surprise:
        said += f"\n          {act.surprise}"
    return f"version {act.one.version:<3} {act.kind:<33} {act.end - act.begin:5.1f} s{killed}   {said}"


# ── all of it ─────────────────────────────────────────────────────────────────────────────────────


def inside(asked: argparse.Namespace) -> int:
    """In the scratch project: make releases, start what serves, measure."""
    fresh = max(1, 2 * asked.swaps // 5)
    later = (asked.kills + 2) // 3
    kinds = [list(BAD)[number % len(BAD)] for number in range(asked.bad + later)]
    made = _made(asked.model, 1 + fresh + later, kinds)
    good, bad = [one for one in made if one.kind == "good"], [one for one in made if one.kind != "good"]
    rows = load.rows_of(asked.model, good[0].candidate)
    requests, expected = load.requests_of(asked.model, rows), _expected(asked.model, good, bad, rows)
    parts: dict[str, str] = {}
    missed: list[str] = []
    with serving():
        first = Trial(asked.model, expected)
        asyncio.run(first.act("new", good[0]))
        served: dict[str, list[tuple[str, Made]]] = {
            "Calm": plan(good[0], good[1 : 1 + fresh], bad[: asked.bad], asked.swaps)
        }
        if asked.kills:
            live = [one for kind, one in served["Calm"] if one.kind == "good"][-1]
            served["Killed"] = plan(live, good[1 + fresh :], bad[asked.bad :], asked.kills - later)
        for title, acts in served.items():
            print(f"\n{title}", flush=True)
            trial, is_calm = Trial(asked.model, expected), title == "Calm"
            seconds = asked.seconds if is_calm else asked.seconds * len(acts) / len(served["Calm"])
            _run(run(trial, requests, acts, asked.rate, seconds, None if is_calm else Killer()))
            found = figures.find(trial)
            parts[title] = figures.told(found, asked.rate)
            print(f"\n{parts[title]}", flush=True)
            missed += figures.faults(found, figures.at_rest(asked.model), is_calm and not asked.untimed)
    print("\n" + ("everything that was promised was kept" if not missed else "not kept: " + "; ".join(missed)))
    if asked.page:
        asked.page.parent.mkdir(parents=True, exist_ok=True)
        asked.page.write_text(figures.page(parts, missed, LIMITS | {"bake_s": asked.bake}), encoding="utf-8")
    return 1 if missed else 0


def _made(model: str, good: int, kinds: list[str]) -> list[Made]:
    """In a process of its own: what trains is not to weigh on the one that measures."""
    listed = settings.VAR / "made.json"
    print(f"making {good} good releases and {len(kinds)} bad ones", flush=True)
    command = [sys.executable, "-m", "benchmarks.releases", model, str(good), str(listed), *kinds]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [Made(**one) for one in files.read_json(listed)]


def _expected(model: str, good: list[Made], bad: list[Made], rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Release → its answers. Equal model files answer alike: each is loaded once."""
    found: dict[str, list[float]] = {}
    by_file: dict[str, list[float]] = {}
    for one in (*good, *bad):
        folder = Path(os.environ["BENTOML_HOME"]) / "bentos" / model / one.candidate / "src"
        file = files.read_json(folder / "release.json")["model_sha256"]
        if file not in by_file:
            by_file[file] = predicted(folder, rows)
        found[f"{model}:{one.candidate}"] = by_file[file]
    return found


def _run(work: Any) -> None:
    import gc

    import uvloop

    gc.collect()
    gc.freeze()  # a collection that looks through pandas would be measured as latency,
    sys.setswitchinterval(0.0005)  # and so would the threads through which others are told to act
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write the page. Returns 1 when something promised was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--seconds", type=float, default=300, help="of the calm part (300)")
    parser.add_argument("--swaps", type=int, default=20, help="in the calm part (20)")
    parser.add_argument("--bad", type=int, default=12, help="bad releases in the calm part, of each kind by turns (12)")
    parser.add_argument("--kills", type=int, default=12, help="in the killed part (12); 0: there is none")
    parser.add_argument("--rate", type=float, default=100, help="requests a second (100)")
    parser.add_argument("--bake", type=float, default=LIMITS["bake_s"], help="`rollout.bake_s` (10)")
    parser.add_argument("--untimed", action="store_true", help="hold no time against it: for a machine that is busy")
    parser.add_argument("--page", type=Path, help="where the text goes; nowhere, if not said")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.inside:
        return inside(asked)
    settings.apply()
    with tempfile.TemporaryDirectory(prefix="evergreen-swaps-") as folder:
        root = Path(folder) / "project"
        copy(root, asked.model, LIMITS | {"bake_s": asked.bake})
        given = [*(arguments if arguments is not None else sys.argv[1:]), "--inside"]
        if asked.page:
            given += ["--page", str(asked.page.resolve())]
        command = [sys.executable, "-m", "benchmarks.swaps", *given]
        return subprocess.run(command, cwd=root, env=environment(root), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
