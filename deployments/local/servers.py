"""Servers on this machine: each on 127.0.0.1, waited for until it answers, and ended with whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tasks.ground import http, paths, process_tags, settings
from tasks.ground.errors import WorldError

BIN = Path(sys.executable).parent


@contextmanager
def prefect_server() -> Iterator[str]:
    """The Prefect API to use: the one PREFECT_API_URL names if it answers, else one that lives as long as the block.

    Nor one on this machine that was started for another checkout: the flows of either would wake the other's.
    """
    url = os.environ["PREFECT_API_URL"]
    if http.answers(f"{url}/health"):
        other = anothers(url)
        if not other:
            yield url
            return
        print(f"  {url} is of {other}: not for this one", flush=True)
    port = http.free_port()
    url = os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    with process(
        [sys.executable, "-m", "deployments.orchestration.prefect_server", "--port", str(port)], "prefect-server"
    ):
        yield url


def anothers(url: str) -> str | None:
    """The checkout that a server on this machine was started for, if it is another one than this."""
    address = urlsplit(url)
    if address.hostname not in ("127.0.0.1", "localhost") or address.port is None:
        return None
    checkout = process_tags.checkout_on(address.port)
    return checkout if checkout and checkout != str(settings.ROOT) else None


@contextmanager
def bento(tag: str) -> Iterator[str]:
    """`bentoml serve` of one release on a free port, ready to answer; gives its address."""
    port = http.free_port()
    url = f"http://127.0.0.1:{port}"
    with process([BIN / "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)], "bento") as running:
        wait_for(f"{url}/readyz", running, "bento", seconds=60)
        yield url


@contextmanager
def process(command: list[str | Path], name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, asked first and then made to. It writes to var/log/<name>.log."""
    log = paths.log(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=settings.ROOT)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(timeout=20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_for(url: str, running: subprocess.Popen[bytes], name: str, seconds: float) -> None:
    """Wait until a server answers.

    Raises:
        WorldError: it ended, or did not answer in time; says where its log is.
    """
    deadline = time.monotonic() + seconds
    log = paths.log(name)
    while not http.answers(url):
        if running.poll() is not None:
            raise WorldError(f"{name} ended with code {running.returncode} before it answered. Its log: {log}")
        if time.monotonic() > deadline:
            raise WorldError(f"{name} did not answer on {url} within {seconds:.0f} s. Its log: {log}")
        time.sleep(0.1)
