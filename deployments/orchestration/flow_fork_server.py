"""A process that has imported Prefect, and forks a flow run at a word: importing it takes a second.

flow_run.py asks, over a socket in var/run: one line says what the process is to be; told are its number and, at its
end, its exit code. Whoever asked and is gone has been killed, and takes it along. No code of this checkout but this
module is imported here: a flow run is what the checkout says when it begins. When packages change, this process ends,
and `make up` starts another.
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

AHEAD = (
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.artifacts",
    "prefect.client.orchestration",
    "prefect.events.clients",
    "prefect.events.worker",
    "prefect.logging.handlers",
    "prefect.runtime",
    "fastapi.encoders",
    "anyio._backends._asyncio",
    "httpx",
    "yaml",
)
"""What every flow run imports. Nothing that makes threads or connections: they are not there in a fork."""

LOOK_S = 1
"""So often it is looked whether the socket is still there."""

PATIENCE_S = 5
"""So long whoever asks may take to say what it wants."""


def main(path: Path) -> None:
    """Fork for whoever asks, until the packages are no longer those that were imported."""
    at_the_end = ExitStack()
    atexit.register(at_the_end.close)  # before what is imported registers its own: so it is the last of all
    for name in AHEAD:
        import_module(name)
    packages = _packages()
    gc.collect()
    gc.freeze()  # what is shared stays shared
    signal.signal(signal.SIGCHLD, _bury)
    while True:
        _listen(path, packages, at_the_end)


def _listen(path: Path, packages: tuple[int, int], at_the_end: ExitStack) -> None:
    """Fork for whoever asks, until somebody removes the socket; when packages have changed, this process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        mask = os.umask(0o077)
        listening.bind(str(path))
        os.umask(mask)
        listening.listen(128)
        listening.settimeout(LOOK_S)
        while True:
            try:
                asker, _ = listening.accept()
            except TimeoutError:
                if path.exists():
                    continue
                return
            asked = _hear(asker)
            if _packages() != packages:
                sys.exit()
            if asked and asked["path"] == sys.path and not os.fork():
                listening.close()
                _become(asked, asker, at_the_end)
            asker.close()  # with no number said: who asks does without


def _bury(*_: object) -> None:
    """Waited for, runs leave nothing behind, and the kernel adds up what they have used."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _packages() -> tuple[int, int]:
    """Another one, once something was installed or removed."""
    found = Path(sysconfig.get_path("purelib")).stat()
    return found.st_ino, found.st_mtime_ns


def _hear(asker: socket.socket) -> dict[str, Any] | None:
    asker.settimeout(PATIENCE_S)
    try:
        said: dict[str, Any] = json.loads(asker.makefile("rb").readline())
    except (OSError, ValueError):
        return None
    asker.settimeout(None)
    return said if isinstance(said, dict) and {"command", "environment", "folder", "path"} <= set(said) else None


def _become(asked: dict[str, Any], asker: socket.socket, at_the_end: ExitStack) -> NoReturn:
    """Be the process that was asked for, from its environment to its end."""
    try:
        asker.sendall(f"{os.getpid()}\n".encode())
    except OSError:  # whoever asked has lost its patience
        os._exit(1)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    invalidate_caches()
    code = 1

    def end() -> None:
        """By now Prefect has sent its logs and events. To take an interpreter apart would be needless work."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        with suppress(OSError):
            asker.sendall(f"{code}\n".encode())
        os._exit(code)

    at_the_end.callback(end)
    threading.Thread(target=_die_with, args=(asker,), daemon=True).start()
    try:
        from prefect.context import refresh_global_settings_context

        from deployments.orchestration import flow_run

        refresh_global_settings_context()
        flow_run.become(asked["command"])
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, it is told, and the process ends
        sys.excepthook(*sys.exc_info())
    sys.exit(code)


def _die_with(asker: socket.socket) -> None:
    """Whoever kills a flow run kills the process that was started for it: not this one, nor what this has started."""
    with suppress(OSError):
        asker.recv(1)
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
