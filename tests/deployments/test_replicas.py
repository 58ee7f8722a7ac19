"""How a release's replicas are asked, seen from inside; tests/deployments/test_router.py does it with real ones."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from deployments.replica import ANSWERED, ASKED, PREDICT
from deployments.replicas import Nursery, Release, Unanswered, _Replica


def _release(tmp_path: Path) -> Release:
    return Release("m", "c", None, tmp_path, Nursery(), log=tmp_path, said=tmp_path / "said")


async def _join(release: Release) -> tuple[_Replica, asyncio.StreamReader, asyncio.StreamWriter]:
    """A replica of the release that is ready, and its process's end of the socket."""
    ours, theirs = socket.socketpair()
    replica = _Replica(release, release.said)
    await asyncio.get_running_loop().create_connection(lambda: replica, sock=ours)
    release.came_up(replica)
    return replica, *await asyncio.open_connection(sock=theirs)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request."""
    length, _, number, *_ = ASKED.unpack(await reader.readexactly(ASKED.size))
    await reader.readexactly(length)
    writer.write(ANSWERED.pack(2, 200, number) + b"ok")


@pytest.mark.parametrize("another", [False, True])
def test_a_replica_that_is_just_ending_is_asked_nothing(tmp_path: Path, another: bool) -> None:
    """Its socket is closed, and asyncio tells so a moment later: whoever asks in between waits for another one."""
    asyncio.run(asyncio.wait_for(_ask_while_one_is_ending(tmp_path, another), 10))


async def _ask_while_one_is_ending(tmp_path: Path, another: bool) -> None:
    release = _release(tmp_path)
    first, _, gone = await _join(release)
    other = await _join(release) if another else None
    asked = [asyncio.create_task(release.ask(PREDICT, f"r{n}", "", b"{}")) for n in range(4)]
    first.kill()
    assert first in release.replicas
    await asyncio.sleep(0)
    assert first not in release.replicas
    _, *end = other or await _join(release)
    for _ in asked:
        await _answer(*end)
    assert await asyncio.gather(*asked) == [(200, b"ok")] * 4
    for writer in (gone, end[1]):
        writer.close()


def test_a_request_that_each_replica_dies_over_is_given_up(tmp_path: Path) -> None:
    """After three of them: it may be the reason."""
    asyncio.run(asyncio.wait_for(_die_over_it(tmp_path), 10))


async def _die_over_it(tmp_path: Path) -> None:
    release = _release(tmp_path)
    asked = asyncio.create_task(release.ask(PREDICT, "r1", "", b"{}"))
    for _ in range(3):
        replica, reader, gone = await _join(release)
        await reader.readexactly(ASKED.size)
        replica.kill()
        gone.close()
        await asyncio.sleep(0.01)
    with pytest.raises(Unanswered, match="3 replicas died over the request r1"):
        await asked
