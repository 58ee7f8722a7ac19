"""Processes tagged by environment variables, which they inherit from whoever started them."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress

import psutil

from tasks.ground import settings

STACK = "EVERGREEN_STACK"  # the variable that holds the checkout whose platform a process belongs to
SERVICE = "EVERGREEN_SERVICE"  # the variable that holds the service which a process was started as, or by
SUPERVISOR = {"deployments.cli", "up"}  # part of the command of a process that keeps a platform up
PATIENCE_S = 8  # how long a process may take to end when it is asked to


def tagged(stack: str | None = None) -> list[psutil.Process]:
    """The processes of a platform, or of this checkout's, without this one."""
    processes, stack = [], stack or str(settings.ROOT)
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # gone, or another user's
            is_its_own = process.environ().get(STACK) == stack and process.status() != psutil.STATUS_ZOMBIE
            if is_its_own and process.pid != os.getpid():
                processes.append(process)
    return processes


def end_all(stack: str | None = None) -> int:
    """End the processes of a platform, or of this checkout's: terminated, then killed. Gives how many there were."""
    count = 0
    for _ in range(3):  # a process that is ending may still start another
        processes = tagged(stack)
        if not processes:
            break
        count += len(processes)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=PATIENCE_S)
    return count


def find_supervisor() -> int | None:
    """The supervisor of this checkout's platform, if it lives, also where its lock and its note were removed."""
    for process in tagged():
        with suppress(psutil.Error, OSError):
            parent = int(process.ppid())
            if parent != os.getpid() and is_supervisor(parent):
                return parent
    return None


def is_supervisor(pid: int) -> bool:
    """Whether a process keeps a platform up."""
    try:
        return set(psutil.Process(pid).cmdline()) >= SUPERVISOR
    except (psutil.Error, OSError):
        return False


def kill_service(service: str, keep: Collection[int] = ()) -> None:
    """Kill what a service has started: if it was itself killed, that may hold the port which its successor needs."""
    for process in tagged():
        with suppress(psutil.Error, OSError):
            if process.pid not in keep and process.environ().get(SERVICE) == service:
                process.kill()
                process.wait(timeout=2)


def listener(port: int) -> tuple[str | None, str | None]:
    """The process that listens on a port, in words, and its checkout; None where this user may not know."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            sockets = process.net_connections("tcp")
            if any(socket.laddr.port == port for socket in sockets if socket.status == "LISTEN"):
                command = " ".join(process.cmdline())[:90]
                return f"process {process.pid} has it ({command})", process.environ().get("EVERGREEN_ROOT")
    return None, None
