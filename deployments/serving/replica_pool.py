"""Releases that are kept running, each by its replicas (replica.py): started, asked, replaced, drained."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from bisect import bisect_left
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any

from deployments.serving import release_environments
from deployments.serving.stalls import StallDetector
from tasks.ground import priority, settings
from tasks.ground.errors import EnvironmentDiffers
from tasks.release.rollout.router_status import LATE
from tasks.runtime.replica import ANSWERED, ASKED, PROTOCOL, STATISTICS

EDGES_MS = [round(0.5 * 1.15**i, 4) for i in range(80)]
"""Of the histogram of latencies: from half a millisecond to half a minute, each bin 15 % wider than the one before."""

TRIES = 3
"""How often a request is asked that each time a replica dies over: it may be the reason."""

FIRST_PAUSE, MOST_PAUSE = 0.5, 30.0
"""Seconds between two starts of a replica that does not come up: twice as many each time."""

SILENT_S = 300.0
"""A process that has not come up after so many seconds hangs."""

STOPPED_S, DISK_S = 0.3, 5.0
"""A replica that owes an answer is ended after so many seconds in which it was stopped, or only waited for the disk."""

IDLE_S = 1.0
"""A replica that owes an answer and has done nothing for so long is asked no more while another one can be."""

QUIET_S = 0.2
"""Who was heard, or asked, more recently is not looked at."""

HELLO_S, BIRTH_S = 30.0, 3.0
"""What replicas are forked from may take so many seconds to come up, and then to fork. Else a replica is started by
itself: later by what it imports, and whatever the other process does."""

STILL_S = 30.0
"""A process that has done nothing for so many seconds does not come up any more."""

GENTLY_S = 5.0
"""For so long at most a replica gives way while it comes up: where the processor is always busy it never would."""

HELLO = 0
"""The number with which the process that forks says that it is up."""

SAID = 2000
"""Characters of what a replica said before it died."""


class Unanswered(Exception):
    """No replica could answer: all are starting, failed, or stood still. Another release may be asked."""


class Deadly(Unanswered):
    """Several replicas died over the request: whoever else is asked may die as well."""


class _Gone(Exception):
    """The replica ended before it answered."""


class _Stalled(_Gone):
    """It was ended because it stood still: the request is hardly the reason."""


class _NurseryGone(Exception):
    """It ended or hung while it forked: whether there is a process is not known, and it is not the release's fault."""


