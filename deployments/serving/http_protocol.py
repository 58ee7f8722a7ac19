"""HTTP connection: uvicorn's protocol, with limits for what it waits for, and tolerant of clients that offer HTTP/2.

uvicorn limits neither how large a request's head may be nor how long it may take: a header without an end would fill
the memory, and a client that sends a letter a minute would keep a connection for ever. The limits cost an ordinary
request a few comparisons.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64_000
"""Of a request's line and headers, or the trailers of a body in chunks: more is refused, unless it comes in one go."""

HEAD_S = 10.0
"""Seconds that a head may take, that a new connection may be silent, and that a body goes on which is not read."""


class _Backpressure(FlowControl):
    """Reads nothing more while requests of this connection wait for their turn: a client may send them without end."""

    pipeline: Any = ()

    def resume_reading(self) -> None:
        """Go on, unless there is enough to do."""
        if not self.pipeline:
            super().resume_reading()


class HttpConnection(HttpToolsProtocol):
    """One client's connection."""

    unread = 0  # bytes since the last one that belonged to a complete head, or to a body
    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A new connection must not stay silent."""
        super().connection_made(transport)
        self.flow = _Backpressure(transport)
        self.flow.pipeline = self.pipeline
        self.timeout_keep_alive_task = self.loop.call_later(HEAD_S, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """A part of a request, or several requests."""
        is_answered = self.cycle is None or self.cycle.response_complete
        if not self.unread and is_answered and _UPGRADE.search(data):  # the first bytes of a request
            data = _without_upgrade(data)
        self.unread += len(data)
        super().data_received(data)
        if self.unread or self._is_body_unwanted():
            self._limit()
        elif self.deadline is not None:
            self._stop_clock()

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self.unread = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self.unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        self.unread = 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_clock()
        super().connection_lost(exc)

    def _is_body_unwanted(self) -> bool:
        """Whether this is the body of a request that was refused already."""
        return self.cycle is not None and self.cycle.response_complete and self.timeout_keep_alive_task is None

    def _limit(self) -> None:
        if self.transport.is_closing():
            self._stop_clock()
        elif self.unread > HEAD_BYTES:
            self._close(b"431 Request Header Fields Too Large")
        elif self.deadline is None:
            self.deadline = self.loop.call_later(HEAD_S, self._close, b"408 Request Timeout")

    def _stop_clock(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def _close(self, status: bytes) -> None:
        """Close, and say why where the client has no answer yet and none is on its way."""
        self._stop_clock()
        if self.transport.is_closing():
            return
        if self.unread and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        self.transport.close()


_UPGRADE = re.compile(rb"\r\n[Uu](?:pgrade|PGRADE):")


def _without_upgrade(data: bytes) -> bytes:
    """A request without its offer to go on in HTTP/2, as Java's client makes with each, or in TLS.

    The parser would take the body for what was offered, and the request for one that has none.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    return re.sub(rb"(?i)\r\n(?:connection|upgrade|http2-settings):[^\r\n]*", b"", head) + end + body
