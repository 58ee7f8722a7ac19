"""Prefect's server, with garbage collection in a thread of its own.

On SQLite the server stood still for a minute or two now and then. Python's collector runs in whichever thread happens
to ask for memory. In the event loop's thread it finalises what another thread's connection has left, and waits for that
connection; which waits, for Prefect's busy timeout of 60 s, for a lock whose holder waits for the event loop. The
thread that collects here may wait (docs/decisions/local-stack.md).
"""

from __future__ import annotations

import gc
import sys
import threading
import time

YOUNG_S, FULL_EVERY = 1.0, 30
"""Seconds between two collections of young objects, and every how many of them all objects are collected."""


def main(arguments: list[str]) -> None:
    """Become `prefect server start` with these arguments."""
    collect_in_thread()
    from prefect.cli import app

    sys.argv = ["prefect", "server", "start", "--host", "127.0.0.1", *arguments]
    app()


def collect_in_thread() -> None:
    """From now on, only a new thread collects this process' garbage."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    rounds = 0
    while True:
        time.sleep(YOUNG_S)
        rounds += 1
        gc.collect(2 if rounds % FULL_EVERY == 0 else 1)
        if rounds == FULL_EVERY:  # what was imported stays, and need not be looked at again: that takes 0.2 s
            gc.freeze()


if __name__ == "__main__":
    main(sys.argv[1:])
