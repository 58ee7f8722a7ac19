"""What the worker starts for a flow run: Prefect's engine, its output in var/log/flows.log.

Not in the worker's pipe: when the worker is killed, the next line written there would end the run (rich exits on a
broken pipe); into a file, the run goes on and tells the server itself how it ended.

The engine is forked from a process that has imported Prefect already (flow_nursery.py), and this one stands for it: it
passes on what it is told, and ends as it ends. Where there is no such process, this one becomes the engine itself.

    python -m deployments.orchestration.flow_run [--aside] [module [arguments ...]]

--aside: it leaves a processor to what serves, as rollouts do.
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

from tasks.ground import priority

LOG = "flows.log"

PATIENCE_S = 20
"""A nursery that has not forked by then is done without; what it forks later finds nobody there, and ends."""

ENGINE = "prefect.engine"

ASIDE = "--aside"


def main() -> None:
    """Run the engine, or another module: in a process that is forked for it, or in this one."""
    command = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as nursery:
        if child := _forked(nursery, command):
            sys.exit(_stand_for(child, nursery))
    become(command)


def address() -> Path:
    """The socket at which flow runs are asked for, seen from here: of a whole path, a socket takes 107 letters only."""
    return Path(os.path.relpath(Path(os.environ["EVERGREEN_ROOT"]) / "var" / "run" / "flows.sock"))


def become(command: list[str]) -> None:
    """Run a module as `python -m` does, in this process."""
    priority.lower(os.getpid())  # a request waits for neither a training nor a rollout
    if command[:1] == [ASIDE]:
        priority.spare_one_cpu(os.getpid())
        command = command[1:]
    path = Path(os.environ["EVERGREEN_ROOT"]) / "var" / "log" / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)
    sys.argv = command or [ENGINE]
    sys.modules.pop(sys.argv[0], None)  # it may have been imported ahead: what runs is another copy
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _forked(nursery: socket.socket, command: list[str]) -> int | None:
    """The process that is now the one that was asked for; none, if there is nobody to ask, or another Python."""
    asked = {"command": command, "environment": dict(os.environ), "folder": str(Path.cwd()), "path": sys.path}
    try:
        nursery.settimeout(PATIENCE_S)
        nursery.connect(str(address()))
        nursery.sendall(json.dumps(asked).encode() + b"\n")
        child = int(_line(nursery))
        nursery.settimeout(None)
    except (OSError, ValueError):
        return None
    return child


def _stand_for(child: int, nursery: socket.socket) -> int:
    """Pass on what this process is told to do; gives the exit code, once there is one."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda told, _frame: os.kill(child, told))
    code = _line(nursery)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it has started and left behind: it leads a session of its own
    if code:
        return int(code)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGKILL)  # as the other one was
    raise AssertionError


def _line(nursery: socket.socket) -> bytes:
    """What is said next; nothing, if it is gone."""
    said = b""
    while not said.endswith(b"\n") and (more := nursery.recv(1)):
        said += more
    return said


if __name__ == "__main__":
    main()
