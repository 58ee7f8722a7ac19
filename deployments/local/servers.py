"""Servers on this machine that live as long as a block: on 127.0.0.1, waited for, and ended with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tasks.ground import http, paths, process_tags, settings
from tasks.ground.errors import WorldError

BIN = Path(sys.executable).parent

END_SECONDS = 20  # how long a process may take to end when it is asked to


@contextmanager
def prefect_server() -> Iterator[str]:
    """The Prefect API to use: the one that PREFECT_API_URL names if it answers, else a server of this block.

    A server of another checkout on this machine is not used: its flows would be triggered by this checkout's events.
    """
    url = os.environ["PREFECT_API_URL"]
    if http.answers(f"{url}/health"):
        other = other_checkout(url)
        if not other:
            yield url
            return
        print(f"  {url} belongs to {other}: not used", flush=True)
    port = http.free_port()
    url = os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    with process(
        [sys.executable, "-m", "deployments.orchestration.prefect_server", "--port", str(port)], "prefect-server"
    ):
        yield url


def other_checkout(url: str) -> str | None:
    """The checkout that a server on this machine was started for, if it is another than this."""
    address = urlsplit(url)
    if address.hostname not in ("127.0.0.1", "localhost") or address.port is None:
        return None
    _, checkout = process_tags.listener(address.port)
    return checkout if checkout and checkout != str(settings.ROOT) else None


@contextmanager
def bento(tag: str) -> Iterator[str]:
    """`bentoml serve` of a release on a free port, ready to answer; gives its address."""
    port = http.free_port()
    url = f"http://127.0.0.1:{port}"
    with process([BIN / "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)], "bento") as running:
        wait_for(f"{url}/readyz", running, "bento", seconds=60)
        yield url


@contextmanager
def process(command: list[str | Path], name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is terminated with the block, and killed if that takes too long; its log is var/log/<name>.log."""
    log = paths.log(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=settings.ROOT)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_for(url: str, running: subprocess.Popen[bytes], name: str, seconds: float) -> None:
    """Wait until a server answers; where it ends, or is late, the error names its log."""
    in_time = http.wait_until(lambda: running.poll() is not None or http.answers(url), seconds)
    if running.poll() is not None:
        raise WorldError(f"{name} ended with code {running.returncode} before it answered. Its log: {paths.log(name)}")
    if not in_time:
        raise WorldError(f"{name} did not answer on {url} within {seconds:.0f} s. Its log: {paths.log(name)}")