def say(text: str) -> None:
    """Tell the operator; where the disk is full that the words go to, what runs goes on without."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


@dataclass
class Release:
    """A release that is to be kept running, and what is known of it.

    Counters are of production traffic, since this router began with it.
    """

    model: str
    candidate: str
    version: int | None
    folder: Path
    nursery: Nursery
    log: Path
    """Folder of the prediction log."""
    said: Path
    """File into which the first replica's own words go; those of the others lie beside it."""
    size: int = 1
    timeout_s: float = 30
    replicas: list[_Replica] = field(default_factory=list)
    about: dict[str, Any] | None = None
    """What a replica said of its release when it was ready."""
    why: str | None = None
    """Why the last start failed; None once one has succeeded."""
    draining: bool = False
    born: float | None = None
    """Since when its newest process is there (time.monotonic)."""
    statuses: Counter[int] = field(default_factory=Counter)
    latency: list[int] = field(default_factory=lambda: [0] * (len(EDGES_MS) + 1))
    seconds: float = 0.0
    failed_alone: int = 0
    """Requests of a canary that it refused or failed on, and that the live release answered."""
    gently: bool = False
    """Whether what starts gives way: another release answers meanwhile, and none of it was up yet."""
    waiting: int = 0
    """How many requests it was asked and has not answered: also those for which no replica is there yet."""
    waiting_bytes: int = 0
    """How large they are together."""
    stalled: int = 0
    """How many of its replicas were ended because they stood still."""
    _failures: int = 0
    _buried: dict[str, Any] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    _keepers: set[asyncio.Task[None]] = field(default_factory=set)
    _starting: set[_Replica] = field(default_factory=set)

    # ── kept running ──────────────────────────────────────────────────────────────────────────────

    def start(self, *, gently: bool = False) -> None:
        """Begin to keep its replicas running.

        Args:
            gently: while they come up for the first time, they give way to others.
        """
        self.gently = gently
        self._keepers = {asyncio.create_task(self._keep(place)) for place in range(self.size)}

    async def drain(self, seconds: float) -> None:
        """End it, after what it was asked is answered."""
        self.draining = True
        self._changed.set()  # who waits for a replica waits in vain
        deadline = time.monotonic() + seconds
        while self.waiting and time.monotonic() < deadline:
            self.end_the_stalled()
            await asyncio.sleep(0.02)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _keep(self, place: int) -> None:
        """One replica, started again whenever it dies."""
        said = self.said if place == 0 else self.said.with_suffix(f".{place + 1}.log")
        nursery: Nursery | None = self.nursery
        while True:
            replica = _Replica(self, said)
            self._starting.add(replica)
            seen = _written(self.folder)
            try:
                await replica.run(nursery)
            except _NurseryGone as error:
                say(f"{self.model}:{self.candidate}: {error}; a replica is started by itself")
                nursery = None
                continue
            except _Stalled:
                continue
            except (EnvironmentDiffers, OSError, RuntimeError, ValueError) as error:  # pins nobody can read; no thread
                self.why = str(error)
            finally:
                self._starting.discard(replica)
                replica.kill()
            nursery = self.nursery
            if replica.about is None:
                self._fail(said)
                await self._pause_while(seen)
            else:
                self._failures = 0
                say(f"{self.model}:{self.candidate}: replica {replica.pid} died and is replaced")

    def _fail(self, said: Path) -> None:
        """A replica has not come up: whoever waits for it is told, unless another one answers."""
        self.why = _last_words(said) or self.why or "its process ended and said nothing"
        self._failures += 1
        self._tell_waiting()
        say(f"{self.model}:{self.candidate} does not start: {self.why.splitlines()[-1]}")

    async def _pause_while(self, seen: tuple[int, int] | None) -> None:
        """Longer after each failure, but no longer than its folder stays as it was: who mends it need not wait."""
        doubled = min(self._failures, 10)  # 2**1024 is no float
        end = time.monotonic() + min(MOST_PAUSE, FIRST_PAUSE * 2**doubled)
        while (left := end - time.monotonic()) > 0 and _written(self.folder) == seen:
            await asyncio.sleep(min(left, FIRST_PAUSE))

    def _tell_waiting(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def came_up(self, replica: _Replica) -> None:
        """A replica is ready."""
        self.about, self.why, self.gently = replica.about, None, False
        self._starting.discard(replica)
        self.replicas.append(replica)
        self._tell_waiting()

    @property
    def state(self) -> str:
        """starting, ready, failed or draining."""
        if self.draining:
            return "draining"
        return "ready" if self.replicas else "failed" if self.why else "starting"

    @property
    def can_answer(self) -> bool:
        """Whether a replica is ready, and does something when it is asked."""
        return any(not replica.is_ending and not replica.is_idle for replica in self.replicas)

    @property
    def can_stand_in(self) -> bool:
        """Whether it could answer at once for another: also nobody has stopped it while it was asked nothing."""
        return self.can_answer and any(not replica.is_stopped for replica in self.replicas)

    @property
    def trouble(self) -> str:
        """In a line why it has no replica; a client is told no folder of this machine."""
        if not self.why or not self.why.strip():
            return "starting"
        return self.why.strip().splitlines()[-1].replace(f"{settings.ROOT}/", "")

    # ── asked ─────────────────────────────────────────────────────────────────────────────────────

    async def ask(self, kind: int, name: str, key: str, body: bytes, *, patient: bool = True) -> tuple[int, bytes]:
        """The status and the body of the answer.

        A request whose replica dies is asked again, then without others of its kind beside it: one that kills
        whoever answers it must not take the others along.

        Args:
            kind: of the request: see tasks/runtime/replica.py.
            name: of the request.
            key: of whoever asks.
            body: what is asked.
            patient: wait for a replica that is being started: nobody else can be asked.

        Raises:
            Unanswered: no replica is ready, or comes up within the time limit.
            Deadly: each one died over it.
        """
        self.waiting += 1
        self.waiting_bytes += len(body)
        try:
            return await self._ask(kind, name, key, body, patient)
        finally:
            self.waiting -= 1
            self.waiting_bytes -= len(body)

    async def _ask(self, kind: int, name: str, key: str, body: bytes, patient: bool) -> tuple[int, bytes]:
        for _ in range(TRIES):
            try:
                return await (await self._one_ready(patient)).ask(kind, name, key, body)
            except _Stalled:
                continue
            except _Gone:
                break
        else:
            raise Unanswered(f"{self.model}:{self.candidate}: {TRIES} replicas stood still")
        deadline = time.monotonic() + self.timeout_s
        for _ in range(TRIES - 1):
            await self._one_ready()  # all at once: where none comes, nobody waits for the time limit of another
            async with self._alone:
                if time.monotonic() > deadline:
                    raise self._no_replica()
                try:
                    return await (await self._one_ready()).ask(kind, name, key, body)
                except _Gone:
                    continue
        raise Deadly(f"{self.model}:{self.candidate}: {TRIES} replicas died over the request {name}")

    async def _one_ready(self, patient: bool = True) -> _Replica:
        if not (ready := self._that_can_be_asked()):
            try:
                async with asyncio.timeout(self.timeout_s):
                    while not (ready := self._that_can_be_asked()):
                        if self.draining:
                            raise Unanswered(f"{self.model}:{self.candidate} is no longer wanted")
                        if self.why or not patient:
                            raise self._no_replica()
                        await self._changed.wait()
            except TimeoutError:
                raise self._no_replica() from None
        return ready[0] if len(ready) == 1 else min(ready, key=lambda replica: (replica.is_idle, len(replica.asked)))

    def _no_replica(self) -> Unanswered:
        return Unanswered(f"{self.model}:{self.candidate} has no replica: {self.trouble}")

    def _that_can_be_asked(self) -> list[_Replica]:
        """One that is ending is told about a moment later than it is known: a request would be lost to it at once."""
        return [replica for replica in self.replicas if not replica.is_ending]

    def count(self, status: int, seconds: float) -> None:
        """Note an answer to production traffic."""
        self.statuses[status] += 1
        self.latency[bisect_left(EDGES_MS, seconds * 1000)] += 1
        self.seconds += seconds

    def end_the_stalled(self) -> None:
        """End what stands still, and does not come back: what it was asked is asked again."""
        now = time.monotonic()
        for replica in (*self.replicas, *self._starting):
            if reason := replica.look(now, self.timeout_s):
                self.stalled += 1
                replica.kill()
                say(f"{self.model}:{self.candidate}: replica {replica.pid} {reason}: ended")

    def kill_who_is_not_waited_for(self) -> None:
        """Who owes an answer that was given up: it would log it, and somebody else has answered meanwhile."""
        for replica in self.replicas:
            if any(answer.cancelled() for answer, _ in replica.asked.values()):
                replica.kill()
                say(f"{self.model}:{self.candidate}: replica {replica.pid} is too late: killed")

    # ── told ──────────────────────────────────────────────────────────────────────────────────────

    def status(self) -> dict[str, Any]:
        """What `GET /status` says of it."""
        edges = self.about["edges"] if self.about else []
        statistics = self.statistics()
        return {
            "state": self.state,
            "why": self.why,
            "starting_s": None if self.born is None else round(time.monotonic() - self.born, 3),
            "waiting": self.waiting,
            "stalled": self.stalled,
            "pids": [replica.pid for replica in self.replicas],
            "startup_s": next((round(replica.startup_s, 2) for replica in self.replicas), None),
            "answered": sum(n for status, n in self.statuses.items() if status < 400),
            "refused": sum(n for status, n in self.statuses.items() if 400 <= status < 500),
            "errors": sum(n for status, n in self.statuses.items() if status >= 500),
            "late": sum(self.statuses[status] for status in LATE),
            "failed_alone": self.failed_alone,
            "latency": {"edges_ms": EDGES_MS, "counts": self.latency},
            "predictions": {"edges": edges, "counts": statistics["counts"] or [0] * (len(edges) + 1)},
            "unseen": statistics["unseen"],
            "log": {"trouble": statistics["log"], "lost": statistics["lost"]},
        }

    def statistics(self) -> dict[str, Any]:
        """What its replicas, also those that are gone, said of their predictions."""
        log = next((r.statistics["log"] for r in self.replicas if r.statistics and r.statistics["log"]), None)
        return {**_together([self._buried, *(replica.statistics for replica in self.replicas)]), "log": log}

    def bury(self, statistics: dict[str, Any]) -> None:
        """Keep what a replica that is gone has said."""
        self._buried = _together([self._buried, statistics])


def _together(statistics: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums of what replicas said; some have said nothing yet."""
    said = [one for one in statistics if one and one["counts"]]
    unseen: Counter[str] = Counter()
    for one in said:
        unseen.update(one["unseen"])
    return {
        "counts": [sum(bins) for bins in zip(*(one["counts"] for one in said), strict=True)],
        "unseen": dict(unseen),
        "lost": sum(one["lost"] for one in said),
    }


class _Replica(asyncio.Protocol):
    """One process, and the socket to it."""

    def __init__(self, release: Release, said: Path) -> None:
        self.release = release
        self.said = said
        """File into which its own words go."""
        self.about: dict[str, Any] | None = None
        self.statistics: dict[str, Any] = {}
        self.asked: dict[int, tuple[asyncio.Future[tuple[int, bytes]], float]] = {}
        """Number → who waits for the answer, and since when; oldest first."""
        self.heard = 0.0
        self.startup_s = 0.0
        self.pid = 0
        self._stalls = StallDetector(0)
        self._begun = 0.0
        self._started = asyncio.Event()
        """It is up, or never will be."""
        self._lost = asyncio.Event()
        self.is_idle = False
        """Whether it owes an answer, and was seen to do nothing."""
        self._numbers = count(1)
        self._newest = 0
        """The number of the newest request that it has answered."""
        self._overtaken = 0, 0.0
        """A request that a later one was answered before, and when that was seen."""
        self._is_stalled = False
        """Whether it is ended for that it stood still."""
        self._waiting = bytearray()
        self._transport: asyncio.Transport | None = None

    async def run(self, nursery: Nursery | None) -> None:
        """Start the process, and return when it is gone.

        Args:
            nursery: what it is forked from; None: it is started by itself.

        Raises:
            EnvironmentDiffers: the release needs other packages than there are.
            _NurseryGone: the nursery does not fork.
            _Stalled: it stood still before it was up.
        """
        release = self.release
        self.said.parent.mkdir(parents=True, exist_ok=True)
        self.said.unlink(missing_ok=True)
        python = await asyncio.to_thread(release_environments.interpreter, release.folder)
        arguments = ["--log", str(release.log), *(["--version", str(release.version)] if release.version else [])]
        nice = priority.NICE if release.gently else 0
        self._begun = time.monotonic()
        ours, theirs = socket.socketpair()
        try:
            with theirs, self.said.open("ab") as said:
                self.pid = await (
                    nursery.bear(release.folder, arguments, theirs, said, nice)
                    if python is None and nursery is not None
                    else _start(python or Path(sys.executable), release.folder, arguments, theirs, said, nice)
                )
            release.born = time.monotonic()
            self._stalls = StallDetector(self.pid)
            await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
        except BaseException:  # let go while it was born: it ends when it finds its socket closed
            ours.close()
            raise
        if nice:
            with suppress(TimeoutError):
                async with asyncio.timeout(GENTLY_S):
                    await self._started.wait()
            await asyncio.to_thread(priority.set_session_nice, self.pid, 0)
        try:
            async with asyncio.timeout(SILENT_S):  # not wait_for: Python 3.11's may lose the cancellation of a drain
                await self._started.wait()
        except TimeoutError:
            raise TimeoutError(f"it has not come up after {SILENT_S:g} s") from None
        if self._is_stalled and self.about is None:
            raise _Stalled
        await self._lost.wait()

    def ask(self, kind: int, name: str, key: str, body: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; what is given is done when the answer has come, or fails with _Gone."""
        assert self._transport
        number = next(self._numbers)
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self.asked[number] = answer, time.monotonic()
        named, keyed = name.encode(), key.encode()
        held = len(named) + len(keyed) + len(body)
        head = ASKED.pack(held, kind, number, time.time(), len(named), len(keyed))
        self._transport.write(b"".join((head, named, keyed, body)))
        return answer

    def look(self, now: float, timeout_s: float) -> str | None:
        """See what it does for what it owes; give why it is to be ended, if it is. Called several times a second."""
        if self.about is None:
            return self._look_at_start(now)
        if not self.asked:
            self.is_idle = False
            return None
        number, (_, asked) = next(iter(self.asked.items()))
        since = max(self.heard, asked)
        if now - since > timeout_s:
            return f"has not answered for {timeout_s:g} s"
        if number < self._newest and self._overtaken[0] != number:
            self._overtaken = number, now
        if number < self._newest and now - self._overtaken[1] > IDLE_S:
            return "has passed over a request"
        if now - since < QUIET_S:
            self.is_idle = False
            return None
        idle = self._stalls.idle(now, since)
        self.is_idle = idle > IDLE_S
        return self._stands_still(idle)

    def _look_at_start(self, now: float) -> str | None:
        if self._transport is None:
            return None
        idle = self._stalls.idle(now, self._begun)
        self._is_stalled = idle > STILL_S
        return "does nothing, and is not up" if self._is_stalled else self._stands_still(idle)

    def _stands_still(self, idle: float) -> str | None:
        reason = None
        if self._stalls.is_stopped and idle > STOPPED_S:
            reason = "is stopped"
        elif self._stalls.waits_for_disk and idle > DISK_S:
            reason = "waits for the disk only"
        self._is_stalled = reason is not None
        return reason

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has stopped its process, seen just now."""
        self._stalls.look()
        return self._stalls.is_stopped

    @property
    def is_ending(self) -> bool:
        """Whether its socket is known to be closed: what is asked now it will never hear."""
        return self._transport is None or self._transport.is_closing()

    def kill(self) -> None:
        """End the process at once, if it is still there."""
        if self.pid and not self._lost.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        if self._transport is not None:
            self._transport.abort()

    # ── asyncio calls these ───────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Answers, or a part of one."""
        self.heard = time.monotonic()
        waiting, at = self._waiting, 0
        waiting += data
        while len(waiting) - at >= ANSWERED.size:
            length, status, number = ANSWERED.unpack_from(waiting, at)
            start = at + ANSWERED.size
            if len(waiting) - start < length:
                break
            body, at = bytes(waiting[start : start + length]), start + length
            if number:
                answer, _ = self.asked.pop(number)
                self._newest = max(self._newest, number)
                if not answer.done():
                    answer.set_result((status, body))
            elif status == STATISTICS:
                self.statistics = json.loads(body)
            else:
                self._hello(json.loads(body))
        if at:
            del waiting[:at]

    def _hello(self, about: dict[str, Any]) -> None:
        if about["protocol"] != PROTOCOL or about["candidate"] != self.release.candidate:
            self.release.why = f"{self.release.folder} speaks protocol {about['protocol']} as {about['candidate']}"
            self.kill()
            return
        self.about, self.startup_s = about, time.monotonic() - self._begun
        self.release.came_up(self)
        self._started.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """It is gone: whoever waits is told."""
        self._started.set()
        self._lost.set()
        if self in self.release.replicas:
            self.release.replicas.remove(self)
            self.release.bury(self.statistics)
        for answer, _ in self.asked.values():
            if not answer.done():
                answer.set_exception(_Stalled() if self._is_stalled else _Gone())
        self.asked.clear()


def _written(folder: Path) -> tuple[int, int] | None:
    """Changes when something in a folder, or the folder itself, is replaced."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _last_words(path: Path) -> str:
    """The end of what a replica said."""
    if not path.exists():
        return ""
    with path.open("rb") as said:
        said.seek(max(0, said.seek(0, os.SEEK_END) - SAID))
        return said.read().decode(errors="replace").strip()


# ── where replicas come from ──────────────────────────────────────────────────────────────────────


class Nursery:
    """The process that forks replicas (replica_nursery.py): started when it is first needed, or has died or hung."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._one = asyncio.Lock()
        self._numbers = count(1)
        self._heard, self._is_up = b"", False
        self._waking: asyncio.Task[None] | None = None

    async def wake(self) -> None:
        """Let it import what it needs ahead of the first birth."""
        async with self._one:
            if self._socket is None:
                self._socket = await self._start()

    async def bear(self, folder: Path, arguments: list[str], theirs: socket.socket, said: IO[bytes], nice: int) -> int:
        """A new replica's process number.

        Raises:
            _NurseryGone: it does not come up, has ended, or hangs: it is begun anew, with the next birth in mind.
        """
        await self.wake()
        async with self._one:
            number = next(self._numbers)
            told = {"number": number, "script": str(script_of(folder)), "arguments": arguments, "nice": nice}
            try:
                if self._socket is None:
                    raise ChildProcessError("it has just ended")
                if not self._is_up:
                    async with asyncio.timeout(HELLO_S):
                        await self._answer(HELLO)
                    self._is_up = True
                socket.send_fds(self._socket, [json.dumps(told).encode()], [theirs.fileno(), said.fileno()])
                async with asyncio.timeout(BIRTH_S):
                    return await self._answer(number)
            except OSError as error:  # it may have forked: what listens at `theirs` must stay the only one
                self.end()
                self._waking = asyncio.create_task(self.wake())
                hangs = "hangs" if isinstance(error, TimeoutError) else f"is gone ({error})"
                raise _NurseryGone(f"the process that replicas are forked from {hangs}") from None

    def end(self) -> None:
        """End it; the next birth begins it anew."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)  # kill() may take the exit code from asyncio's watcher
        if self._socket is not None:
            self._socket.close()
        self._socket, self._heard, self._is_up = None, b"", False

    async def _answer(self, number: int) -> int:
        """The process number; answers to those who have not waited for theirs are passed over."""
        while True:
            line, end, rest = self._heard.partition(b"\n")
            if end:
                self._heard = rest
                whose, pid = map(int, line.split())
                if whose == number:
                    return pid
                continue
            assert self._socket
            came = await asyncio.get_running_loop().sock_recv(self._socket, 64)
            if not came:
                raise ChildProcessError("the process that replicas are forked from has ended")
            self._heard += came

    async def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            line = [sys.executable, "-I", str(NURSERY), "--fd", str(theirs.fileno())]
            self._process = await asyncio.create_subprocess_exec(*line, pass_fds=[theirs.fileno()], **_APART)
        ours.setblocking(False)
        return ours


NURSERY = Path(__file__).with_name("fork_server.py")

_APART: dict[str, Any] = {
    "stdin": asyncio.subprocess.DEVNULL,
    "env": {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    "start_new_session": True,
}


def script_of(release: Path) -> Path:
    """What is started of a release. (Releases before the state version 2 had it at their top.)"""
    script = release / "tasks" / "runtime" / "replica.py"
    return script if script.exists() else release / "replica.py"


async def _start(
    python: Path, folder: Path, arguments: list[str], theirs: socket.socket, said: IO[bytes], nice: int
) -> int:
    """A replica in another environment than this one: an interpreter of its own."""
    line = [str(python), "-I", str(script_of(folder)), "--fd", str(theirs.fileno()), *arguments]
    process = await asyncio.create_subprocess_exec(
        *line, stdout=said, stderr=said, pass_fds=[theirs.fileno()], **_APART
    )
    await asyncio.to_thread(priority.set_session_nice, process.pid, nice)
    return process.pid
