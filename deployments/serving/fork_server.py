"""Fork server: a process that has imported what releases need, and forks replicas, which share its memory.

A script for an interpreter of its own (`python -I fork_server.py --fd N`), in which no code of this checkout is found:
a replica runs the code of its release. A message is {"script", "arguments", "nice"}, and comes with three descriptors:
the replica's socket, the file for its output, and a socket for the reply, which is the replica's process number.
"""

from __future__ import annotations

import os

# before NumPy is imported: threads of OpenMP spin while they wait, and no thread survives a fork
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gc
import json
import runpy
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

PRELOADED = (
    *("numpy", "pandas", "orjson", "pydantic"),
    *("scipy.special", "sklearn.pipeline", "sklearn.ensemble", "treelite"),
)
"""What nearly every release imports of the installed packages."""


def main() -> None:
    """Fork until the router is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a replica that ends leaves no zombie
    for name in PRELOADED:
        import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1])) as router:
        while True:
            message, descriptors, _, _ = socket.recv_fds(router, 65536, 3)
            if not message:
                return
            to_router, output, to_reply = descriptors
            request = json.loads(message)
            pid = os.fork()
            if not pid:
                router.close()  # else the router would not notice the end of this server
                os.close(to_reply)
                _become_replica(request["script"], request["arguments"], request["nice"], to_router, output)
            with suppress(ConnectionError):  # it is no longer waited for
                os.write(to_reply, str(pid).encode())
            for descriptor in descriptors:
                os.close(descriptor)


def _become_replica(script: str, arguments: list[str], nice: int, to_router: int, output: int) -> None:
    """Run a release's replica in this process, and end with it."""
    code = 1
    try:
        os.setsid()
        if nice:
            with suppress(OSError):  # tasks/ground/priority.py says why
                Path("/proc/self/autogroup").write_text(str(nice), encoding="ascii")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = [script, "--fd", str(to_router), *arguments]
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, it is printed, and the process ends
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
