"""`make bench-serving`: one row a request, answered by Evergreen and by what a team would otherwise serve with.

The same trees and the same rows for all, one process each that scores, one OpenMP thread, wrk in front. The servers
take turns: each is started, warmed, asked over 1, 16 and 64 connections, and ended; then the next; then all again.
The baselines are in benchmarks/peers/, the model is the packaged one in build/ (`make run` makes it).

    python -m benchmarks.serving [--repeat 3] [--seconds 8] [--only NAME …] [--page docs/benchmarks/serving.md]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import machine
from benchmarks.peers.models import BATCHES, NAME
from tasks.ground import files, http, params, settings
from tasks.release.package import package

ROOT = Path(__file__).resolve().parent.parent
CONNECTIONS = (1, 16, 64)
WARM_S, READY_S = 2, 60
DIFFERENT_ROWS = 500

SCRIPT = """
local requests, at = {}, 0
local headers = {["content-type"] = "application/json", ["Host"] = "127.0.0.1"}
for line in io.lines(os.getenv("BENCH_BODIES")) do
  requests[#requests + 1] = wrk.format("POST", os.getenv("BENCH_PATH"), headers, line)
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %d, "us": %d, "p50": %f, "p99": %f, "max": %f, "not_200": %d, "lost": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    latency.max / 1000, e.status, e.connect + e.read + e.write + e.timeout))
end
"""
"""For wrk: another row each time, and what it found as JSON."""


# ── who is asked ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Server:
    """Something that answers predictions over HTTP on a port it is given."""

    name: str
    command: tuple[str, ...]
    path: str = "/predict"
    body: str = "rows"
    """`rows`, or `split` as MLflow wants it."""
    environment: dict[str, str] = field(default_factory=dict)


OURS, MLFLOW, FASTAPI, PLAIN = "Evergreen", "mlflow models serve", "FastAPI + uvicorn", "BentoML"
BATCHED, DEFAULT = "BentoML, batching (256 rows, 200 ms)", "BentoML, batching (256 rows, default 60 s)"
RELEASE = "Evergreen's release under bentoml serve"
FAST_FASTAPI, FAST_BATCHED = f"{FASTAPI}, Evergreen's pipeline", f"{BATCHED}, Evergreen's pipeline"


def _servers(folder: Path, candidate: str) -> list[Server]:
    """All of them, in the order of the table. `{port}` is the port."""
    python, bin_ = sys.executable, str(Path(sys.executable).parent)
    bento = (f"{bin_}/bentoml", "serve")
    host = ("--host", "127.0.0.1", "--port", "{port}")
    theirs, ours = ({"BENCH_MODEL": str(folder / f"{name}.joblib")} for name in ("theirs", "ours"))
    uvicorn = (f"{bin_}/uvicorn", "benchmarks.peers.fastapi_app:app", *host, "--log-level", "warning")
    plain, batched = ((*bento, f"benchmarks.peers.bento_service:{name}", *host) for name in ("Plain", "Batched"))
    short = {"BENCH_LATENCY_MS": "200"}
    mlflow = (f"{bin_}/mlflow", "models", "serve", "-m", str(folder / "mlflow"), "--env-manager", "local")
    return [
        Server(
            OURS, (python, "-m", "deployments.serving.router"), path=f"/{NAME}/predict", environment=_scratch(folder)
        ),
        Server(MLFLOW, (*mlflow, "-h", "127.0.0.1", "-p", "{port}"), path="/invocations", body="split"),
        Server(FASTAPI, uvicorn, environment=theirs),
        Server(PLAIN, plain, environment=theirs),
        Server(BATCHED, batched, environment=theirs | short),
        Server(DEFAULT, batched, environment=theirs),
        Server(RELEASE, (*bento, f"{NAME}:{candidate}", *host)),
        Server(FAST_FASTAPI, uvicorn, environment=ours),
        Server(FAST_BATCHED, batched, environment=ours | short),
    ]


def _scratch(folder: Path) -> dict[str, str]:
    """A state of its own: what a benchmark asks is not what production has asked."""
    root = folder / "project"
    return {"EVERGREEN_ROOT": str(root), "EVERGREEN_PORT": "{port}", "EVERGREEN_HOST": "127.0.0.1"}


def prepare(folder: Path) -> str:
    """The models as files, the requests, and a project whose router serves the release; gives its candidate."""
    if not (settings.BUILD / NAME / "release").exists():
        sys.exit(f"there is no release of {NAME}: make run, or dvc repro, packages one")
    bento = package.ensure_bento(NAME)
    root = folder / "project"
    (root / "var" / "serving").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", root)
    one = {"candidate": bento.name, "version": 1, "since": ""}
    files.write_json(root / "var" / "serving" / f"{NAME}.json", {"live": one, "beside": [], "canary": None})
    command = [sys.executable, "-m", "benchmarks.peers.models", "fit", str(bento / "src"), str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, env=_environment({}), stderr=subprocess.DEVNULL)
    _write_bodies(folder)
    (folder / "ask.lua").write_text(SCRIPT)
    return bento.name


def _write_bodies(folder: Path) -> None:
    from tasks.modelling import rows

    model = params.load().model(NAME)
    frame = rows.read(settings.BUILD / NAME, "holdout", list(model.features)).sample(DIFFERENT_ROWS, random_state=0)
    asked = package.request_rows(frame, model)
    splits = [{"dataframe_split": {"columns": list(row), "data": [list(row.values())]}} for row in asked]
    for kind, bodies in (("rows", [{"rows": [row]} for row in asked]), ("split", splits)):
        (folder / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, bodies)))


# ── one of them ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Load:
    """What wrk found, and what the server's processes worked meanwhile."""

    rate: float
    p50: float
    p99: float
    failed: int
    cpu_ms: float
    """Processor time per request, user and system, of all the server's processes."""


