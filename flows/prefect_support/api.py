"""Client of Prefect's HTTP API for short-lived and small processes: importing Prefect takes 1.7 s and 100 MB.

A call is repeated when the server does not answer or is busy (503), so what returns was received. Prefect's own
`emit_event` hands over to a thread, and loses the event when the process ends at once.
"""

from __future__ import annotations

import os
import time
import urllib.error
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tasks.ground import http
from tasks.ground.errors import WorldError

PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0)
"""Seconds before each further try: a server that was killed is back within them, also on a busy machine."""

TRANSIENT = {408, 429, 500, 502, 503, 504}

_tries: ContextVar[int | None] = ContextVar("tries", default=None)  # None: as many as there are pauses


class PrefectApiError(WorldError):
    """The Prefect server does not answer, or refuses a request."""


class PrefectNotFound(PrefectApiError):
    """The Prefect server has no such thing (404)."""


@contextmanager
def patience(tries: int) -> Iterator[None]:
    """Within the block a call is repeated so many times at most; 0 for whoever shows what answers now."""
    token = _tries.set(tries)
    try:
        yield
    finally:
        _tries.reset(token)


def call(path: str, body: Any = None, method: str = "") -> Any:
    """POST a JSON body to a path of the API (without a body: GET); gives the JSON answer, or None.

    Raises:
        PrefectNotFound: 404.
        PrefectApiError: it did not answer after all further tries, or refused.
    """
    url = f"{os.environ['PREFECT_API_URL']}{path}"
    for pause in (*PAUSES[: _tries.get()], None):
        try:
            return http.call(url, body, authorization(), method=method)
        except urllib.error.HTTPError as error:
            if pause is None or error.code not in TRANSIENT:
                raise _refusal(url, error) from None
        except (urllib.error.URLError, OSError, ValueError) as error:
            if pause is None:
                advice = "Start it (evergreen up), or set PREFECT_API_URL"
                raise PrefectApiError(f"the Prefect server does not answer on {url}: {error}. {advice}") from None
        time.sleep(pause)
    raise AssertionError("unreachable")


def _refusal(url: str, error: urllib.error.HTTPError) -> PrefectApiError:
    reason = error.read().decode(errors="replace")[:300]
    if error.code == 404:
        return PrefectNotFound(f"the Prefect server has no {url}: {reason}")
    return PrefectApiError(f"the Prefect server refuses {url}: {error.code} {reason}")


def authorization() -> dict[str, str]:
    """The header that a server with PREFECT_SERVER_API_AUTH_STRING (user:password) requires."""
    secret = os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    return {"authorization": f"Basic {b64encode(secret.encode()).decode()}"} if secret else {}


def run_url(flow_run_id: str) -> str:
    """The page of a flow run in Prefect's UI."""
    base = os.environ.get("PREFECT_UI_URL") or os.environ["PREFECT_API_URL"].removesuffix("/api")
    return f"{base}/runs/flow-run/{flow_run_id}"
