"""Processes that are timed, in a copy of this project or of nothing, beside a Prefect server of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tasks.ground import http, settings

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ("tasks", "flows", "deployments", "models", "bin", "benchmarks", "params.yaml", "requirements.lock", "locks")
PROJECT += ("pyproject.toml", "dvc.yaml", ".dvcignore", ".gitignore")
"""What a copy of this project needs to run; its data and DVC's state come beside it."""

COPIED = (*PROJECT, ".dvc/config")


# ── one process ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Timing:
    """One process, from start to exit."""

    wall: float
    cpu: float
    """User and system, of the process and of those it started and waited for."""
    load: float
    """The machine's load average just before: on an idle one it is what the run before left."""
    parts: dict[str, float] = field(default_factory=dict)
    total: dict[str, float] = field(default_factory=dict)


def run(command: list[str], environment: dict[str, str], cwd: Path, marks: Path) -> tuple[Timing, dict]:
    """Run a process to its end; gives its timing and what it wrote to BENCH_MARKS.

    Raises:
        SystemExit: it failed.
    """
    marks.unlink(missing_ok=True)
    load, log = os.getloadavg()[0], marks.with_suffix(".log")
    with log.open("wb") as out:
        begin = time.time()
        environment = {**environment, "BENCH_BEGIN": str(begin), "BENCH_MARKS": str(marks)}
        process = subprocess.Popen(command, env=environment, cwd=cwd, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        end = time.time()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-6000:]}")
    told = json.loads(marks.read_text()) if marks.exists() else {}
    parts = dict(told.get("parts", {}))
    if parts:
        parts["exit"] = end - begin - sum(parts.values())
    return Timing(end - begin, usage.ru_utime + usage.ru_stime, load, parts, told.get("total", {})), told


# ── where it happens ──────────────────────────────────────────────────────────────────────────────


class Scratch:
    """A folder with the landed files, a Prefect server, and a place for projects and scripts to run in."""

    def __init__(self, folder: Path, threads: str | None) -> None:
        self.folder, self.threads = folder, threads
        self.profile: Path | None = None
        self.api = ""
        self._deliver()

    def _deliver(self) -> None:
        from models import upstream

        for partition in upstream.partitions()[:10]:
            for dataset in upstream.DATASETS:
                name, content = upstream.deliver(dataset, partition)
                target = self.folder / "delivered" / dataset / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                os.utime(target, (time.time() - 60,) * 2)  # it has arrived: ingest need not wait for it to settle

    def environment(self, root: Path) -> dict[str, str]:
        """What a worker's environment has: nothing of Evergreen but where the project and the API are."""
        ours = ("EVERGREEN_", "PREFECT_", "MLFLOW_", "BENTOML_", "DVC_", "PYTHON", "OMP_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        kept |= {"EVERGREEN_ROOT": str(root), "PYTHONPATH": str(root), "PREFECT_API_URL": self.api}
        kept |= {
            "PREFECT_HOME": str(self.folder / "prefect"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        return kept | (dict.fromkeys(("OMP_NUM_THREADS", "EVERGREEN_THREADS"), self.threads) if self.threads else {})

    def project(self, name: str, models: list[str]) -> Project:
        """A fresh copy of this project that has these models, nothing cached, byte code made."""
        root = self.folder / name
        shutil.rmtree(root, ignore_errors=True)
        for path in COPIED:
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / path).is_dir():
                shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(ROOT / path, target)
        _keep_models(root, models)
        git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-C", str(root)]
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "bench"]):
            subprocess.run([*git, *words], check=True, capture_output=True)
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(root)], check=True)
        return Project(self, root)

    @contextmanager
    def prefect_server(self) -> Iterator[None]:
        """A server with a database of its own, on a free port of 127.0.0.1."""
        port = http.free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        environment = {**settings.environment(), **self.environment(self.folder)}
        command = [
            str(Path(sys.executable).parent / "prefect"),
            "server",
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        with (self.folder / "server.log").open("wb") as log:
            server = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while not http.answers(f"{self.api}/health"):
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the Prefect server does not answer:\n{(self.folder / 'server.log').read_text()[-3000:]}")
                time.sleep(0.2)
            yield
        finally:
            server.terminate()
            server.wait(timeout=60)

    def bare(self, months: range, out: str, *, threads: str | None = None, fresh: bool = False) -> Timing:
        """The bare script on these months."""
        landing, target = self.folder / "bare-landing", self.folder / out
        shutil.rmtree(landing, ignore_errors=True)
        if fresh:
            shutil.rmtree(target, ignore_errors=True)
        self.put(months, landing)
        environment = self.environment(ROOT)
        if threads == "any":
            environment.pop("OMP_NUM_THREADS", None)
        command = [sys.executable, "-m", "benchmarks.bare", str(landing), str(target)]
        return run(command, environment, ROOT, self.folder / "bare.json")[0]

    def put(self, months: range, landing: Path) -> None:
        """Have these months arrive."""
        for month in months:
            for dataset in ("flights", "weather"):
                name = f"{dataset}/2013-{month:02d}.csv"
                (landing / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.folder / "delivered" / name, landing / name)


@dataclass
class Project:
    """A copy of this project."""

    scratch: Scratch
    root: Path

    def arrive(self, months: range) -> None:
        """These months land."""
        self.scratch.put(months, self.root / "var" / "landing")

    def flows(self, *jobs: str, profile: str = "") -> tuple[Timing, dict]:
        """A fresh process runs these flows."""
        command = [sys.executable, "-m", "benchmarks.inside", *jobs]
        if profile and self.scratch.profile:
            command[1:1] = ["-m", "cProfile", "-o", str(self.scratch.profile / f"{profile}.prof")]
        return run(command, self.scratch.environment(self.root), self.root, self.scratch.folder / "inside.json")

    def command(self, *words: str) -> tuple[Timing, str]:
        """A fresh process of any command."""
        marks = self.scratch.folder / "command.json"
        environment = {**settings.environment(), **self.scratch.environment(self.root)}
        environment |= {"DVC_SITE_CACHE_DIR": str(self.root / "var" / "dvc")}
        return run(list(words), environment, self.root, marks)[0], marks.with_suffix(".log").read_text()


def _keep_models(root: Path, models: list[str]) -> None:
    import yaml

    said = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    for gone in set(said["models"]) - set(models):
        del said["models"][gone]
        shutil.rmtree(root / "models" / gone)
    (root / "params.yaml").write_text(yaml.safe_dump(said, sort_keys=False, allow_unicode=True), encoding="utf-8")
