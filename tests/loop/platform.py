"""What the schedules share: one Prefect server, the warm parents, and a project to begin from."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.ground import http
from tests.conftest import BIN, REPOSITORY, copy_repository, write_readings

QUIET = {
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # of the server's services, the one that stores events: who tells a person waits until it is stored
    **{
        f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false"
        for service in (
            *("TRIGGERS", "SCHEDULER", "LATE_RUNS", "TASK_RUN_RECORDER", "FOREMAN", "CANCELLATION_CLEANUP"),
            *("PAUSE_EXPIRATIONS", "REPOSSESSOR", "CLEANUP_RECONCILER", "EVENT_LOGGER"),
        )
    },
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.2",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MPLBACKEND": "Agg",
}


@dataclass(frozen=True)
class Platform:
    """Where the parents listen, and the project that each schedule begins with."""

    base: Path
    code: Path
    template: Path
    flows: str
    trials: str

    def start(self, root: Path, act: str, *arguments: str, **more: Any) -> Started:
        """Start a process on a project: `flows train tiny`, `add`, …"""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.flows)
        asked = {"root": str(root), "act": act, "arguments": arguments, "trials": self.trials, "log": f"{root}.log"}
        connection.sendall(json.dumps(asked | more).encode() + b"\n")
        return Started(connection, (act, *arguments))

    def run(self, root: Path, act: str, *arguments: str, **more: Any) -> int:
        """Start it, and wait for its exit code."""
        return self.start(root, act, *arguments, **more).wait()

    def project(self, name: str) -> Path:
        """A new project: a git and DVC repository with an empty MLflow store and the tiny model, without data."""
        root = self.base / name
        shutil.copytree(self.template, root, symlinks=True)
        return root

    def content(self, month: int, variant: int = 0) -> bytes:
        """A month's partition, twenty days of it; another variant is another content, as good as the first."""
        path = self.base / "source" / "data" / "readings" / f"2013-{month:02d}.csv"
        lines = path.read_bytes().splitlines(keepends=True)
        return b"".join(lines[: len(lines) - variant])


@dataclass
class Started:
    """A process that runs."""

    connection: socket.socket
    what: tuple[str, ...]

    def wait(self, seconds: float = 240) -> int:
        """Its exit code; -9 when it was killed."""
        self.connection.settimeout(seconds)
        said = b""
        while more := self.connection.recv(64):
            said += more
        self.connection.close()
        assert said, f"{self.what}: the process was lost"
        return int(said)


@contextmanager
def platform(base: Path) -> Iterator[Platform]:
    """Start everything; about ten seconds. All of it ends with the block."""
    code, template = base / "code", base / "template"
    copy_repository(template, REPOSITORY / "tests" / "small")
    with (template / "params.yaml").open("a") as stream:  # people edit here, and commit nothing
        stream.write("git: {promote_uncommitted: true}\n")
    warm = copy_repository(base / "warm", REPOSITORY / "tests" / "small")
    copy_repository(code, REPOSITORY / "tests" / "small")
    for month in (1, 2):
        write_readings(warm, month)
    for month in range(1, 13):
        write_readings(base / "source", month, days=20)
    shutil.copytree(REPOSITORY / "tests" / "loop", code / "tests" / "loop")
    for module in ("__init__", "conftest"):
        shutil.copy(REPOSITORY / "tests" / f"{module}.py", code / "tests")
    with ExitStack() as stack:
        url = stack.enter_context(_server(base))
        environment = {**os.environ, **QUIET, "PREFECT_API_URL": url, "PREFECT_HOME": str(base / "prefect")}
        environment |= {"PYTHONPATH": str(code), "EVERGREEN_ROOT": str(template), "PATH": f"{BIN}:{os.environ['PATH']}"}
        flows, trials = str(base / "flows.sock"), str(base / "trials.sock")
        script = str(code / "tests" / "loop" / "trials.py")
        trial = str(code / "tasks" / "release" / "package" / "bento_trial.py")
        commands = {
            flows: [sys.executable, "-W", "ignore", "-m", "tests.loop.zygote", flows, str(warm)],
            trials: [sys.executable, "-I", script, trials, trial],
        }
        parents = [stack.enter_context(_parent(command, base, environment)) for command in commands.values()]
        for path, parent in zip(commands, parents, strict=True):
            _wait(lambda path=path: Path(path).exists(), parent, base, 120)
        _wait(lambda: http.answers(f"{url}/health"), parents[0], base, 60)
        made = Platform(base, code, template, flows, trials)
        assert made.run(template, "template") == 0, Path(f"{template}.log").read_text()
        yield made


@contextmanager
def _server(base: Path) -> Iterator[str]:
    port = http.free_port()
    home = base / "prefect"
    command = [
        BIN / "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    environment = {**os.environ, **QUIET, "PREFECT_HOME": str(home)}
    for name in ("PREFECT_API_URL", "PREFECT_API_DATABASE_CONNECTION_URL"):
        environment.pop(name, None)
    with _parent(command, base, environment):
        yield f"http://127.0.0.1:{port}/api"


@contextmanager
def _parent(command: list[Any], base: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with (base / "parents.log").open("ab") as log:
        pipe = subprocess.PIPE
        running = subprocess.Popen(command, stdin=pipe, stdout=log, stderr=log, env=environment, cwd=base / "code")
    try:
        yield running
    finally:
        if running.stdin:
            running.stdin.close()
        running.terminate()
        try:
            running.wait(timeout=10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _wait(ready: Any, running: subprocess.Popen[bytes], base: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert running.poll() is None, (base / "parents.log").read_text()
        assert time.monotonic() < deadline, (base / "parents.log").read_text()
        time.sleep(0.05)