@dataclass(frozen=True)
class Round:
    """One server, from its start to its end."""

    ready_s: float
    """From the start of the process to the first prediction."""
    loads: dict[int, Load]
    resident_mb: float


def measure(server: Server, folder: Path, seconds: int) -> Round:
    """Start it, ask it, end it.

    Raises:
        SystemExit: it does not start, or answers something else.
    """
    bodies = folder / f"{server.body}.jsonl"
    with _running(server, folder) as (process, port, ready_s):
        url = f"http://127.0.0.1:{port}{server.path}"
        _wrk(url, server.path, folder, bodies, 16, WARM_S)
        loads = {}
        for connections in CONNECTIONS:
            before = _cpu(process)
            said = _wrk(url, server.path, folder, bodies, connections, seconds)
            cpu = (_cpu(process) - before) * 1000 / max(1, said["requests"])
            rate = (said["requests"] - said["not_200"]) / said["us"] * 1e6
            loads[connections] = Load(rate, said["p50"], said["p99"], said["not_200"] + said["lost"], cpu)
        return Round(ready_s, loads, sum(one.memory_info().rss for one in _processes(process)) / 1e6)


@contextmanager
def _running(server: Server, folder: Path) -> Iterator[tuple[psutil.Process, int, float]]:
    """Its process, its port, and how long it took until it answered."""
    port = http.free_port()
    command = [word.format(port=port) for word in server.command]
    environment = _environment({name: value.format(port=port) for name, value in server.environment.items()})
    log = folder / "server.log"
    with log.open("wb") as out:
        begin = time.monotonic()
        started = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
        process = psutil.Process(started.pid)
    try:
        body = (folder / f"{server.body}.jsonl").read_text().split("\n", 1)[0].encode()
        while not _answers(f"http://127.0.0.1:{port}{server.path}", body):
            if started.poll() is not None or time.monotonic() - begin > READY_S:
                sys.exit(f"{server.name} does not answer:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.01)
        yield process, port, time.monotonic() - begin
    finally:
        family = _processes(process)
        started.terminate()
        gone, left = psutil.wait_procs(family, timeout=10)
        for one in left:
            one.kill()
        psutil.wait_procs([*gone, *left], timeout=10)
        started.wait()


def _answers(url: str, body: bytes) -> bool:
    asked = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=10) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _wrk(url: str, path: str, folder: Path, bodies: Path, connections: int, seconds: int) -> dict[str, Any]:
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "10s",
        "-s",
        str(folder / "ask.lua"),
        url,
    ]
    environment = {**os.environ, "BENCH_BODIES": str(bodies), "BENCH_PATH": path}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return found


