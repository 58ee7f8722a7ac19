"""How a release's replicas are asked, seen from inside; tests/test_router.py does it with real ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments.serving import fork_server_client, release_environments, replica_pool, replica_process
from deployments.serving.fork_server_client import ForkServer, ForkServerGone
from deployments.serving.replica_pool import NoReplica, ReplicaPool
from deployments.serving.replica_process import Launch, ReplicaProcess, StallDetector
from tasks.ground import settings
from tasks.runtime.replica import PREDICT, PROTOCOL, REPLY, REQUEST

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def anyio_backend() -> str:
    """What the router runs on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each release pins is installed."""
    monkeypatch.setattr(release_environments, "interpreter", lambda _: None)


def _pool(tmp_path: Path, fork_server: ForkServer | None = None, folder: Path | None = None) -> ReplicaPool:
    launch = Launch("c", None, folder or tmp_path, log=tmp_path)
    return ReplicaPool("m", launch, fork_server or ForkServer(), output=tmp_path / "output.log")


def test_a_client_is_told_no_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there is no replica is told in the words of the last error, below the project."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    pool = _pool(tmp_path)
    assert pool.trouble == "starting"
    pool.why = f"Traceback …\nFileNotFoundError: no such file: '{tmp_path}/var/bentoml/bentos'\n"
    assert str(pool.no_replica()) == "m:c has no replica: FileNotFoundError: no such file: 'var/bentoml/bentos'"


async def _join(pool: ReplicaPool) -> tuple[ReplicaProcess, asyncio.StreamReader, asyncio.StreamWriter]:
    """A replica of the release that is ready, and its process's end of the socket."""
    ours, theirs = socket.socketpair()
    launch = Launch("c", None, Path(), log=Path())
    replica = ReplicaProcess(launch, Path("output"), pool._is_ready, pool._is_lost)
    await asyncio.get_running_loop().create_connection(lambda: replica, sock=ours)
    replica.about = {}
    pool._is_ready(replica)
    return replica, *await asyncio.open_connection(sock=theirs)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request."""
    length, _, number, *_ = REQUEST.unpack(await reader.readexactly(REQUEST.size))
    await reader.readexactly(length)
    writer.write(REPLY.pack(2, 200, number) + b"ok")


@pytest.mark.parametrize("another", [False, True])
async def test_a_replica_that_is_just_ending_is_asked_nothing(tmp_path: Path, another: bool) -> None:
    """Its socket is closed, and asyncio tells so a moment later: whoever asks in between waits for another one."""
    pool = _pool(tmp_path)
    first, _, gone = await _join(pool)
    other = await _join(pool) if another else None
    asked = [asyncio.create_task(pool.ask(PREDICT, f"r{n}", "", b"{}")) for n in range(4)]
    first.kill()
    assert first in pool.replicas
    await asyncio.sleep(0)
    assert first not in pool.replicas
    _, *end = other or await _join(pool)
    for _ in asked:
        await _answer(*end)
    assert await asyncio.gather(*asked) == [(200, b"ok")] * 4
    for writer in (gone, end[1]):
        writer.close()


async def test_a_request_that_each_replica_dies_over_is_given_up(tmp_path: Path) -> None:
    """After three of them: it may be the reason."""
    pool = _pool(tmp_path)
    asked = asyncio.create_task(pool.ask(PREDICT, "r1", "", b"{}"))
    for _ in range(3):
        replica, reader, gone = await _join(pool)
        await reader.readexactly(REQUEST.size)
        replica.kill()
        gone.close()
        await asyncio.sleep(0.01)
    with pytest.raises(NoReplica, match="3 replicas died over the request r1"):
        await asked


async def test_requests_whose_replica_died_wait_together(tmp_path: Path) -> None:
    """Where no other comes up, the last of them is told as soon as the first."""
    pool = _pool(tmp_path)
    pool.timeout_s = 0.3
    replica, _, gone = await _join(pool)
    asked = [asyncio.create_task(pool.ask(PREDICT, f"r{n}", "", b"{}")) for n in range(20)]
    await asyncio.sleep(0.05)
    replica.kill()
    gone.close()
    begin = time.monotonic()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(answer) for answer in answers} == {NoReplica}
    assert time.monotonic() - begin < 2
    assert pool.waiting == 0


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
    seconds = [detector.idle_seconds(100 + tenth / 10, 99.9) for tenth in range(30)]
    assert seconds[-1] == pytest.approx(3.0 if idle else 0.0)


def test_what_a_replica_did_before_it_was_asked_does_not_count() -> None:
    """It has rested for an hour: it stands still from when it owes something."""
    detector = StallDetector(os.getpid())
    assert detector.idle_seconds(5000, 1000) == 0.0 or detector.status != "running"
    detector._process = SimpleNamespace(
        oneshot=nullcontext, status=lambda: "sleeping", cpu_times=lambda: SimpleNamespace(user=1.0, system=0.0)
    )  # type: ignore[assignment]
    assert detector.idle_seconds(9000.5, 9000.25) == 0.25


async def test_a_stopped_replica_is_ended_and_its_request_asked_of_another_one(tmp_path: Path) -> None:
    """Of the same pool, though others wait: the request is not the reason."""
    pool = _pool(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        stopped, reader, gone = await _join(pool)
        stopped.pid, stopped.stalls = sleeper.pid, StallDetector(sleeper.pid)
        asked = [asyncio.create_task(pool.ask(PREDICT, f"r{n}", "", b"{}")) for n in range(3)]
        await reader.readexactly(REQUEST.size)
        sleeper.send_signal(signal.SIGSTOP)
        _, *end = await _join(pool)
        while stopped in pool.replicas:
            pool.end_stalled()
            await asyncio.sleep(0.02)
        for _ in asked:
            await _answer(*end)
        assert await asyncio.gather(*asked) == [(200, b"ok")] * 3
        assert pool._stalled == 1
        gone.close()
        end[1].close()
        assert sleeper.wait(10) == -signal.SIGKILL


async def test_a_replica_that_only_waits_is_not_ended_and_not_asked_while_another_can_be(tmp_path: Path) -> None:
    """It may wait for something: it is slow, and not dead."""
    pool = _pool(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        slow, reader, first = await _join(pool)
        slow.pid, slow.stalls = sleeper.pid, StallDetector(sleeper.pid)
        owed = asyncio.create_task(pool.ask(PREDICT, "r1", "", b"{}"))
        await reader.readexactly(REQUEST.size)
        while pool.can_answer:
            pool.end_stalled()
            await asyncio.sleep(0.02)
        assert slow in pool.replicas
        _, *end = await _join(pool)
        several = [asyncio.create_task(pool.ask(PREDICT, f"r{n}", "", b"{}")) for n in range(3)]
        for _ in several:
            await _answer(*end)
        assert await asyncio.gather(*several) == [(200, b"ok")] * 3
        first.write(REPLY.pack(2, 200, 1) + b"ok")
        assert await owed == (200, b"ok")
        pool.end_stalled()
        assert not slow.is_idle
        for writer in (first, end[1]):
            writer.close()
        sleeper.kill()


async def test_a_replica_that_passes_over_a_request_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers those that came later: nobody waits for ever."""
    monkeypatch.setattr(replica_process, "IDLE_S", 0.1)
    pool = _pool(tmp_path)
    replica, reader, writer = await _join(pool)
    asked = [asyncio.create_task(pool.ask(PREDICT, f"r{n}", "", b"{}")) for n in range(2)]
    await reader.readexactly(2 * REQUEST.size + 8)
    writer.write(REPLY.pack(2, 200, 2) + b"ok")
    assert await asked[1] == (200, b"ok")
    pool.end_stalled()
    assert not replica.is_ending, "the other answer may be on its way"
    while not replica.is_ending:
        pool.end_stalled()
        await asyncio.sleep(0.02)
    _, *end = await _join(pool)
    await _answer(*end)
    assert await asked[0] == (200, b"ok")
    for one in (writer, end[1]):
        one.close()


