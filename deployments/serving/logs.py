"""The router's own log: standard error, which its supervisor keeps in var/log/router.log."""

from __future__ import annotations

import sys
from contextlib import suppress


def log(text: str) -> None:
    """Write a line; where the disk of the log is full, the router goes on without."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


class OnceLog:
    """Writes what is true for a while once, not at each look."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def write(self, about: str, text: str) -> None:
        """Write a line, unless it was the last one about this."""
        if self._last.get(about) != text:
            self._last[about] = text
            log(text)
