"""Clients of what serves: cheap ones, so that a thousand requests a second can be made beside what they are made to.

Half of them keep their connection, half open a new one for each request. A request is timed from when it was due, not
from when there was a moment to send it: who waits for an answer before asking again measures his own patience.
Nothing is asked twice: what a client that retries would hide is counted here.
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

TIMER_S = 0.0012
"""An event loop wakes at whole milliseconds: who is late by no more is timed from when the request was sent."""

NOT_CONNECTED, NO_ANSWER, TOO_LATE, WRONG = "not connected", "no answer", "too late", "not what was asked for"
"""Ways to fail beside `HTTP <status>`. No answer: the request was sent, and the connection ended."""


@dataclass(frozen=True)
class Request:
    """A request as bytes, for a connection that is kept and for one that is not."""

    number: int
    """Which one of all that are asked."""
    model: str
    rows: int
    kept: bytes
    closed: bytes

    @classmethod
    def predict(cls, number: int, model: str, rows: Sequence[dict[str, object]], headers: dict[str, str]) -> Request:
        """Of the predictions for some rows."""
        body = orjson.dumps({"rows": list(rows)})
        said = {"host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(body)), **headers}
        head = f"POST /{model}/predict HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in said.items())
        kept, closed = (f"{head}{more}\r\n".encode() + body for more in ("", "connection: close\r\n"))
        return cls(number, model, len(rows), kept, closed)


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a request."""

    request: Request
    due: float
    """When it was to be sent, on the clock of time.perf_counter."""
    done: float
    ms: float
    """From when it was due to the last byte of the answer."""
    late_ms: float
    """How much of that the client itself needed to get to it."""
    failed: str | None
    release: str | None
    """Who says that it answered."""
    kept: bool
    """Whether the connection had answered something before."""
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection, on which one request at a time is made."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.used, self.closed = False, False

    def ask(self, request: bytes) -> asyncio.Future[None]:
        """Send a request; done when the answer is there."""
        assert self.transport is not None
        self.parser = httptools.HttpResponseParser(self)
        self.release: str | None = None
        self.body: list[bytes] = []
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answer

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.answer and not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError())

    # what the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"evergreen-release":
            self.release = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_keep_alive():
            self.close()
        if self.answer and not self.answer.done():
            self.answer.set_result(None)

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.close()


class Clients:
    """Asks an address, and tells of each request what came of it."""

    def __init__(self, host: str, port: int, tell: Callable[[Answered], object], timeout_s: float = 30) -> None:
        self.host, self.port, self.tell, self.timeout_s = host, port, tell, timeout_s
        self._idle: deque[_Connection] = deque()
        self._asked: set[asyncio.Task[None]] = set()
        self._ends = False

    async def at_rate(self, requests: Sequence[Request], rate: float, seconds: float) -> None:
        """Ask so often a second, at random moments (a Poisson process), however long the answers take."""
        draw = random.Random(0)  # noqa: S311
        due = begin = time.perf_counter()
        while (due := due + draw.expovariate(rate)) < begin + seconds and not self._ends:
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._ask(draw.choice(requests), due, keeps=draw.random() < 0.5))
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)
        await asyncio.gather(*self._asked)

    async def connected(self, requests: Sequence[Request], connections: int, seconds: float) -> None:
        """Ask over so many connections at once, each as soon as it has its answer."""
        draw = random.Random(0)  # noqa: S311
        end = time.perf_counter() + seconds

        async def client(number: int) -> None:
            while (now := time.perf_counter()) < end and not self._ends:
                await self._ask(draw.choice(requests), now, keeps=bool(number % 2))

        await asyncio.gather(*(client(number) for number in range(connections)))

    def end(self) -> None:
        """Ask no more; what was asked is still waited for."""
        self._ends = True

    def close(self) -> None:
        """Close the connections that were kept."""
        for connection in self._idle:
            connection.close()

    async def _ask(self, request: Request, due: float, keeps: bool) -> None:
        connection, failed, sent = None, None, due
        try:
            async with asyncio.timeout(self.timeout_s):
                connection = self._free() if keeps else None
                sent = time.perf_counter()
                if connection is None:
                    connection = await self._connect()
                await connection.ask(request.kept if keeps else request.closed)
            failed = _fault(connection, request)
        except TimeoutError:
            failed = TOO_LATE
        except (OSError, httptools.HttpParserError) as error:
            failed = f"{NOT_CONNECTED if connection is None else NO_ANSWER} ({type(error).__name__})"
        done, late = time.perf_counter(), sent - due
        begin = due if late > TIMER_S else sent
        body = b"".join(connection.body) if connection else b""
        release, used = (connection.release, connection.used) if connection else (None, False)
        self.tell(Answered(request, due, done, (done - begin) * 1000, late * 1000, failed, release, used, body))
        if connection is None:
            return
        connection.used = True
        if failed in (None, *_STAYS) and keeps and not connection.closed:
            self._idle.append(connection)
        else:
            connection.close()

    def _free(self) -> _Connection | None:
        """The connection that has rested longest: one that was closed meanwhile is not there any more."""
        while self._idle:
            connection = self._idle.popleft()
            if not connection.closed:
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(_Connection, self.host, self.port))[1]


_STAYS = tuple(f"HTTP {status}" for status in (400, 401, 404, 413, 500, 503))


def _fault(connection: _Connection, request: Request) -> str | None:
    status = connection.parser.get_status_code()
    if status != 200:
        return f"HTTP {status}"
    try:
        said = orjson.loads(b"".join(connection.body))
        is_right = len(said["predictions"]) == request.rows and said["release"] == connection.release
    except (ValueError, LookupError, TypeError):
        return WRONG
    return None if is_right else WRONG