async def test_who_need_not_wait_is_told_at_once(tmp_path: Path) -> None:
    """No replica is up and another release can be asked; or the last start failed."""
    pool = _pool(tmp_path)
    with pytest.raises(NoReplica, match="m:c has no replica: starting"):
        await pool.ask(PREDICT, "r1", "", b"{}", patient=False)
    waits = asyncio.create_task(pool.ask(PREDICT, "r2", "", b"{}"))
    await asyncio.sleep(0.01)
    pool.why = "Traceback\nModelFileRefused: model.skops is not there"
    pool.start_failed(pool.why)
    for patient in (waits, pool.ask(PREDICT, "r3", "", b"{}")):
        with pytest.raises(NoReplica, match=r"no replica: ModelFileRefused: model\.skops is not there$"):
            await patient


async def test_a_release_that_is_mended_starts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long its pause has become."""
    monkeypatch.setattr(replica_pool, "FIRST_PAUSE", 0.1)
    folder = tmp_path / "src"
    folder.mkdir()
    fork_server = _Forks(OSError("no room"))
    pool = _pool(tmp_path, fork_server, folder)
    pool.failures = 1000
    pool.start()
    while pool.state != "failed":
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert fork_server.forks == 1
    folder.rename(tmp_path / "away")
    while fork_server.forks < 2:
        await asyncio.sleep(0.01)
    await pool.drain(0)


# ── births ────────────────────────────────────────────────────────────────────────────────────────


class _Forks(ForkServer):
    """Whatever is said happens, one birth after the other; the last thing again and again."""

    def __init__(self, *happen: object) -> None:
        super().__init__()
        self.happen, self.forks = happen, 0

    async def spawn(self, *_: object) -> int:  # type: ignore[override]
        """As the real one."""
        self.forks += 1
        what = self.happen[min(self.forks, len(self.happen)) - 1]
        if isinstance(what, Exception):
            raise what
        assert isinstance(what, int)
        return what


async def test_who_does_not_start_for_days_is_started_on_and_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause doubles with each failure, which no number holds for ever."""
    monkeypatch.setattr(replica_pool, "MOST_PAUSE", 0.0)
    fork_server = _Forks(OSError("no room"))
    pool = _pool(tmp_path, fork_server)
    pool.failures = 1020
    pool.start()
    while fork_server.forks < 10:
        await asyncio.sleep(0.01)
    assert (pool.state, pool.why) == ("failed", "no room")
    await pool.drain(0)


