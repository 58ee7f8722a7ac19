"""How a release's replicas are asked, seen from inside; tests/deployments/test_router.py does it with real ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Coroutine
from pathlib import Path

import pytest

from deployments import environments, replicas
from deployments.replica import ANSWERED, ASKED, PREDICT, PROTOCOL
from deployments.replicas import Nursery, Release, Unanswered, _NurseryGone, _Replica


def _release(tmp_path: Path, nursery: Nursery | None = None) -> Release:
    return Release("m", "c", None, tmp_path, nursery or Nursery(), log=tmp_path, said=tmp_path / "said.log")


def _run(coroutine: Coroutine[None, None, None]) -> None:
    """Within ten seconds."""
    asyncio.run(asyncio.wait_for(coroutine, 10))


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
    _run(_ask_while_one_is_ending(tmp_path, another))


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
    _run(_die_over_it(tmp_path))


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


def test_requests_whose_replica_died_wait_together(tmp_path: Path) -> None:
    """Where no other comes up, the last of them is told as soon as the first."""
    _run(_wait_for_another(tmp_path))


async def _wait_for_another(tmp_path: Path) -> None:
    release = _release(tmp_path)
    release.timeout_s = 0.3
    replica, _, gone = await _join(release)
    asked = [asyncio.create_task(release.ask(PREDICT, f"r{n}", "", b"{}")) for n in range(20)]
    await asyncio.sleep(0.05)
    replica.kill()
    gone.close()
    begin = time.monotonic()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unanswered}
    assert time.monotonic() - begin < 2
    assert release.waiting == 0


# ── births ────────────────────────────────────────────────────────────────────────────────────────


class _Births(Nursery):
    """Whatever is said happens, one birth after the other; the last thing again and again."""

    def __init__(self, *happen: object) -> None:
        super().__init__()
        self.happen, self.births = happen, 0

    async def bear(self, *_: object) -> int:  # type: ignore[override]
        """As the real one."""
        self.births += 1
        what = self.happen[min(self.births, len(self.happen)) - 1]
        if isinstance(what, Exception):
            raise what
        assert isinstance(what, int)
        return what


def test_who_does_not_start_for_days_is_started_on_and_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause doubles with each failure, which no number holds for ever."""
    monkeypatch.setattr(replicas, "MOST_PAUSE", 0.0)
    monkeypatch.setattr(environments, "interpreter", lambda _: None)
    _run(_fail_on_and_on(tmp_path))


async def _fail_on_and_on(tmp_path: Path) -> None:
    nursery = _Births(OSError("no room"))
    release = _release(tmp_path, nursery)
    release._failures = 1020
    release.start()
    while nursery.births < 10:
        await asyncio.sleep(0.01)
    assert (release.state, release.why) == ("failed", "no room")
    await release.drain(0)


def test_a_nursery_that_dies_over_a_birth_is_not_held_against_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is born anew, with a socket of its own."""
    monkeypatch.setattr(replicas, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(environments, "interpreter", lambda _: None)
    _run(_lose_the_nursery(tmp_path))


async def _lose_the_nursery(tmp_path: Path) -> None:
    nursery = _Births(_NurseryGone())
    release = _release(tmp_path, nursery)
    release.start()
    while nursery.births < 3:
        await asyncio.sleep(0.01)
    assert (release.state, release._failures) == ("starting", 0)
    await release.drain(0)


@pytest.mark.parametrize("turns", range(6))
def test_a_release_that_is_let_go_just_when_it_comes_up_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """In whatever turn of the event loop: were the cancellation lost, the process would stay, and the router."""
    monkeypatch.setattr(replicas, "socket", _Silent)
    monkeypatch.setattr(environments, "interpreter", lambda _: None)
    _run(_let_go(tmp_path, turns))


async def _let_go(tmp_path: Path, turns: int) -> None:
    release = _release(tmp_path, _Births(2**22 + 1))
    release.start()
    while not _Silent.kept:
        await asyncio.sleep(0.001)
    process = _Silent.kept.pop()
    hello = json.dumps({"protocol": PROTOCOL, "candidate": "c"}).encode()
    process.send(ANSWERED.pack(len(hello), 200, 0) + hello)
    while not release.replicas:
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    await release.drain(0)
    assert not release.replicas
    process.close()


def test_a_process_that_never_comes_up_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the reason is told."""
    monkeypatch.setattr(replicas, "SILENT_S", 0.2)
    monkeypatch.setattr(replicas, "socket", _Silent)
    monkeypatch.setattr(environments, "interpreter", lambda _: None)
    with subprocess.Popen(["sleep", "60"]) as hangs:
        _run(_hang(tmp_path, hangs.pid))
        assert hangs.wait(10) == -signal.SIGKILL


class _Silent:
    """Sockets whose other end stays open, as a process holds it."""

    kept: list[socket.socket] = []  # noqa: RUF012

    @classmethod
    def socketpair(cls) -> tuple[socket.socket, socket.socket]:
        """As the real one."""
        ours, theirs = socket.socketpair()
        cls.kept.append(socket.socket(fileno=os.dup(theirs.fileno())))
        return ours, theirs


async def _hang(tmp_path: Path, pid: int) -> None:
    release = _release(tmp_path, _Births(pid))
    release.start()
    while release.state != "failed":
        await asyncio.sleep(0.01)
    assert release.why == "it has not come up after 0.2 s"
    await release.drain(0)
    while _Silent.kept:
        _Silent.kept.pop().close()
