"""A process that has imported what releases need, and forks a replica at a word: soon, and sharing memory.

A script for an interpreter of its own (`python -I replica_nursery.py --fd N`), in which no code of this checkout is
found: a replica runs the code of its release. A message is {"number", "folder", "arguments", "nice"}, and comes with
two descriptors: the replica's socket, and the file for its own words. The answer is its number and the replica's
process number; the first one, `0 0`, says that it is up.
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

AHEAD = (
    *("numpy", "pandas", "orjson", "pydantic"),
    *("scipy.special", "sklearn.pipeline", "sklearn.ensemble", "skops.io", "treelite"),
)
"""What nearly every release imports of the installed packages."""


def main() -> None:
    """Fork until the router is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a replica that ends leaves nothing behind
    for name in AHEAD:
        import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1])) as router:
        with suppress(ConnectionError):  # the router is gone already
            router.sendall(b"0 0\n")
        while True:
            message, descriptors, _, _ = socket.recv_fds(router, 65536, 2)
            if not message:
                return
            said = json.loads(message)
            pid = os.fork()
            if not pid:
                router.close()  # else the router would not notice that the nursery has died
                _become(said, *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            router.sendall(f"{said['number']} {pid}\n".encode())


def _become(said: dict[str, object], to_router: int, words: int) -> None:
    """Run a release's replica in this process, and end with it."""
    code = 1
    try:
        os.setsid()
        if said["nice"]:
            with suppress(OSError):  # tasks/ground/priority.py tells why
                Path("/proc/self/autogroup").write_text(str(said["nice"]), encoding="ascii")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(words, 1)
        os.dup2(words, 2)
        script = str(said["script"])
        sys.argv = [script, "--fd", str(to_router), *map(str, said["arguments"])]  # type: ignore[call-overload]
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, it is told, and the process ends
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
