"""Proxy process of a flow run: what the worker starts; the run itself is forked from the fork server.

Prefect's engine runs in a fork of a process that has imported Prefect already (flow_fork_server.py). This process
stands for it: it passes signals on, and ends as the fork ends. Where no fork server answers, it becomes the engine.

Output goes to var/log/flows.log rather than to the worker's pipe: when the worker is killed, the next line written to
its pipe would end the run (rich exits on a broken pipe). With a file, the run goes on and reports its own end.

    python -m deployments.orchestration.flow_run [--aside] [module [arguments ...]]

--aside: it leaves a CPU to what serves, as rollouts do.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from tasks.ground import leases, priority

LOG = "flows.log"

PATIENCE_S = 20  # how long to wait for a fork; a fork that comes later finds the connection closed, and ends

ENGINE = "prefect.engine"

ASIDE = "--aside"


def main() -> None:
    """Run the engine, or another module: in a fork, or in this process."""
    command = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as server:
        if child := _fork(server, command):
            sys.exit(_stand_for(child, server))
    become(command)


def address() -> Path:
    """The fork server's socket, relative to the working directory: an absolute path may be too long for a socket."""
    return Path(os.path.relpath(Path(os.environ["EVERGREEN_ROOT"]) / "var" / "run" / "flows.sock"))


def become(command: list[str]) -> None:
    """Run a module as `python -m` does, in this process."""
    priority.lower(os.getpid())  # no request waits for a training or a rollout
    if command[:1] == [ASIDE]:
        priority.spare_one_cpu(os.getpid())
        command = command[1:]
    _log_to_file()
    sys.argv = command or [ENGINE]
    sys.modules.pop(sys.argv[0], None)  # it may have been imported ahead: what runs is another copy
    with leases.alive(os.environ.get("PREFECT__FLOW_RUN_ID", f"of process {os.getpid()}")):
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _log_to_file() -> None:
    path = Path(os.environ["EVERGREEN_ROOT"]) / "var" / "log" / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)


def _fork(server: socket.socket, command: list[str]) -> int | None:
    """Request a fork; gives its process id, or None where no fork server answers, or one of another Python."""
    request = {"command": command, "environment": dict(os.environ), "folder": str(Path.cwd()), "path": sys.path}
    try:
        server.settimeout(PATIENCE_S)
        server.connect(str(address()))
        server.sendall(json.dumps(request).encode() + b"\n")
        child = int(_read_line(server))
        server.settimeout(None)
    except (OSError, ValueError):
        return None
    return child


def _stand_for(child: int, server: socket.socket) -> int:
    """Pass signals on to the fork; gives its exit code at its end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    code = _read_line(server)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it has started and left behind: it leads a session of its own
    if code:
        return int(code)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGKILL)  # as the fork was
    raise AssertionError


def _read_line(server: socket.socket) -> bytes:
    """The next line; what there is of it, if the fork is gone."""
    line = b""
    while not line.endswith(b"\n") and (more := server.recv(1)):
        line += more
    return line


if __name__ == "__main__":
    main()
