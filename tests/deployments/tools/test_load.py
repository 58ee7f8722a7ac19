"""Load, on a server that answers as it is told to, and on the real router."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from deployments import cli
from deployments.tools import load_clients
from tasks.ground import files, http
from tests.deployments.routed import Routed, make_release
from tests.release_root import project_at

BODY = json.dumps({"release": "pump:1", "predictions": [{"id": "a", "prediction": 1}]}).encode()
GOOD = b"HTTP/1.1 200 OK\r\nevergreen-release: pump:1\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
REQUESTS = [load_clients.LoadRequest.predict(number, "pump", [{"hour": 6}], {}) for number in range(5)]

Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _ask(
    server: Server, work: Callable[[load_clients.LoadClients], Awaitable[None]]
) -> list[load_clients.LoadResult]:
    """What clients are told by a server."""
    seen: list[load_clients.LoadResult] = []
    port = http.free_port()
    served: list[asyncio.Future[None]] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.ensure_future(server(reader, writer)))

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        asking = load_clients.LoadClients("127.0.0.1", port, seen.append, timeout_s=2)
        await work(asking)
        asking.close()
        await asyncio.gather(*served)
    return seen


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head + await reader.readexactly(int(length.split(b":")[1]))


def _answering(answer: bytes, wait: Callable[[], float] = lambda: 0.0) -> Server:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = await _request(reader)
                await asyncio.sleep(wait())
                writer.write(answer)
                if b"connection: close" in asked:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    return server


def test_half_of_the_requests_keep_their_connection() -> None:
    """And those that do not say so to the server, which then closes it."""
    connections: list[list[bytes]] = []

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(mine := [])
        try:
            while True:
                mine.append(asked := await _request(reader))
                writer.write(GOOD)
                if b"connection: close" in asked:
                    break
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    seen = asyncio.run(_ask(server, lambda asking: asking.at_rate(REQUESTS, 200, 1)))
    assert not [one for one in seen if one.failed]
    assert 140 < len(seen) < 260
    closed = [asked for asked in connections if b"connection: close" in asked[0]]
    assert all(len(asked) == 1 for asked in closed)
    assert 0.35 < len(closed) / len(seen) < 0.65
    assert len(connections) - len(closed) < 20


def test_a_server_that_stalls_is_seen_by_every_request_that_was_due_meanwhile() -> None:
    """A client that asks again only when it was answered would have measured one slow answer."""
    begin = time.perf_counter()

    def stalls() -> float:
        return max(0.0, begin + 0.7 - time.perf_counter()) if time.perf_counter() - begin > 0.2 else 0.0

    seen = asyncio.run(_ask(_answering(GOOD, stalls), lambda asking: asking.at_rate(REQUESTS, 200, 1)))
    assert not [one for one in seen if one.failed]
    assert sum(one.ms > 100 for one in seen) > 50


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "HTTP 503"),
        (GOOD.replace(b"pump:1\r\n", b"pump:2\r\n"), "not what was asked for"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "not what was asked for"),
        (b"what?\r\n\r\n", "no answer (HttpParserInvalidMethodError)"),
    ],
)
def test_each_way_to_fail_is_told_apart(answer: bytes, failed: str) -> None:
    """And nothing is asked twice."""
    seen = asyncio.run(_ask(_answering(answer), lambda asking: asking.at_rate(REQUESTS, 50, 0.4)))
    told = Counter(str(one.failed).split(" (")[0] for one in seen)
    assert set(told) == {failed.split(" (", maxsplit=1)[0]}


def test_a_connection_that_ends_before_the_answer_is_a_failure() -> None:
    """The request was sent: the client cannot know whether it counts."""

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.close()

    seen = asyncio.run(_ask(server, lambda asking: asking.connected(REQUESTS, 2, 0.2)))
    assert seen
    assert all(str(one.failed).startswith("no answer (") for one in seen)


def test_a_server_that_is_silent_is_given_up() -> None:
    """After the time that a client has."""

    async def work(asking: load_clients.LoadClients) -> None:
        asking.timeout_s = 0.2
        await asking.connected(REQUESTS, 1, 0.1)

    seen = asyncio.run(_ask(_answering(GOOD, lambda: 1.0), work))
    assert [one.failed for one in seen] == ["too late"]


def test_nobody_there_is_a_failure_of_its_own() -> None:
    """Nothing was sent."""
    seen: list[load_clients.LoadResult] = []
    asking = load_clients.LoadClients("127.0.0.1", http.free_port(), seen.append)
    asyncio.run(asking.at_rate(REQUESTS, 50, 0.2))
    assert {one.failed for one in seen} == {"not connected (ConnectionRefusedError)"}


def test_where_nothing_serves_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And ends with 1."""
    port = str(http.free_port())
    monkeypatch.setenv("EVERGREEN_HOST", "127.0.0.1")
    monkeypatch.setenv("EVERGREEN_PORT", port)
    assert cli.main(["load", "--seconds", "1"]) == 1
    said = capsys.readouterr().err
    assert f"WorldError: no router answers on http://127.0.0.1:{port}: " in said
    assert "`evergreen up` starts one" in said


def test_what_serves_is_loaded_with_rows_that_the_model_has_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line a second, and a summary; whoever asks for a model that does not serve is told which do."""
    root = tmp_path / "project"
    router = Routed(root, make_release(root), http.free_port())
    router.want(router.candidate)
    router.start()
    try:
        router.serve(router.candidate)
        monkeypatch.setenv("EVERGREEN_HOST", "127.0.0.1")
        monkeypatch.setenv("EVERGREEN_PORT", str(router.port))
        with project_at(root):
            assert cli.main(["load", "--seconds", "2.2", "--rate", "40"]) == 0
            assert cli.main(["load", "--seconds", "1", "--connections", "4", "--model", "flight_delay"]) == 0
            lines = capfd.readouterr().out.splitlines()
            files.remove(root / "build")
            assert cli.main(["load", "--seconds", "1"]) == 0
            assert "84 different rows of flight_delay" in capfd.readouterr().out
            assert cli.main(["load", "--model", "flight_delays"]) == 1
    finally:
        router.stop()
    assert "no release of flight_delays is live; did you mean 'flight_delay'?" in capfd.readouterr().err
    assert lines[0] == "40 a second for 2.2 s, 2000 different rows of flight_delay"
    assert sum("/s   p50" in line for line in lines) >= 2
    assert sum(line.startswith(f"flight_delay:{router.candidate}  ") for line in lines) == 2
    assert sum(", none failed" in line for line in lines) == 2
