"""Prefect's server, whose garbage is collected beside its event loop: `prefect_server.py`.

On SQLite it stood for one minute or two, now and then. Python's collector runs in whichever thread happens to ask for
memory. In the event loop's, it finalises what another thread's connection has left, which waits for that connection;
that one waits, for Prefect's busy timeout of 60 s, for a lock whose holder waits for the event loop. So a thread of its
own collects here, and may wait (docs/decisions/local-stack.md).
"""

from __future__ import annotations

import gc
import sys
import threading
import time

SOON_S, SELDOM = 1.0, 30
"""Seconds between two looks at what is new, and every how many of them all is looked at."""


def main(arguments: list[str]) -> None:
    """Become `prefect server start` with these arguments."""
    collect_aside()
    from prefect.cli import app

    sys.argv = ["prefect", "server", "start", "--host", "127.0.0.1", *arguments]
    app()


def collect_aside() -> None:
    """From now on, no other thread than a new one collects this process' garbage."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    looks = 0
    while True:
        time.sleep(SOON_S)
        looks += 1
        gc.collect(2 if looks % SELDOM == 0 else 1)
        if looks == SELDOM:  # what was imported stays, and need not be looked at again: that takes 0.2 s
            gc.freeze()


if __name__ == "__main__":
    main(sys.argv[1:])
