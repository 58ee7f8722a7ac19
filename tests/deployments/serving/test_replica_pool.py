"""How a release's replicas are asked, seen from inside; tests/test_router.py does it with real ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments.serving import release_environments, replica_pool
from deployments.serving.replica_pool import Nursery, Release, Unanswered, _NurseryGone, _Replica
from deployments.serving.stalls import StallDetector
from tasks.ground import settings
from tasks.runtime.replica import ANSWERED, ASKED, PREDICT, PROTOCOL


def _release(tmp_path: Path, nursery: Nursery | None = None) -> Release:
    return Release("m", "c", None, tmp_path, nursery or Nursery(), log=tmp_path, said=tmp_path / "said.log")


def _run(coroutine: Coroutine[None, None, None]) -> None:
    """Within half a minute."""
    asyncio.run(asyncio.wait_for(coroutine, 30))


def test_a_client_is_told_no_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there is no replica is told in the words of the last error, below the project."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    release = _release(tmp_path)
    assert release.trouble == "starting"
    release.why = f"Traceback …\nFileNotFoundError: no such file: '{tmp_path}/var/bentoml/bentos'\n"
    assert str(release._no_replica()) == "m:c has no replica: FileNotFoundError: no such file: 'var/bentoml/bentos'"


async def _join(release: Release) -> tuple[_Replica, asyncio.StreamReader, asyncio.StreamWriter]:
    """A replica of the release that is ready, and its process's end of the socket."""
    ours, theirs = socket.socketpair()
    replica = _Replica(release, release.said)
    await asyncio.get_running_loop().create_connection(lambda: replica, sock=ours)
    replica.about = {}
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


# ── replicas that stand still ─────────────────────────────────────────────────────────────────────


class _Process:
    """A process of which is said what a sample sees."""

    def __init__(self, status: str, spent: float = 0.0, more: float = 0.0) -> None:
        self.status, self.spent, self.more = status, spent, more

    def oneshot(self) -> AbstractContextManager[None]:
        """As psutil's."""
        return nullcontext()

    def cpu_times(self) -> SimpleNamespace:
        """As psutil's."""
        self.spent += self.more
        return SimpleNamespace(user=self.spent, system=0.0)


@pytest.mark.parametrize(
    ("process", "idle"),
    [
        (_Process("stopped"), True),
        (_Process("disk-sleep", more=0.002), True),
        (_Process("sleeping"), True),
        (_Process("running"), False),
        (_Process("sleeping", spent=100, more=0.05), False),
    ],
    ids=["stopped", "swap storm", "waits", "waits for a processor", "threads compute"],
)
def test_who_computes_or_waits_for_a_processor_works(process: _Process, idle: bool) -> None:
    """However long it takes; who does next to nothing stands still."""
    detector = StallDetector(1)
    detector._process = SimpleNamespace(
        oneshot=process.oneshot, status=lambda: process.status, cpu_times=process.cpu_times
    )  # type: ignore[assignment]
    seconds = [detector.idle(100 + tenth / 10, 99.9) for tenth in range(30)]
    assert seconds[-1] == pytest.approx(3.0 if idle else 0.0)


def test_what_a_replica_did_before_it_was_asked_does_not_count() -> None:
    """It has rested for an hour: it stands still from when it owes something."""
    detector = StallDetector(os.getpid())
    assert detector.idle(5000, 1000) == 0.0 or detector.status != "running"
    detector._process = SimpleNamespace(
        oneshot=nullcontext, status=lambda: "sleeping", cpu_times=lambda: SimpleNamespace(user=1.0, system=0.0)
    )  # type: ignore[assignment]
    assert detector.idle(9000.5, 9000.25) == 0.25


def test_a_stopped_replica_is_ended_and_its_request_asked_of_another_one(tmp_path: Path) -> None:
    """Of the same release, though others wait: the request is not the reason."""
    _run(_stop_one(tmp_path))