def _processes(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu(process: psutil.Process) -> float:
    """Seconds that a process and those it started have worked."""
    return sum(times.user + times.system for times in (one.cpu_times() for one in _processes(process)))


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("EVERGREEN_", "MLFLOW_TRACKING"))},
        "PYTHONPATH": str(ROOT),
        "BENTOML_HOME": os.environ["BENTOML_HOME"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def bare(folder: Path) -> dict[str, dict[int, float]]:
    """Rows a second of the model in a process of its own, without a server."""
    command = [sys.executable, "-m", "benchmarks.peers.models", "bare", str(folder)]
    said = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=_environment({})).stdout
    return {name: {int(size): rate for size, rate in sizes.items()} for name, sizes in json.loads(said).items()}


# ── what is told ──────────────────────────────────────────────────────────────────────────────────

Table = dict[str, list[Round]]
Bare = list[dict[str, dict[int, float]]]


def goals(table: Table) -> Iterator[tuple[str, float, float, bool]]:
    """What was aimed at: its name, the value, the limit, and whether it was reached; medians over the rounds."""
    at16 = {name: _median(rounds, 16) for name, rounds in table.items()}
    ours = at16[OURS]
    if best := [at16[name] for name in (BATCHED, DEFAULT) if name in at16]:
        fastest, calmest = max(one.rate for one in best), min(one.p99 for one in best)
        yield "requests/s, times BentoML with batching, the faster of the two", *_least(ours.rate / fastest, 3)
        yield "p99, as a share of BentoML's with batching, the better of the two", *_most(ours.p99 / calmest, 0.2)
    if MLFLOW in at16:
        yield "requests/s, times mlflow models serve", *_least(ours.rate / at16[MLFLOW].rate, 10)
    if FASTAPI in table:
        ratio = _median(table[OURS], 1).p50 / _median(table[FASTAPI], 1).p50
        yield "1 connection: median latency, as a share of plain FastAPI's", *_most(ratio, 1)
    failed = sum(load.failed for one in table[OURS] for load in one.loads.values())
    yield "requests that failed", *_most(failed, 0)
    yield "seconds from process start to the first prediction", *_most(statistics.median(_ready(table[OURS])), 3)


def _least(value: float, limit: float) -> tuple[float, float, bool]:
    return value, limit, value >= limit


def _most(value: float, limit: float) -> tuple[float, float, bool]:
    return value, limit, value <= limit


def _median(rounds: list[Round], connections: int) -> Load:
    loads = [one.loads[connections] for one in rounds]
    rate, p50, p99, cpu = (statistics.median(getattr(x, of) for x in loads) for of in ("rate", "p50", "p99", "cpu_ms"))
    return Load(rate, p50, p99, sum(x.failed for x in loads), cpu)


def _ready(rounds: list[Round]) -> list[float]:
    return [one.ready_s for one in rounds]


def page(table: Table, alone: Bare, repeat: int, seconds: int) -> str:
    """docs/benchmarks/serving.md."""
    return "\n".join(
        [
            "# Serving, beside what a team would otherwise serve with",
            "",
            f"Made by `make bench-serving`; what is compared is told in `benchmarks/serving.py`. The trees of {NAME},",
            "one row a request as JSON, another row each time, asked by wrk (one thread, in a closed loop: it asks",
            f"again when it is answered) for {seconds} s over each number of connections, one process that scores,",
            "OMP_NUM_THREADS=1. The baselines score with ColumnTransformer and OrdinalEncoder in front of the same",
            "fitted trees, as their tutorials would, or with Evergreen's own pipeline where that is said. Evergreen",
            "also validates each field's range, logs each prediction before it answers, and routes.",
            "",
            machine(("scikit-learn", "mlflow", "bentoml", "fastapi", "uvicorn", "pydantic", "pandas", "numpy")),
            "",
            f"Median (minimum–maximum) of {repeat} round(s) in which all take turns.",
            "",
            *(line for connections in reversed(CONNECTIONS) for line in _at(table, connections)),
            "## From process start to the first prediction",
            "",
            "| | seconds | resident MB, after the load |",
            "| --- | --- | --- |",
            *(
                f"| {n} | {_spread(_ready(r), 2)} | {_spread([x.resident_mb for x in r], 0)} |"
                for n, r in table.items()
            ),
            "",
            "## How far from the model itself",
            "",
            "`predict_proba` in a process of its own, the frame (or, for Evergreen's pipeline, the columns) made",
            "before: rows a second, by scikit-learn and as a release does it; and the share of the latter that",
            "Evergreen answers as single-row requests.",
            "",
            *_from_bare(table, alone),
            "",
            "## Goals",
            "",
            "| at 16 connections, where nothing else is said | | goal | |",
            "| --- | --- | --- | --- |",
            *(f"| {n} | {v:.2f} | {limit:g} | {'✓' if ok else '✗'} |" for n, v, limit, ok in goals(table)),
            "",
        ]
    )


