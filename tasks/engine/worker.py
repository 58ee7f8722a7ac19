"""A worker process: reads a task a line from stdin, and writes its outcome, a line of JSON, to stdout.

`python -m tasks.engine.worker <parent>`. It ends when nobody gives it tasks any more, or its parent is gone: whoever
wanted a result may be killed while a task takes long.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from functools import partial

from tasks.ground import priority, settings

NO_MEMORY = 12  # ENOMEM
"""The exit code after a task raised MemoryError: what is left of the process is not to be trusted."""


def main(parent: int) -> int:
    """Work until there is no task; gives the exit code."""
    _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches everybody at a terminal; the parent ends its workers
    priority.lower(os.getpid())
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.register_at_fork(after_in_child=partial(os.close, answers.fileno()))  # who is forked answers nothing
    os.dup2(2, 1)  # what a task or a library in C prints is no outcome
    settings.apply()
    from tasks.engine import task

    for line in sys.stdin:
        try:
            outcome = task.do(json.loads(line))
        except MemoryError:
            os._exit(NO_MEMORY)
        sys.stdout.flush()
        print(outcome, file=answers, flush=True)
    return 0


def _end_with(parent: int) -> None:
    """Have this process die with the one that started it, at once on Linux, within a second elsewhere."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1  # noqa: N806 - its name in prctl(2)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
