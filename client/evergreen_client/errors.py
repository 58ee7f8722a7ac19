"""What can go wrong, one class per cause."""

from __future__ import annotations

from typing import Any


class EvergreenError(Exception):
    """The root."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """Of the HTTP answer; None where there was none."""


class Refused(EvergreenError):
    """The request is not as the model takes it (400, 408, 413, 415)."""

    def __init__(self, message: str, status: int, detail: list[dict[str, Any]]) -> None:
        faults = [f"row {each['row']}: {each['field']}: {each['problem']}" for each in detail if "problem" in each]
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        super().__init__("; ".join([message, *faults[:3]]) + more, status)
        self.detail = detail
        """`row` (its place among all rows, from 0), `field` and `problem` of each fault."""


class Unauthorized(EvergreenError):
    """The router asks for an API key, and this is none (401)."""


class UnknownModel(EvergreenError):
    """Nothing of this name is served (404)."""


class Failed(EvergreenError):
    """The model fails on this request (500)."""


class Unavailable(EvergreenError):
    """Too much waits, or no release is ready (503); it was asked again, in vain."""


class Unreachable(EvergreenError):
    """No answer came."""