def _at(table: Table, connections: int) -> Iterator[str]:
    yield f"## {connections} connection{'s' if connections > 1 else ''}"
    yield ""
    yield "| | requests/s | p50 ms | p99 ms | failed | processor ms a request |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, rounds in table.items():
        loads = [one.loads[connections] for one in rounds]
        told = [_spread([getattr(x, of) for x in loads], n) for of, n in (("rate", 0), ("p50", 1), ("p99", 1))]
        cells = [*told, f"{sum(x.failed for x in loads):,}", f"{statistics.median(x.cpu_ms for x in loads):.2f}"]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _from_bare(table: Table, alone: Bare) -> Iterator[str]:
    yield f"| batches of | {' | '.join(map(str, BATCHES))} |"
    yield f"| --- |{' --- |' * len(BATCHES)}"
    told = {"theirs": "ColumnTransformer and trees", "ours": "Evergreen's pipeline", "hastened": "… scored by Treelite"}
    for name, said in told.items():
        yield f"| {said} | {' | '.join(_spread([one[name][size] for one in alone], 0) for size in BATCHES)} |"
    pairs = zip(BATCHES, CONNECTIONS, strict=True)
    shares = [
        _median(table[OURS], c).rate / statistics.median(one["hastened"][size] for one in alone) for size, c in pairs
    ]
    yield f"| Evergreen, over as many connections | {' | '.join(f'{share:.0%}' for share in shares)} |"


def _spread(values: list[float], digits: int) -> str:
    """Median (minimum–maximum)."""
    middle, least, most = (f"{f(values):,.{digits}f}" for f in (statistics.median, min, max))
    return middle if len(values) == 1 else f"{middle} ({least}–{most})"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write the page. Returns 1 when a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="rounds (3)")
    parser.add_argument("--seconds", type=int, default=8, help="of wrk, each time (8)")
    parser.add_argument("--only", action="append", metavar="NAME", help="only servers whose name holds this")
    parser.add_argument("--page", type=Path, help="where the tables go; nowhere, if not said")
    asked = parser.parse_args(arguments)
    if not shutil.which("wrk"):
        sys.exit("wrk asks the servers, and is not installed: apt install wrk")
    settings.apply()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with us
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", *map(str, (ROOT / "tasks", ROOT / "deployments"))], check=True
    )
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as made:
        folder = Path(made)
        wanted = _servers(folder, prepare(folder))
        wanted = [one for one in wanted if not asked.only or one.name == OURS or any(o in one.name for o in asked.only)]
        table: Table = {one.name: [] for one in wanted}
        alone: Bare = []
        for number in range(asked.repeat):
            print(f"round {number + 1} of {asked.repeat}", flush=True)
            alone.append(bare(folder))
            for server in wanted:
                table[server.name].append(found := measure(server, folder, asked.seconds))
                told = "  ".join(f"{c}: {x.rate:,.0f}/s p99 {x.p99:.0f}" for c, x in found.loads.items())
                print(f"  {server.name:<50} ready {found.ready_s:4.1f} s  {told}", flush=True)
    text = page(table, alone, asked.repeat, asked.seconds)
    if asked.page:
        asked.page.parent.mkdir(parents=True, exist_ok=True)
        asked.page.write_text(text, encoding="utf-8")
    print(f"\n{text}" + (f"\nwritten to {asked.page}" if asked.page else ""))
    return 0 if all(ok for _, _, _, ok in goals(table)) else 1


if __name__ == "__main__":
    sys.exit(main())
