"""Requests that the router answers with an error of its own."""

from __future__ import annotations


class HttpError(Exception):
    """The status, the message and the headers of the answer."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


class Overloaded(HttpError):
    """Load shedding: the request is too much just now."""

    def __init__(self, message: str, retry_after: str) -> None:
        super().__init__(503, message, **{"retry-after": retry_after})
