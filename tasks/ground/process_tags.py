"""Processes known by a mark in their environment, which they inherit from whoever started them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import psutil

STACK = "EVERGREEN_STACK"
"""The variable; its value is the checkout whose platform a process belongs to."""

SERVICE = "EVERGREEN_SERVICE"
"""Beside it: the service that a process was started by or for."""

SUPERVISOR = {"deployments.cli", "up"}
"""Stand in the command of a stack that keeps a platform up."""

PATIENCE_S = 8
"""So long a process may take to end when it is asked to."""


def tagged(mark: str) -> list[psutil.Process]:
    """The processes with this mark, this one apart."""
    return [process for process in _marked(mark) if process.pid != os.getpid()]


def end_all(mark: str, keep: set[int] | None = None) -> int:
    """End the processes with this mark: asked first, and then made to. Gives how many there were."""
    count = 0
    for _ in range(3):  # one that is ending may still start another
        there = [process for process in tagged(mark) if process.pid not in (keep or set())]
        if not there:
            break
        count += len(there)
        for process in there:
            _tell(process, terminate=True)
        _, still = psutil.wait_procs(there, timeout=PATIENCE_S)
        for process in still:
            _tell(process, terminate=False)
        psutil.wait_procs(still, timeout=PATIENCE_S)
    return count


def find_supervisor(mark: str) -> int | None:
    """The stack that started the processes with this mark; None where there is none any more.

    Neither its lock nor its note is needed: these may have been removed.
    """
    for process in tagged(mark):
        with suppress(psutil.Error, OSError):
            parent = int(process.ppid())
            if parent != os.getpid() and is_supervisor(parent):
                return parent
    return None


def is_supervisor(pid: int) -> bool:
    """Whether a process is a stack (`evergreen up`)."""
    try:
        return set(psutil.Process(pid).cmdline()) >= SUPERVISOR
    except (psutil.Error, OSError):
        return False


def kill_service(mark: str, service: str, keep: set[int] | None = None) -> None:
    """Kill what a service has started: if it was itself killed, that may hold the port which the next one wants."""
    for process in tagged(mark):
        try:
            if process.pid not in (keep or set()) and process.environ().get(SERVICE) == service:
                process.kill()
                process.wait(timeout=2)
        except (psutil.Error, OSError):
            continue


def listener(port: int) -> str | None:
    """Who listens on a port, as far as this user may know."""
    for process in _listening(port):
        with suppress(psutil.Error, OSError):
            return f"process {process.pid} has it ({' '.join(process.cmdline())[:90]})"
    return None


def checkout_on(port: int) -> str | None:
    """The checkout that whoever listens on a port was started for, as far as this user may know."""
    for process in _listening(port):
        with suppress(psutil.Error, OSError):
            root: str | None = process.environ().get("EVERGREEN_ROOT")
            return root
    return None


def _listening(port: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if any(one.laddr.port == port for one in process.net_connections("tcp") if one.status == "LISTEN"):
                yield process
        except (psutil.Error, OSError):
            continue


def _tell(process: psutil.Process, *, terminate: bool) -> None:
    with suppress(psutil.NoSuchProcess):
        process.terminate() if terminate else process.kill()


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(STACK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):  # gone, or another user's
            continue
