"""Keeps the status page new, in a process that is there anyway (watcher.py): it looks at files' times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from deployments.status_page import facts, page
from tasks.ground import params

LOOK_SECONDS = 2.0
"""How often it is looked whether a file has changed."""

FRESH_SECONDS = 60.0
"""The page is written again after so long without a change: what Prefect plans is in no file."""


@dataclass
class Keeper:
    """Writes the page again when a file that it shows has changed, and every minute."""

    say: Callable[[str], object] = print
    clock: Callable[[], float] = time.monotonic
    seen: object = None
    quarantine: str | None = None
    """As params.yaml said when the page was written last; params.yaml is looked at too."""
    looked: float = field(default=float("-inf"))
    written: float = field(default=float("-inf"))
    trouble: str = ""

    def look(self) -> bool:
        """Look once; gives whether the page was written."""
        now = self.clock()
        if now - self.looked < LOOK_SECONDS:
            return False
        self.looked = now
        try:
            if facts.state_of_files(self.quarantine) == self.seen and now - self.written < FRESH_SECONDS:
                return False
            self.quarantine = _quarantine()
            seen = facts.state_of_files(self.quarantine)  # before it is read: what changes meanwhile is seen next time
            page.write()
        except OSError as error:  # a full disk, say: the watcher has other things to do
            self._tell(f"the status page cannot be written: {facts.said(error)}")
            return False
        self.seen, self.written = seen, now
        self._tell("")
        return True

    def _tell(self, trouble: str) -> None:
        """Say what is wrong, once."""
        if trouble and trouble != self.trouble:
            self.say(trouble)
        self.trouble = trouble


def _quarantine() -> str | None:
    said = facts.attempt(params.load)
    return None if isinstance(said, facts.Broken) else said.quarantine
