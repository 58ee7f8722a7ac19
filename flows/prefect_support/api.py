"""Prefect's HTTP API, for what is said from short-lived or small processes: without importing Prefect (1.7 s, 100 MB).

Every call is made now, and again when the server does not answer or is busy (503): what returns was heard. Prefect's
own `emit_event` hands over to a thread and loses the event when the process ends at once.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from base64 import b64encode
from typing import Any

from tasks.ground.errors import WorldError

PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0)
"""Seconds before each further try: a server that was killed is back within them, also on a busy machine."""


class PrefectApiError(WorldError):
    """The Prefect server does not answer, or refuses."""


class PrefectNotFound(PrefectApiError):
    """The Prefect server has no such thing (404)."""


def call(path: str, body: Any = None, method: str = "", patience: int = len(PAUSES)) -> Any:
    """POST a JSON body to a path of the API (without one: GET); gives the JSON answer, or None.

    Raises:
        PrefectNotFound: 404.
        PrefectApiError: it did not answer after `patience` further tries, or refused.
    """
    url = f"{os.environ['PREFECT_API_URL']}{path}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"content-type": "application/json", **authorization()}, method=method or None
    )
    for pause in (*PAUSES[:patience], None):
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer = response.read()
                return json.loads(answer) if answer else None
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:300]
            if error.code == 404:
                raise PrefectNotFound(f"the Prefect server has no {url}: {said}") from None
            if pause is None or error.code not in {408, 429, 500, 502, 503, 504}:
                raise PrefectApiError(f"the Prefect server refuses {url}: {error.code} {said}") from None
        except (urllib.error.URLError, OSError, ValueError) as error:
            if pause is None:
                raise PrefectApiError(
                    f"the Prefect server does not answer on {url}: {error}. Start it (make up), or set PREFECT_API_URL"
                ) from None
        time.sleep(pause)
    raise AssertionError("unreachable")


def authorization() -> dict[str, str]:
    """The header the API wants where it was given PREFECT_SERVER_API_AUTH_STRING (user:password)."""
    secret = os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    return {"authorization": f"Basic {b64encode(secret.encode()).decode()}"} if secret else {}


def run_url(flow_run_id: str) -> str:
    """Where a person looks at a flow run."""
    base = os.environ.get("PREFECT_UI_URL") or os.environ["PREFECT_API_URL"].removesuffix("/api")
    return f"{base}/runs/flow-run/{flow_run_id}"


def masked(url: str) -> str:
    """An address as it may be shown: without what stands before the @."""
    return re.sub(r"://[^/@]*@", "://***@", url)
