"""A router for tests: it follows what should serve, answers the operator, and has as much traffic as is wanted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from tasks.ground import files, params, settings
from tasks.release.registry import desired_state
from tasks.release.registry.desired_state import DesiredState, ReleaseRef

MODEL = "late"
FEATURES = {"origin": {"type": "category"}, "temp": {"type": "number"}}
OLD, NEW = ReleaseRef("0" * 16, 1), ReleaseRef("1" * 16, 2)
EDGES_MS = [round(0.5 * 1.15**i, 4) for i in range(80)]
COUNTERS = ("answered", "errors", "refused", "late", "failed_alone")


def limits(**changed: Any) -> params.Rollout:
    """The rules, with others than the defaults."""
    return params.Rollout(**{"start_s": 1.0, "bake_s": 1.0, "replay": 60, **changed})


@dataclass
class Behaviour:
    """How a release of the fake router behaves."""

    starts: float = 0.0
    """Seconds until it is ready; for ever when below zero."""
    why: str | None = None
    """It does not start, and says this."""
    ms: float = 0.0
    answer: Callable[[dict[str, Any]], float] = lambda row: 0.5 if row["temp"] is None else row["temp"] / 100
    fails: Callable[[int], bool] = lambda _: False
    """Whether the production request of this number ends in an error."""
    fails_with_both: bool = False
    """Whether the live release fails at the same requests."""
    tried: Callable[[int], int] = lambda _: 200
    """The status of the operator's call of this number."""
    dies: int = 0
    """At so many looks it has another process."""
    hangs: bool = False
    """It answers nothing in production."""
    pid: int = 7
    begun: float = 0.0
    asked: int = 0
    counts: dict[str, Any] = field(default_factory=dict)


class FakeRouter:
    """As deployments/serving/router.py, as far as a rollout sees it; `rps` requests a second come by themselves."""

    def __init__(self, rps: float = 0.0, model: str = MODEL, **releases: Behaviour) -> None:
        self.releases = {{"old": OLD, "new": NEW}[name].candidate: one for name, one in releases.items()}
        self.rps, self.pid, self.token, self.model = rps, 1, "secret", model
        self.seen, self.last, self.draw = [], time.monotonic(), np.random.default_rng(0)
        files.write_text(settings.VAR / "run" / "router.token", self.token)
        self.lock = threading.Lock()

    def status(self) -> dict[str, Any]:
        """What GET /status says: with what has come since it was asked last."""
        now = desired_state.read(self.model)
        self.seen.append(now)
        self._traffic(now)
        told = {}
        for one in (now.live, now.previous, now.canary):
            if one:
                told[one.candidate] = self._state(self.releases[one.candidate])
        for candidate in told:
            told[candidate] |= self._counts(self.releases[candidate])
        answers = now.live.candidate if now.live and told[now.live.candidate]["state"] == "ready" else None
        return {"pid": self.pid, "models": {self.model: {**now.as_json(), "answers": answers, "releases": told}}}

    def _state(self, one: Behaviour) -> dict[str, Any]:
        one.begun = one.begun or time.monotonic()
        ready = 0 <= one.starts <= time.monotonic() - one.begun
        state = "failed" if one.why else "ready" if ready else "starting"
        if one.dies and state == "ready":
            one.pid, one.dies = one.pid + 1, one.dies - 1
        waiting = 3 if one.hangs and one.counts else 0
        return {"state": state, "why": one.why, "pids": [one.pid], "startup_s": one.starts, "waiting": waiting}

    def _counts(self, one: Behaviour) -> dict[str, Any]:
        counts = one.counts or {**dict.fromkeys(COUNTERS, 0), "latency": [0] * 81}
        return {
            **{name: counts[name] for name in COUNTERS},
            "latency": {"edges_ms": EDGES_MS, "counts": list(counts["latency"])},
        }

    def _traffic(self, now: DesiredState) -> None:
        self.last = max(self.last, time.monotonic() - 0.6)  # while nobody looks, nobody comes
        number = int((time.monotonic() - self.last) * self.rps)
        self.last += number / self.rps if self.rps else 0
        for _ in range(number if now.live else 0):
            is_canary = now.share is not None and self.draw.random() < now.share
            one = self.releases[(now.canary if is_canary else now.live).candidate]  # type: ignore[union-attr]
            one.counts = one.counts or self._counts(one) | {"latency": [0] * 81}
            if one.hangs or one.dies:
                continue
            failed = one.fails(one.counts["answered"] + one.counts["errors"])
            one.counts["errors" if failed else "answered"] += 1
            one.counts["failed_alone"] += failed and is_canary and not one.fails_with_both
            one.counts["latency"][int(np.searchsorted(EDGES_MS, one.ms + self.draw.uniform(1, 3)))] += 1

    def predict(self, candidate: str, rows: list[dict[str, Any]]) -> tuple[int, Any]:
        """What the operator's call answers."""
        one = self.releases[candidate]
        time.sleep(one.ms / 1000)
        with self.lock:
            one.asked += 1
            status = one.tried(one.asked)
        if status != 200:
            return status, {"error": "cannot"} if status >= 500 else {
                "error": "refused",
                "detail": [{"row": 0, "field": "temp", "problem": "is missing"}],
            }
        shown = [one.answer(row) for row in rows]
        said = [
            {"id": "x", "prediction": int(p > 0.5), "probability": p, "probabilities": {"0": 1 - p, "1": p}}
            for p in shown
        ]
        return 200, {"model": MODEL, "version": "1", "release": f"{self.model}:{candidate}", "predictions": said}


def running(fake: FakeRouter) -> AbstractContextManager[int]:
    """The fake on a port of its own; gives that."""

    def answer(path: str, token: str, body: Any) -> tuple[int, Any]:
        if body is None:
            return 200, fake.status()
        if token != f"Bearer {fake.token}":
            return 401, {"error": "who are you?"}
        return fake.predict(path.split("/")[3], body["rows"])

    return serving(answer)


@contextmanager
def serving(answer: Callable[[str, str, Any], tuple[int, Any]]) -> Iterator[int]:
    """A server that gives a status and JSON for a path, an authorization and a JSON body; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, reply = answer(self.path, self.headers.get("authorization") or "", json.loads(body or b"null"))
            content = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
