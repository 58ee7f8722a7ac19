"""Fork server of flow runs: a process that has imported Prefect, which takes a second, and forks for each run.

Protocol over a socket in var/run, used by flow_run.py: the client sends a line of JSON (command, environment, folder,
path) and gets the fork's process id, and at its end its exit code. A client that hangs up has been killed, and its fork
ends with it. Of this checkout only this module is imported here: a run's code is what the checkout holds when the run
begins. When the installed packages change, the server ends, and `evergreen up` starts another.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import sys
import sysconfig
import threading
from contextlib import ExitStack, suppress
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any, NoReturn

PRELOADED = (
    *("prefect.flow_engine", "prefect.task_engine", "prefect.artifacts", "prefect.client.orchestration"),
    *("prefect.events.clients", "prefect.events.worker", "prefect.logging.handlers", "prefect.runtime"),
    *("fastapi.encoders", "anyio._backends._asyncio", "httpx", "yaml"),
)
"""What every flow run imports. Nothing that makes threads or connections: a fork does not have them."""

CHECK_S = 1  # how often it is checked whether the socket still exists
REQUEST_S = 5  # how long a client may take to send its request


def main(path: Path) -> None:
    """Fork for clients, until the installed packages are no longer those that were imported."""
    at_exit = ExitStack()
    atexit.register(at_exit.close)  # before what is imported registers its own: so it is the last of all
    for name in PRELOADED:
        import_module(name)
    packages = _packages()
    gc.collect()
    gc.freeze()  # what is shared stays shared
    signal.signal(signal.SIGCHLD, _reap)
    while True:
        _listen(path, packages, at_exit)


def _listen(path: Path, packages: tuple[int, int], at_exit: ExitStack) -> None:
    """Fork for clients until somebody removes the socket; exit when packages have changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        mask = os.umask(0o077)
        listening.bind(str(path))
        os.umask(mask)
        listening.listen(128)
        listening.settimeout(CHECK_S)
        while True:
            try:
                client, _ = listening.accept()
            except TimeoutError:
                if path.exists():
                    continue
                return
            request = _read_request(client)
            if _packages() != packages:
                sys.exit()
            if request and request["path"] == sys.path and not os.fork():
                listening.close()
                _become(request, client, at_exit)
            client.close()  # without a process id, the client runs the flow itself


def _reap(*_: object) -> None:
    """Wait for forks that have ended: no zombies stay, and the kernel adds up what they have used."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _packages() -> tuple[int, int]:
    """Changes when a package is installed or removed."""
    folder = Path(sysconfig.get_path("purelib")).stat()
    return folder.st_ino, folder.st_mtime_ns


def _read_request(client: socket.socket) -> dict[str, Any] | None:
    client.settimeout(REQUEST_S)
    try:
        request: dict[str, Any] = json.loads(client.makefile("rb").readline())
    except (OSError, ValueError):
        return None
    client.settimeout(None)
    is_whole = isinstance(request, dict) and {"command", "environment", "folder", "path"} <= set(request)
    return request if is_whole else None


def _become(request: dict[str, Any], client: socket.socket, at_exit: ExitStack) -> NoReturn:
    try:
        client.sendall(f"{os.getpid()}\n".encode())
    except OSError:  # the client has lost its patience
        os._exit(1)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    invalidate_caches()
    code = 1

    def end() -> None:
        """By now Prefect has sent its logs and events. Tearing down the interpreter would be needless work."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        with suppress(OSError):
            client.sendall(f"{code}\n".encode())
        os._exit(code)

    at_exit.callback(end)
    threading.Thread(target=_end_with, args=(client,), daemon=True).start()
    try:
        from prefect.context import refresh_global_settings_context

        from deployments.orchestration import flow_run

        refresh_global_settings_context()
        flow_run.become(request["command"])
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, it is logged, and the process ends
        sys.excepthook(*sys.exc_info())
    sys.exit(code)


def _end_with(client: socket.socket) -> None:
    """Kill this run, and what it has started, when the process that stands for it is killed."""
    with suppress(OSError):
        client.recv(1)
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
