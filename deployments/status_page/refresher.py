"""Keeps the status page new in the watcher's process, by the times of the files that it shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from deployments.status_page import facts, page
from tasks.ground import params

LOOK_SECONDS = 2.0
"""How often the files are looked at."""

FRESH_SECONDS = 60.0
"""The page is written again after so long without a change: what Prefect plans is in no file."""


@dataclass
class PageRefresher:
    """Writes the page again when a file that it shows has changed, and every minute."""

    say: Callable[[str], object] = print
    clock: Callable[[], float] = time.monotonic
    seen: object = None
    quarantine: str | None = None
    """As params.yaml had it when the page was written last; params.yaml is looked at too."""
    looked: float = float("-inf")
    written: float = float("-inf")
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
            config = facts.attempt(params.load)
            self.quarantine = None if isinstance(config, facts.Broken) else config.quarantine
            seen = facts.state_of_files(self.quarantine)  # before it is read: what changes meanwhile is seen next time
            page.write()
        except OSError as error:  # a full disk, say: the watcher has other things to do
            self._report(f"the status page cannot be written: {facts.reason(error)}")
            return False
        self.seen, self.written = seen, now
        self._report("")
        return True

    def _report(self, trouble: str) -> None:
        """Say what is wrong, once."""
        if trouble and trouble != self.trouble:
            self.say(trouble)
        self.trouble = trouble