async def test_a_fork_server_that_dies_over_a_birth_is_not_held_against_the_pool(tmp_path: Path) -> None:
    """The replica is started by itself, with a socket of its own; the next one is forked again."""
    fork_server = _Forks(ForkServerGone("it is gone"), OSError("no room"))
    pool = _pool(tmp_path, fork_server)
    (tmp_path / "replica.py").write_text(ONE_THAT_SAYS_HELLO)
    pool.start()
    while not pool.replicas:
        await asyncio.sleep(0.01)
    assert (fork_server.forks, pool.state, pool.failures) == (1, "ready", 0)
    pid = pool.replicas[0].pid
    os.kill(pid, signal.SIGKILL)
    while fork_server.forks < 2:
        await asyncio.sleep(0.01)
    await pool.drain(0)
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
async def test_a_birth_has_a_time_limit_and_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What replicas are forked from is stopped, or killed, or never says that it is up: it is ended and begun anew."""
    monkeypatch.setattr(fork_server_client, "FORK_S", 0.3)
    script = tmp_path / "fork_server.py"
    script.write_text("import time\ntime.sleep(60)" if how == "never up" else FORK_SERVER_THAT_IMPORTS_NOTHING)
    monkeypatch.setattr(fork_server_client, "SCRIPT", script)
    if how == "never up":
        monkeypatch.setattr(fork_server_client, "UP_S", 0.3)
    (tmp_path / "replica.py").write_text(ONE_THAT_SAYS_HELLO)
    fork_server = ForkServer()
    await fork_server.start()
    first = fork_server.process
    assert first
    pool = _pool(tmp_path, fork_server)
    pool.start()
    pid = await _another(pool, 0)
    if how != "never up":
        assert _parent(pid) == first.pid
        first.send_signal(signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
        pid = await _another(pool, pid)
    assert pool.failures == 0
    assert await first.wait() == -signal.SIGKILL
    second = fork_server.process
    assert second
    assert second is not first
    if how != "never up":
        assert _parent(await _another(pool, pid)) == second.pid, "it forks again"
    await pool.drain(0)
    fork_server.kill()
    await second.wait()
    await _reaped(pid)


FORK_SERVER_THAT_IMPORTS_NOTHING = fork_server_client.SCRIPT.read_text().replace("import_module(name)", "name")


async def test_replicas_that_are_born_together_have_a_time_limit_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other: the last of many has not used up its time while the others were forked."""
    monkeypatch.setattr(fork_server_client, "FORK_S", 0.8)
    (tmp_path / "replica.py").write_text("")
    script = tmp_path / "fork_server.py"
    script.write_text(FORK_SERVER_THAT_IMPORTS_NOTHING.replace("pid = os.fork()", "time.sleep(0.2); pid = os.fork()"))
    script.write_text(script.read_text().replace("import gc\n", "import gc\nimport time\n"))
    monkeypatch.setattr(fork_server_client, "SCRIPT", script)
    fork_server, (ours, theirs) = ForkServer(), socket.socketpair()
    with ours, theirs, (tmp_path / "output").open("wb") as output:

        async def spawn() -> int:
            return await fork_server.spawn(tmp_path / "replica.py", [], theirs, output, 0)

        pids = {await spawn(), *await asyncio.gather(*(spawn() for _ in range(6)))}
    assert len(pids) == 7
    server = fork_server.process
    fork_server.kill()
    assert server
    await server.wait()


