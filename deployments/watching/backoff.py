"""Backoff: act at once upon a new cause, and ever more seldom while it persists."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PAUSES = (5.0, 15.0, 60.0, 300.0)  # seconds before the second, third, fourth and every further time


@dataclass
class Backoff:
    """The last cause, when it was acted upon, and how often. Losing it costs one act too many."""

    clock: Callable[[], float] = time.monotonic
    cause: Any = None
    at: float = float("-inf")
    times: int = 0

    def is_due(self, cause: Any) -> bool:
        """Whether to act now."""
        return bool(cause != self.cause) or self.clock() - self.at >= PAUSES[min(self.times, len(PAUSES) - 1)]

    def acted(self, cause: Any) -> bool:
        """To be called after each act; gives whether the cause is the same as before."""
        repeated = bool(cause == self.cause)
        self.times = self.times + 1 if repeated else 0
        self.cause, self.at = cause, self.clock()
        return repeated