async def _stop_one(tmp_path: Path) -> None:
    release = _release(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        stopped, reader, gone = await _join(release)
        stopped.pid, stopped._stalls = sleeper.pid, StallDetector(sleeper.pid)
        asked = [asyncio.create_task(release.ask(PREDICT, f"r{n}", "", b"{}")) for n in range(3)]
        await reader.readexactly(ASKED.size)
        sleeper.send_signal(signal.SIGSTOP)
        _, *end = await _join(release)
        while stopped in release.replicas:
            release.end_the_stalled()
            await asyncio.sleep(0.02)
        for _ in asked:
            await _answer(*end)
        assert await asyncio.gather(*asked) == [(200, b"ok")] * 3
        assert release.stalled == 1
        gone.close()
        end[1].close()
        assert sleeper.wait(10) == -signal.SIGKILL


def test_a_replica_that_only_waits_is_not_ended_and_not_asked_while_another_can_be(tmp_path: Path) -> None:
    """It may wait for something: it is slow, and not dead."""
    _run(_wait_in_one(tmp_path))


async def _wait_in_one(tmp_path: Path) -> None:
    release = _release(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        slow, reader, first = await _join(release)
        slow.pid, slow._stalls = sleeper.pid, StallDetector(sleeper.pid)
        owed = asyncio.create_task(release.ask(PREDICT, "r1", "", b"{}"))
        await reader.readexactly(ASKED.size)
        while release.can_answer:
            release.end_the_stalled()
            await asyncio.sleep(0.02)
        assert slow in release.replicas
        _, *end = await _join(release)
        several = [asyncio.create_task(release.ask(PREDICT, f"r{n}", "", b"{}")) for n in range(3)]
        for _ in several:
            await _answer(*end)
        assert await asyncio.gather(*several) == [(200, b"ok")] * 3
        first.write(ANSWERED.pack(2, 200, 1) + b"ok")
        assert await owed == (200, b"ok")
        release.end_the_stalled()
        assert not slow.is_idle
        for writer in (first, end[1]):
            writer.close()
        sleeper.kill()


def test_a_replica_that_passes_over_a_request_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers those that came later: nobody waits for ever."""
    monkeypatch.setattr(replica_pool, "IDLE_S", 0.1)
    _run(_pass_over(tmp_path))


async def _pass_over(tmp_path: Path) -> None:
    release = _release(tmp_path)
    replica, reader, writer = await _join(release)
    asked = [asyncio.create_task(release.ask(PREDICT, f"r{n}", "", b"{}")) for n in range(2)]
    await reader.readexactly(2 * ASKED.size + 8)
    writer.write(ANSWERED.pack(2, 200, 2) + b"ok")
    assert await asked[1] == (200, b"ok")
    release.end_the_stalled()
    assert not replica.is_ending, "the other answer may be on its way"
    while not replica.is_ending:
        release.end_the_stalled()
        await asyncio.sleep(0.02)
    _, *end = await _join(release)
    await _answer(*end)
    assert await asked[0] == (200, b"ok")
    for one in (writer, end[1]):
        one.close()


def test_who_need_not_wait_is_told_at_once(tmp_path: Path) -> None:
    """No replica is up and another release can be asked; or the last start failed."""
    _run(_ask_in_vain(tmp_path))


async def _ask_in_vain(tmp_path: Path) -> None:
    release = _release(tmp_path)
    with pytest.raises(Unanswered, match="m:c has no replica: starting"):
        await release.ask(PREDICT, "r1", "", b"{}", patient=False)
    waits = asyncio.create_task(release.ask(PREDICT, "r2", "", b"{}"))
    await asyncio.sleep(0.01)
    release.why = "Traceback\nModelFileRefused: model.skops is not there"
    release._fail(tmp_path / "said.log")
    for patient in (waits, release.ask(PREDICT, "r3", "", b"{}")):
        with pytest.raises(Unanswered, match=r"no replica: ModelFileRefused: model\.skops is not there$"):
            await patient


def test_a_release_that_is_mended_starts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long its pause has become."""
    monkeypatch.setattr(release_environments, "interpreter", lambda _: None)
    monkeypatch.setattr(replica_pool, "FIRST_PAUSE", 0.1)
    _run(_mend(tmp_path))


async def _mend(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    nursery = _Births(OSError("no room"))
    release = Release("m", "c", None, folder, nursery, log=tmp_path, said=tmp_path / "said.log", _failures=1000)
    release.start()
    while release.state != "failed":
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert nursery.births == 1
    folder.rename(tmp_path / "away")
    while nursery.births < 2:
        await asyncio.sleep(0.01)
    await release.drain(0)


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
    monkeypatch.setattr(replica_pool, "MOST_PAUSE", 0.0)
    monkeypatch.setattr(release_environments, "interpreter", lambda _: None)
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
    """The replica is started by itself, with a socket of its own; the next one is forked again."""
    monkeypatch.setattr(release_environments, "interpreter", lambda _: None)
    _run(_lose_the_nursery(tmp_path))


async def _lose_the_nursery(tmp_path: Path) -> None:
    nursery = _Births(_NurseryGone("it is gone"), OSError("no room"))
    release = _release(tmp_path, nursery)
    (tmp_path / "replica.py").write_text(ONE_THAT_SAYS_HELLO)
    release.start()
    while not release.replicas:
        await asyncio.sleep(0.01)
    assert (nursery.births, release.state, release._failures) == (1, "ready", 0)
    pid = release.replicas[0].pid
    os.kill(pid, signal.SIGKILL)
    while nursery.births < 2:
        await asyncio.sleep(0.01)
    await release.drain(0)
    await _reaped(pid)


ONE_THAT_SAYS_HELLO = """
import json, socket, struct, sys
with socket.socket(fileno=int(sys.argv[2])) as router:
    hello = json.dumps({"protocol": 1, "candidate": "c"}).encode()
    router.sendall(struct.pack("!IHQ", len(hello), 200, 0) + hello)
    while router.recv(1000):
        pass
"""


@pytest.mark.parametrize("how", ["stopped", "dead", "never up"])
def test_a_birth_has_a_time_limit_and_another_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """What replicas are forked from is stopped, or killed, or never says that it is up: it is ended and begun anew."""
    monkeypatch.setattr(replica_pool, "BIRTH_S", 0.3)
    monkeypatch.setattr(release_environments, "interpreter", lambda _: None)
    script = tmp_path / "nursery.py"
    script.write_text("import time\ntime.sleep(60)" if how == "never up" else NURSERY_THAT_IMPORTS_NOTHING)
    monkeypatch.setattr(replica_pool, "NURSERY", script)
    if how == "never up":
        monkeypatch.setattr(replica_pool, "HELLO_S", 0.3)
    _run(_fork_from_what_hangs(tmp_path, how))


NURSERY_THAT_IMPORTS_NOTHING = replica_pool.NURSERY.read_text().replace("import_module(name)", "name")


async def _fork_from_what_hangs(tmp_path: Path, how: str) -> None:
    (tmp_path / "replica.py").write_text(ONE_THAT_SAYS_HELLO)
    nursery = Nursery()
    await nursery.wake()
    first = nursery._process
    assert first
    release = _release(tmp_path, nursery)
    release.start()
    pid = await _another(release, 0)
    if how != "never up":
        assert _parent(pid) == first.pid
        first.send_signal(signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
        pid = await _another(release, pid)
    assert release._failures == 0
    assert await first.wait() == -signal.SIGKILL
    second = nursery._process
    assert second
    assert second is not first
    if how != "never up":
        assert _parent(await _another(release, pid)) == second.pid, "it forks again"
    await release.drain(0)
    nursery.end()
    await second.wait()
    await _reaped(pid)


async def _reaped(pid: int) -> None:
    """Wait until asyncio has heard of the end of a process that it has started."""
    while Path(f"/proc/{pid}").exists():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)


async def _another(release: Release, pid: int) -> int:
    """End a process, and wait for the one in its place."""
    if pid:
        os.kill(pid, signal.SIGKILL)
    while not release.replicas or release.replicas[0].pid == pid:
        await asyncio.sleep(0.01)
    return release.replicas[0].pid


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("turns", range(6))
def test_a_release_that_is_let_go_just_when_it_comes_up_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """In whatever turn of the event loop: were the cancellation lost, the process would stay, and the router."""
    monkeypatch.setattr(replica_pool, "socket", _Silent)
    monkeypatch.setattr(release_environments, "interpreter", lambda _: None)
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
    monkeypatch.setattr(replica_pool, "SILENT_S", 0.2)
    monkeypatch.setattr(replica_pool, "socket", _Silent)
    monkeypatch.setattr(release_environments, "interpreter", lambda _: None)
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
