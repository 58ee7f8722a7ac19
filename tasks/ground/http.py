"""Whether somebody answers on this machine: at an address, at a socket; and a port that is free."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path


def answers(url: str) -> bool:
    """Whether a GET gives a 2xx within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(200 <= response.status < 300)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def hears(path: Path) -> bool:
    """Whether somebody at a socket takes a connection and lets go whoever asks for nothing, within a second."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
            probe.sendall(b"\n")
            return probe.recv(1) == b""
        except OSError:
            return False


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
