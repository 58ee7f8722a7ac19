"""A router as `make up` starts it, on a free port, for a small flight_delay; and what can be done to it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tasks.ground import files, params, settings
from tasks.release.package import package
from tests.deployments.conftest import until
from tests.release_root import make_project, project_at

MODEL = "flight_delay"
ROW = {"carrier": "UA", "origin": "EWR", "dest": "IAH", "weekday": 1, "hour": 17, "minute": 30, "distance": 1400}
BODY = json.dumps({"rows": [ROW]}).encode()

CLIENT = httpx.Client(headers={"connection": "close"}, timeout=60)
"""Connects anew for each request (with a limit of no kept ones, a thread sometimes closes another one's connection)."""


def make_release(root: Path) -> str:
    """A project with a release of flight_delay where the router looks for it; gives the candidate."""
    make_project(root, MODEL)
    with project_at(root):
        package.write_release(MODEL, params.load().model(MODEL), root / "release")
        candidate = str(files.read_json(root / "release" / "candidate.json")["candidate"])
        shutil.copytree(root / "release", _src(root, MODEL, candidate))
    return candidate


def _src(root: Path, model: str, candidate: str) -> Path:
    return root / "var" / "bentoml" / "bentos" / model / candidate / "src"


@dataclass
class Routed:
    """A router's process, seen from outside."""

    root: Path
    candidate: str
    port: int
    model: str = MODEL
    started_with: str | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, before: str | None = None) -> None:
        """Start it; some code may run in its process first (`router` is the module). None: the same as last time."""
        self.started_with = before = self.started_with or "" if before is None else before
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("EVERGREEN", "PYTHON", "BENTOML"))}
        with project_at(self.root):
            environment = {**environment, **settings.environment(), "EVERGREEN_PORT": str(self.port)}
            environment["BENTOML_HOME"] = str(self.root / "var" / "bentoml")
        code = f"from deployments.serving import router\n{before}\nrouter.main()"
        with (self.root / "router.log").open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], cwd=self.root, env=environment, stdout=said, stderr=said
            )
        until(self._is_up, 60, "a router")

    def _is_up(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.said()
        try:
            return self.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it, and wait for its replicas to be gone."""
        assert self.process
        pids = [pid for one in self.releases().values() for pid in one["pids"]] if self.process.poll() is None else []
        self.process.send_signal(how)
        self.process.wait(60)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 30, f"the end of {pids}")

    def said(self) -> str:
        """What it wrote."""
        return (self.root / "router.log").read_text(encoding="utf-8")

    # ── what should serve ─────────────────────────────────────────────────────────────────────────

    def variant(self, name: str, **edits: tuple[str, str]) -> str:
        """A release with other code: file (with __ for / and . for _py) → a text, and what stands there instead."""
        src = shutil.copytree(self.src(self.candidate), self.src(name))
        files.write_json(src / "candidate.json", {"candidate": name})
        for path, (old, new) in edits.items():
            file = src / f"{path.replace('__', '/')}.py"
            text = file.read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{file} holds {old!r} {text.count(old)} times"
            file.write_text(text.replace(old, new), encoding="utf-8")
        return name

    def src(self, candidate: str) -> Path:
        """The release's folder."""
        return _src(self.root, self.model, candidate)

    def want(
        self, live: str | None, *beside: str, canary: str | None = None, share: float = 0.0, role: str = "challenger"
    ) -> None:
        """Say what should serve."""
        said = {
            "live": {"candidate": live, "version": 3, "since": "2026-11-21T00:00:00Z"} if live else None,
            "beside": [{"candidate": one, "version": 4, "role": role} for one in beside],
            "canary": {"candidate": canary, "share": share} if canary else None,
        }
        files.write_json(self.root / "var" / "serving" / f"{self.model}.json", said)

    def serve(
        self, live: str | None, *beside: str, canary: str | None = None, share: float = 0.0, role: str = "challenger"
    ) -> None:
        """Say what should serve, and wait until it does."""
        self.want(live, *beside, canary=canary, share=share, role=role)
        wanted = {one for one in (live, *beside) if one}
        shown = {"candidate": canary, "share": share} if canary else None
        until(lambda: self._serves(live, wanted, shown), 60, f"{live} and {beside}: {self.releases()}")

    def _serves(self, live: str | None, wanted: set[str], canary: dict[str, Any] | None) -> bool:
        model = self.status()
        if model.get("canary") != canary:
            return False
        ready = {name for name, one in model["releases"].items() if one["state"] == "ready"}
        return bool(model["answers"] == live and wanted <= ready and set(model["releases"]) == wanted)

    # ── what it tells ─────────────────────────────────────────────────────────────────────────────

    def status(self) -> dict[str, Any]:
        """Of the model."""
        operator = {"authorization": f"Bearer {self.token()}"}
        said = CLIENT.get(f"{self.url}/status", headers=operator).raise_for_status().json()
        return dict(said["models"].get(self.model, {"answers": None, "releases": {}}))

    def releases(self) -> dict[str, Any]:
        """Candidate → its state and counters."""
        return dict(self.status()["releases"])

    def token(self) -> str:
        """The operator's."""
        return (self.root / "var" / "run" / "router.token").read_text(encoding="utf-8")

    def logged(self) -> list[dict[str, Any]]:
        """The lines of the prediction log that are whole."""
        lines = []
        for path in sorted((self.root / "var" / "predictions" / MODEL / "incoming").glob("*/*.jsonl")):
            lines += [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        return lines

    def post(self, body: Any = None, path: str = f"/{MODEL}/predict", **headers: str) -> httpx.Response:
        """Post rows, or a body as it is, on a new connection."""
        content = body if isinstance(body, bytes) else BODY if body is None else json.dumps({"rows": body}).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return CLIENT.post(f"{self.url}{path}", content=content, headers=named)

    def get(self, path: str) -> httpx.Response:
        """Look at a page."""
        return CLIENT.get(f"{self.url}{path}")


# ── load ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Load:
    """What clients saw, that asked all the time."""

    port: int
    body: bytes = BODY
    path: str = f"/{MODEL}/predict"
    statuses: Counter[int] = field(default_factory=Counter)
    answers: list[tuple[float, str]] = field(default_factory=list)
    """When somebody asked (time.monotonic), and which release answered."""
    ids: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, *, keep: bool) -> None:
        """Ask until it is over, on one connection or on a new one each time; no request is tried twice."""
        connection = None
        while not self.over.is_set():
            try:
                asked = time.monotonic()
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.request("POST", self.path, self.body)
                answer = connection.getresponse()
                said = answer.read()
                self._note(asked, answer.status, said, answer.headers.get("evergreen-release", ""))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                if connection:
                    connection.close()
                connection = None
                time.sleep(0.05)
            if connection and not keep:
                connection.close()
                connection = None
        if connection:
            connection.close()

    def _note(self, asked: float, status: int, said: bytes, release: str) -> None:
        with self.lock:
            self.statuses[status] += 1
            self.answers.append((asked, release.partition(":")[2]))
            if status == 200:
                self.ids |= _ids(json.loads(said))
            else:
                self.failures.append(f"{status}: {said[:200]!r}")

    def has_asked(self, more: int) -> None:
        """Wait until so many more requests are answered."""
        goal = sum(self.statuses.values()) + more
        until(lambda: sum(self.statuses.values()) >= goal, 60, f"{more} answers")


def _ids(answer: dict[str, Any]) -> set[str]:
    """Of the predictions, in rows or in tensors."""
    if "outputs" in answer:
        return set(next(one["data"] for one in answer["outputs"] if one["name"] == "id"))
    return {one["id"] for one in answer["predictions"]}


@contextmanager
def load(port: int, clients: int = 6, body: bytes = BODY, path: str = f"/{MODEL}/predict") -> Iterator[Load]:
    """While this lasts, clients ask: half of them keep their connections."""
    seen = Load(port, body, path)
    threads = [threading.Thread(target=seen.ask, kwargs={"keep": n % 2 == 0}) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        seen.over.set()
        for thread in threads:
            thread.join()
