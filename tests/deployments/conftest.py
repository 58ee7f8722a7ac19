"""A platform as `make up` starts it, on free ports, for the small project; and somebody who is told about failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.prefect_support import api
from tasks.ground import http, process_tags
from tests.conftest import Project, copy_project, work_on, write_readings


@dataclass
class Platform:
    """A running platform, seen from outside."""

    project: Project
    process: subprocess.Popen[bytes]
    told: list[dict[str, str]]
    """What was sent to EVERGREEN_NOTIFY_URL."""

    @property
    def ui(self) -> str:
        """Where a browser goes."""
        return os.environ["PREFECT_API_URL"].removesuffix("/api")

    def console(self) -> str:
        """What it has told until now."""
        return (self.project.root / "up.log").read_text(encoding="utf-8")

    def service(self, name: str) -> int:
        """The process of a service."""
        return int(json.loads((self.project.root / "var/run/stack.json").read_text())["services"][name])

    def deliver(self, month: int, content: str | None = None) -> None:
        """Put a month of readings into the landing zone."""
        elsewhere = write_readings(self.project.root / "upstream", month)
        if content is not None:
            elsewhere.write_text(content)
        landing = self.project.root / "var/landing/readings"
        landing.mkdir(parents=True, exist_ok=True)
        elsewhere.rename(landing / elsewhere.name)

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """The flow runs that have begun, the newest first; not those that another one has answered."""
        begun = {"start_time": {"is_null_": False}, "state": {"name": {"not_any_": ["Coalesced"]}}}
        which = {"flows": {"name": {"any_": [flow]}}, "flow_runs": begun}
        return list(api.call("/flow_runs/filter", {**which, "sort": "START_TIME_DESC"}))


PATIENCE = float(os.environ.get("EVERGREEN_TEST_PATIENCE", "1"))
"""What all waits are multiplied with, on a machine that is busy with other things."""


def until(true: Callable[[], Any], seconds: float = 200, what: str = "") -> Any:
    """Wait until something is true, and give it. Prefect's server may stand on its SQLite for two minutes."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"{what or true} did not come true within {seconds:.0f} s"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def platform(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """`make up` in the foreground, ended by Ctrl-C."""
    root = copy_project(small_copied, tmp_path_factory.mktemp("up") / "project")
    with pytest.MonkeyPatch.context() as patch, _receiver() as (url, told):
        patch.setenv("PREFECT_SERVER_API_PORT", str(http.free_port()))
        project = work_on(root, patch)
        for port in ("MLFLOW_PORT", "EVERGREEN_PORT"):
            patch.setenv(port, str(http.free_port()))
        patch.setenv("EVERGREEN_NOTIFY_URL", url)
        running = Platform(project, start(root), told)
        try:
            yield running
        finally:
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGINT)
                running.process.wait(timeout=60)
            process_tags.end_all(str(root))


def start(root: Path) -> subprocess.Popen[bytes]:
    """`make up` in the foreground; gives its process when it is ready. It tells in up.log."""
    log = root / "up.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "deployments.cli", "up"]
        process = subprocess.Popen(command, cwd=root, stdout=out, stderr=out)
    try:
        until(lambda: "ready after" in log.read_text() or process.poll() is not None, 300, "make up")
    except AssertionError:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert process.poll() is None, log.read_text()
    return process


@pytest.fixture(autouse=True)
def told_if_it_fails(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the platform has told stands below a test that fails: elsewhere nobody can look."""
    yield
    if "platform" in request.fixturenames:
        print(request.getfixturevalue("platform").console()[-8000:])


@contextmanager
def _receiver() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that keeps what is posted to it."""
    told: list[dict[str, str]] = []

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keep)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/told", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
