"""When to act again for a cause that is still there: at once when it is new, then ever more seldom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PATIENCE = (5.0, 15.0, 60.0, 300.0)
"""Seconds before the second, third, fourth and every further time."""


@dataclass
class Backoff:
    """Remembers the cause that was acted upon last, when, and how often. Losing it costs one act too many."""

    clock: Callable[[], float] = time.monotonic
    cause: Any = None
    at: float = float("-inf")
    times: int = 0

    def is_due(self, cause: Any) -> bool:
        """Whether to act now."""
        return bool(cause != self.cause) or self.clock() - self.at >= PATIENCE[min(self.times, len(PATIENCE) - 1)]

    def acted(self, cause: Any) -> bool:
        """To be called after each act; gives whether it was for the same cause as the last one."""
        again = bool(cause == self.cause)
        self.times = self.times + 1 if again else 0
        self.cause, self.at = cause, self.clock()
        return again
