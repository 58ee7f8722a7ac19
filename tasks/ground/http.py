"""HTTP for small processes: probe an address or a socket, wait for it, call with JSON, find a free port."""

from __future__ import annotations

import json
import random
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def answers(url: str) -> bool:
    """Whether a GET gives a 2xx within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(200 <= response.status < 300)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def call(
    url: str, body: Any = None, headers: Mapping[str, str] | None = None, *, method: str = "", timeout: float = 10
) -> Any:
    """POST a JSON body, or GET without one; gives the JSON answer, None where it is empty.

    Raises:
        urllib.error.HTTPError: the server refuses (an OSError).
        OSError: it does not answer.
        ValueError: the answer is not JSON.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"content-type": "application/json", **(headers or {})}, method=method or None
    )
    with urllib.request.urlopen(request, timeout=timeout) as response:
        answer = response.read()
    return json.loads(answer) if answer else None


def hears(path: Path) -> bool:
    """Whether the server of a socket takes a connection, and closes it upon an empty line, within a second."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
            probe.sendall(b"\n")
            return probe.recv(1) == b""
        except OSError:
            return False


def wait_until(is_so: Callable[[], object], seconds: float) -> bool:
    """Look ten times a second, for so long; gives whether it became so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now, and that Linux gives to no client before its server listens."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)  # clients get theirs of net.ipv4.ip_local_port_range
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
