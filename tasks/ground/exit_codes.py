"""How a command that a person types ends: with an exit code, and where it fails with a line on stderr that says why."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from tasks.ground.errors import EvergreenError

NOBODY_READS = 141
"""The exit code of who writes to somebody that reads no more, as `head`: what a shell makes of SIGPIPE."""

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
            if not _nobody_reads():
                raise
            return NOBODY_READS
        return code

    return run


def _nobody_reads() -> bool:
    """Whether the pipe that is broken is stdout; what is still to be written there then goes nowhere."""
    stdout = sys.stdout.fileno()
    broken = select.poll()
    broken.register(stdout, 0)  # that nobody is at the other end is always told
    if not broken.poll(0):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stdout)
    os.close(nowhere)
    return True
