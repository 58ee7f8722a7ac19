"""What tasks of the engine's tests do in a worker, most of it to the worker."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path


def once_killed(path: str, result: int) -> int:
    """The first process that does this is killed by it."""
    if not Path(path).exists():
        Path(path).touch()
        die("SIGKILL")
    return result


def die(name: str) -> None:
    """By a signal."""
    os.kill(os.getpid(), signal.Signals[name])


def leave(code: int) -> None:
    """Without a word."""
    os._exit(code)


def hungry() -> None:
    """Python has no memory left."""
    raise MemoryError


def sleep(seconds: float) -> None:
    """Take long."""
    time.sleep(seconds)


def chatter(text: str) -> str:
    """Print, as Python does and as a library in C would; gives the engine that a task has itself."""
    print(text)
    subprocess.run(["echo", text], check=True)
    return os.environ["EVERGREEN_ENGINE"]


def no_json() -> set[int]:
    """What no other process can be told."""
    return {1}


def twice() -> str:
    """Come back in two processes."""
    return "parent" if os.fork() else "child"


def leave_a_child(seconds: float) -> None:
    """Die, while another process goes on."""
    if not os.fork():
        time.sleep(seconds)
        os._exit(0)
    os._exit(7)
