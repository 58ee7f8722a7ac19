"""Client of the router, as its operator: what it does, and what one release answers. By plain HTTP.

A router that is killed is back within seconds, with counters that begin anew and another token. So a call that gets no
answer is made again for a while, and none of this is held against a release.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tasks.ground import paths, settings
from tasks.ground.errors import WorldError
from tasks.release.rollout.router_status import SILENT, TIMED_OUT, ModelStatus, ReleaseStatus, RouterStatus

CALL_SECONDS = 5.0
"""How long a request may take: as long as in production."""

PAUSE = 0.05
"""Seconds between two looks at something that is awaited."""

UNKNOWN, REFUSED = 404, 401
"""Statuses of a router that does not know a release, or a token, yet."""


class RouterSilent(WorldError):
    """The router does not answer: it is not up, or somebody else has its port."""


@dataclass(frozen=True)
class Reply:
    """What was answered to one request."""

    status: int
    body: Any
    ms: float
    """From the first byte sent to the last one received."""

    @property
    def problem(self) -> str:
        """Why it is no answer, in a line; without what the request held."""
        if not isinstance(self.body, dict):
            return f"HTTP {self.status}: {str(self.body)[:200]}"
        detail = self.body.get("detail")
        first = detail[0] if isinstance(detail, list) and detail else None
        more = f" ({first.get('field')} {first.get('problem')})" if isinstance(first, dict) else ""
        return f"HTTP {self.status}: {self.body.get('error', 'no reason given')}{more}"


@dataclass
class RouterClient:
    """The router of this machine. Connections are kept open, one for each release, until the block ends."""

    patience: float = 8.0
    """Seconds for which it may be away."""
    port: int = field(default_factory=lambda: int({**settings.environment(), **os.environ}["EVERGREEN_PORT"]))
    _open: dict[str, http.client.HTTPConnection] = field(default_factory=dict, repr=False)

    def __enter__(self) -> RouterClient:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._open.values():
            connection.close()

    @property
    def address(self) -> str:
        """Where it is, for people."""
        return f"http://127.0.0.1:{self.port}"

    def status(self, model: str) -> tuple[int, ModelStatus]:
        """The router's process number, and what it does for a model."""
        reply = self._request("GET", "/status", None, {REFUSED})
        try:
            status = RouterStatus.model_validate(reply.body)
        except ValidationError:
            raise RouterSilent(
                f"{self.address}/status gives HTTP {reply.status}: that is not Evergreen's router"
            ) from None
        return status.pid, status.models.get(model, ModelStatus())

    def fault(self, model: str, candidate: str, patience: float = 0) -> str | None:
        """Why a release does not run; None if it does, at the latest after `patience` seconds."""
        deadline = time.monotonic() + patience
        while why := fault(self.status(model)[1].releases.get(candidate)):
            if time.monotonic() > deadline:
                return why
            time.sleep(PAUSE)
        return None

    def predict(self, model: str, candidate: str, rows: list[dict[str, Any]]) -> Reply:
        """Ask one release, past the routing and the log. HTTP 504 when it takes longer than CALL_SECONDS.

        Raises:
            RouterSilent: it was away, or did not know the release, for longer than `patience`.
        """
        body = json.dumps({"rows": rows}).encode()
        reply = self._request("POST", f"/operator/{model}/{candidate}/predict", body, {REFUSED, UNKNOWN})
        if reply.status in (REFUSED, UNKNOWN):
            raise RouterSilent(f"{self.address} does not let {model}:{candidate} be asked: {reply.problem}")
        return reply

    def _request(self, method: str, path: str, body: bytes | None, not_yet: set[int]) -> Reply:
        """Again where a router was killed: its token is written a moment after it answers, its releases begin anew."""
        deadline = time.monotonic() + self.patience
        while True:
            is_over = time.monotonic() > deadline
            try:
                reply = self._call(method, path, body)
                if is_over or reply.status not in not_yet:
                    return reply
            except (OSError, http.client.HTTPException) as error:
                if is_over:
                    raise RouterSilent(
                        f"the router does not answer on {self.address}: {error or type(error).__name__}. "
                        f"Start it (evergreen up), or set EVERGREEN_PORT"
                    ) from None
            time.sleep(PAUSE)

    def _call(self, method: str, path: str, body: bytes | None) -> Reply:
        """One request on the path's own connection; a connection that failed is forgotten."""
        if path not in self._open:
            self._open[path] = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CALL_SECONDS)
        connection = self._open[path]
        headers = {"authorization": f"Bearer {token()}", **({"content-type": "application/json"} if body else {})}
        begin = time.perf_counter()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        except TimeoutError:
            self._open.pop(path).close()
            if body is None:
                raise
            return Reply(TIMED_OUT, {"error": f"no answer within {CALL_SECONDS:g} s"}, CALL_SECONDS * 1000)
        except (OSError, http.client.HTTPException):
            self._open.pop(path).close()
            raise
        ms = (time.perf_counter() - begin) * 1000
        try:
            return Reply(response.status, json.loads(content), ms)
        except ValueError:
            return Reply(response.status, content.decode(errors="replace"), ms)


def fault(release: ReleaseStatus | None) -> str | None:
    """Why a release does not start; None while it does, or has died without a word."""
    if release is None or release.state != "failed" or (release.why or "").endswith(SILENT):
        return None
    return last_line(release.why or "")


def last_line(text: str) -> str:
    """The last line that a process wrote before it ended: mostly the error."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else SILENT


def token() -> str:
    """The operator's token. Read for each call: a router that was started anew has another."""
    try:
        return paths.router_token().read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
