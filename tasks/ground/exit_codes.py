"""Exit codes of commands that a person types; a failure prints a line on stderr that says why."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from tasks.ground.errors import EvergreenError

BROKEN_PIPE = 141
"""The exit code of a command whose reader has gone, such as `head`: what a shell makes of SIGPIPE."""

P = ParamSpec("P")


def command(main: Callable[P, int | None]) -> Callable[P, int]:
    """A `main` that ends with 1, and a line on stderr, where it raises an error of this platform."""

    @wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            code = main(*args, **kwargs) or 0
            sys.stdout.flush()
        except EvergreenError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 1
        except BrokenPipeError:
            if not _stdout_is_broken():
                raise
            return BROKEN_PIPE
        return code

    return run


def _stdout_is_broken() -> bool:
    """Whether the broken pipe is stdout; if so, the rest of its output is discarded."""
    stdout = sys.stdout.fileno()
    broken = select.poll()
    broken.register(stdout, 0)  # POLLERR is always reported
    if not broken.poll(0):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stdout)
    os.close(nowhere)
    return True
