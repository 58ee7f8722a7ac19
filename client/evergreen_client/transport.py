"""One request to the router, asked again where that can help."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

from evergreen_client.errors import (
    EvergreenError,
    Failed,
    Refused,
    Unauthorized,
    Unavailable,
    UnknownModel,
    Unreachable,
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
KINDS: dict[int, type[EvergreenError]] = {401: Unauthorized, 404: UnknownModel, 503: Unavailable}


class Transport:
    """Connections to one router, kept for the next request while it answers; any thread may ask."""

    def __init__(self, url: str, key: str | None, timeout: float, retries: int) -> None:
        self._idle: list[http.client.HTTPConnection] = []
        self._mutex = threading.Lock()
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a router: write http://127.0.0.1:3000")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._timeout, self._retries = timeout, retries

    def call(self, method: str, path: str, content: Any = None, **headers: str) -> Any:
        """The JSON that the router answers.

        Raises:
            EvergreenError: it does not answer with success, also when asked again.
        """
        body = None if content is None else json.dumps(content, allow_nan=False).encode()
        sent = {**self._headers, "x-request-id": uuid.uuid4().hex, **headers}
        if body is not None:
            sent["content-type"] = "application/json"
        until, tried = time.monotonic() + self._timeout, 0
        while True:
            try:
                return self._once(method, f"{self._prefix}{path}", body, sent, until)
            except (Unavailable, Unreachable) as error:
                pause = _pause(error, tried)
                tried += 1
                if tried > self._retries or time.monotonic() + pause >= until:
                    raise
            time.sleep(pause)

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._mutex:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    __del__ = close

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str], until: float) -> Any:
        connection, was_kept = self._connection(max(0.001, until - time.monotonic()))
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if was_kept and isinstance(error, ConnectionError):
                return self._once(method, path, body, headers, until)  # it was closed while nobody asked
            raise Unreachable(f"{self._host}:{self._port or ''} does not answer: {error!r}") from None
        if answer.will_close:
            connection.close()
        else:
            with self._mutex:
                self._idle.append(connection)
        if answer.status != 200:
            raise _error(answer.status, text, answer.headers.get("retry-after"))
        return json.loads(text)

    def _connection(self, timeout: float) -> tuple[http.client.HTTPConnection, bool]:
        with self._mutex:
            kept = self._idle.pop() if self._idle else None
        if kept is None:
            return self._kind(self._host, self._port, timeout=timeout), False
        kept.timeout = timeout
        if kept.sock is not None:
            kept.sock.settimeout(timeout)
        return kept, True


def _pause(error: EvergreenError, tried: int) -> float:
    """Seconds until the next try: as the router asks, else growing, and never the same for two clients."""
    asked = getattr(error, "retry_after", None)
    growing = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**tried)
    return asked + random.uniform(0, 0.1) if asked is not None else random.uniform(growing / 2, growing)  # noqa: S311


def _error(status: int, text: bytes, retry_after: str | None) -> EvergreenError:
    try:
        told = json.loads(text)
        message, detail = str(told["error"]), list(told.get("detail") or [])
    except (ValueError, KeyError, TypeError, AttributeError):  # something between here and the router answered
        message, detail = text[:300].decode(errors="replace").strip() or f"HTTP {status}", []
    if status in KINDS:
        error = KINDS[status](message, status)
        if retry_after is not None and retry_after.isdigit():
            error.retry_after = float(retry_after)  # type: ignore[attr-defined]
        return error
    if status < 500:
        return Refused(message, status, detail)
    return Unavailable(message, status) if status in (502, 504) else Failed(message, status)