async def _reaped(pid: int) -> None:
    """Wait until asyncio has heard of the end of a process that it has started."""
    while Path(f"/proc/{pid}").exists():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)


async def _another(pool: ReplicaPool, pid: int) -> int:
    """End a process, and wait for the one in its place."""
    if pid:
        os.kill(pid, signal.SIGKILL)
    while not pool.replicas or pool.replicas[0].pid == pid:
        await asyncio.sleep(0.01)
    return pool.replicas[0].pid


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("turns", range(6))
async def test_a_release_that_is_let_go_just_when_it_comes_up_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """In whatever turn of the event loop: were the cancellation lost, the process would stay, and the router."""
    monkeypatch.setattr(replica_process, "socket", _Silent)
    pool = _pool(tmp_path, _Forks(2**22 + 1))
    pool.start()
    while not _Silent.kept:
        await asyncio.sleep(0.001)
    process = _Silent.kept.pop()
    hello = json.dumps({"protocol": PROTOCOL, "candidate": "c"}).encode()
    process.send(REPLY.pack(len(hello), 200, 0) + hello)
    while not pool.replicas:
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    await pool.drain(0)
    assert not pool.replicas
    process.close()


async def test_a_process_that_never_comes_up_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the reason is told."""
    monkeypatch.setattr(replica_process, "START_S", 0.2)
    monkeypatch.setattr(replica_process, "socket", _Silent)
    with subprocess.Popen(["sleep", "60"]) as hangs:
        pool = _pool(tmp_path, _Forks(hangs.pid))
        pool.start()
        while pool.state != "failed":
            await asyncio.sleep(0.01)
        assert pool.why == "it has not come up after 0.2 s"
        await pool.drain(0)
        while _Silent.kept:
            _Silent.kept.pop().close()
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
