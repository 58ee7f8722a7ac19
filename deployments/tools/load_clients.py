"""Load generator with open-loop timing: clients cheap enough to send a thousand requests a second beside the router.

A request is timed from when it was due, not from when it could be sent: a client that waits for an answer before it
sends again would measure one slow answer where many were (coordinated omission). Nothing is retried, so that every
failure is counted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httptools
import orjson

TIMER_S = 0.0012  # resolution of the event loop: a request that is sent within this is timed from when it was sent

NOT_CONNECTED, NO_ANSWER, TOO_LATE, WRONG = "not connected", "no answer", "too late", "not what was asked for"
"""Ways to fail beside `HTTP <status>`. No answer: the request was sent, and the connection ended."""

KEEPS_CONNECTION = {f"HTTP {status}" for status in (400, 401, 404, 413, 500, 503)} | {None}
"""Failures (None: success) after which a connection can be used again."""


@dataclass(frozen=True)
class LoadRequest:
    """A request as bytes, for a connection that is kept open and for one that is closed after it."""

    number: int  # its place among all that are sent
    rows: int
    keep_alive: bytes
    close: bytes

    @classmethod
    def predict(
        cls, number: int, model: str, rows: Sequence[dict[str, object]], headers: dict[str, str]
    ) -> LoadRequest:
        """A request for the predictions of some rows."""
        body = orjson.dumps({"rows": list(rows)})
        lines = {"host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(body)), **headers}
        head = f"POST /{model}/predict HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        keep_alive, close = (f"{head}{more}\r\n".encode() + body for more in ("", "connection: close\r\n"))
        return cls(number, len(rows), keep_alive, close)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The outcome of a request."""

    request: LoadRequest
    due: float  # when it was to be sent, on the clock of time.perf_counter
    done: float
    ms: float  # from when it was due to the last byte of the answer
    late_ms: float  # how much of that the client itself needed to send it
    failed: str | None
    release: str | None  # the release that the answer names
    body: bytes


class _LoadConnection(asyncio.Protocol):
    """One HTTP connection, with one request at a time."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.closed = False

    def send(self, request: bytes) -> asyncio.Future[None]:
        """Send a request; the future is done when the answer is complete."""
        assert self.transport is not None
        self.parser = httptools.HttpResponseParser(self)
        self.release: str | None = None
        self.chunks: list[bytes] = []
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answer

    def fault(self, request: LoadRequest) -> str | None:
        """What is wrong with the answer."""
        status = self.parser.get_status_code()
        if status != 200:
            return f"HTTP {status}"
        try:
            answer = orjson.loads(b"".join(self.chunks))
            is_right = len(answer["predictions"]) == request.rows and answer["release"] == self.release
        except (ValueError, LookupError, TypeError):
            return WRONG
        return None if is_right else WRONG

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.close()

    # called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.answer and not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError())

    # called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"evergreen-release":
            self.release = value.decode()

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_keep_alive():
            self.close()
        if self.answer and not self.answer.done():
            self.answer.set_result(None)


class LoadClients:
    """Sends requests to an address and records the outcome of each; half of them on connections that are kept open."""

    def __init__(self, host: str, port: int, record: Callable[[LoadResult], object], timeout_s: float = 30) -> None:
        self.host, self.port, self.record, self.timeout_s = host, port, record, timeout_s
        self._idle: deque[_LoadConnection] = deque()
        self._pending: set[asyncio.Task[None]] = set()
        self._ended = False

    async def at_rate(self, requests: Sequence[LoadRequest], rate: float, seconds: float) -> None:
        """Send so many a second, at random moments (a Poisson process), however long the answers take."""
        draw = random.Random(0)  # noqa: S311
        due = begin = time.perf_counter()
        while (due := due + draw.expovariate(rate)) < begin + seconds and not self._ended:
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._send(draw.choice(requests), due, keep_alive=draw.random() < 0.5))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)
        await asyncio.gather(*self._pending)

    async def connected(self, requests: Sequence[LoadRequest], connections: int, seconds: float) -> None:
        """Send over so many connections at once, each as soon as it has its answer."""
        draw = random.Random(0)  # noqa: S311
        end = time.perf_counter() + seconds

        async def client(number: int) -> None:
            while (now := time.perf_counter()) < end and not self._ended:
                await self._send(draw.choice(requests), now, keep_alive=bool(number % 2))

        await asyncio.gather(*(client(number) for number in range(connections)))

    def end(self) -> None:
        """Send no more; what was sent is still waited for."""
        self._ended = True

    def close(self) -> None:
        """Close the connections that are kept open."""
        for connection in self._idle:
            connection.close()

    async def _send(self, request: LoadRequest, due: float, keep_alive: bool) -> None:
        connection, sent = None, due
        try:
            async with asyncio.timeout(self.timeout_s):
                connection = self._idle_connection() if keep_alive else None
                sent = time.perf_counter()
                connection = connection or await self._connect()
                await connection.send(request.keep_alive if keep_alive else request.close)
            failed = connection.fault(request)
        except TimeoutError:
            failed = TOO_LATE
        except (OSError, httptools.HttpParserError) as error:
            failed = f"{NOT_CONNECTED if connection is None else NO_ANSWER} ({type(error).__name__})"
        done, late = time.perf_counter(), sent - due
        ms = (done - (due if late > TIMER_S else sent)) * 1000
        body, release = (b"".join(connection.chunks), connection.release) if connection else (b"", None)
        self.record(LoadResult(request, due, done, ms, late * 1000, failed, release, body))
        if connection and failed in KEEPS_CONNECTION and keep_alive and not connection.closed:
            self._idle.append(connection)
        elif connection:
            connection.close()

    def _idle_connection(self) -> _LoadConnection | None:
        """The connection that has been idle longest, passing over those that the server has closed."""
        while self._idle:
            connection = self._idle.popleft()
            if not connection.closed:
                return connection
        return None

    async def _connect(self) -> _LoadConnection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(_LoadConnection, self.host, self.port))[1]
