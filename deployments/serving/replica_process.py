"""Replica process: answers for one release over a socket (the other side is tasks/runtime/replica.py)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from deployments.serving import release_environments
from deployments.serving.fork_server_client import ForkServer, spawn_interpreter
from tasks.ground import priority
from tasks.runtime.replica import PROTOCOL, REPLY, REQUEST, STATISTICS

START_S = 300.0  # a process that is not up after so many seconds hangs
START_IDLE_S = 30.0  # a process that has done nothing for so many seconds does not come up any more
GENTLE_S = (
    5.0  # so long at most a replica gives way while it comes up: on a processor that is always busy it never would
)
STOPPED_S, DISK_S = 0.3, 5.0
"""A replica that owes an answer is ended after so many seconds in which it was stopped, or only waited for the disk."""
IDLE_S = 1.0  # a replica that owes an answer and has done nothing for so long gets requests only where no other one can
QUIET_S = 0.2  # a replica that was heard, or was sent a request, more recently is not sampled
WORKING_SHARE = 0.1  # of a processor: who uses more than that works. A swap storm costs a little time as well

NO_STATISTICS: dict[str, Any] = {"counts": [], "unseen": {}, "log": None, "lost": 0}
"""Of a replica that has predicted nothing yet."""


class ReplicaGone(Exception):
    """It ended before it answered."""


class ReplicaStalled(ReplicaGone):
    """It was ended as it stood still: the request is hardly the reason."""


@dataclass(frozen=True)
class Launch:
    """How the replicas of one release are started."""

    candidate: str
    version: int | None
    folder: Path
    log: Path  # folder of the prediction log

    @property
    def script(self) -> Path:
        """What is started. (Releases before the state version 2 had it at their top.)"""
        script = self.folder / "tasks" / "runtime" / "replica.py"
        return script if script.exists() else self.folder / "replica.py"

    @property
    def arguments(self) -> list[str]:
        """The script's options besides its socket."""
        return ["--log", str(self.log), *(["--version", str(self.version)] if self.version else [])]


class StallDetector:
    """Samples one process at each call: a replica that computes could not answer a ping.

    A process that computes or waits for a processor works, however long its request takes. One that is stopped
    (SIGSTOP, a debugger), or only waits for the disk (a swap storm), does not.
    """

    def __init__(self, pid: int) -> None:
        self.status = ""  # of the last sample, as psutil names it
        self._pid = pid
        self._process: psutil.Process | None = None
        self._worked_at, self._cpu_then = float("-inf"), 0.0
        """When it was last seen to work, and how much processor time it had used by then."""

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped at the last sample."""
        return self.status in {"stopped", "tracing-stop"}

    def sample(self) -> float:
        """Sample its status; gives the processor time that its threads have used."""
        try:
            self._process = self._process or psutil.Process(self._pid)
            with self._process.oneshot():
                self.status, times = self._process.status(), self._process.cpu_times()
        except psutil.Error:  # it has ended, which its socket says
            self.status = "dead"
            return 0.0
        return float(times.user + times.system)

    def idle_seconds(self, now: float, since: float) -> float:
        """Sample it; gives for how long it has done nothing, counted from when it owes something (time.monotonic)."""
        cpu = self.sample()
        if self._worked_at < since:  # the first sample since it owes something
            self._worked_at, self._cpu_then = since, cpu
        if self.status == "running" or cpu - self._cpu_then > WORKING_SHARE * (now - self._worked_at):
            self._worked_at, self._cpu_then = now, cpu
        return now - self._worked_at


class ReplicaProcess(asyncio.Protocol):
    """One process, and the socket to it. Calls `on_ready` when it is ready, and `on_lost` when it is gone."""

    def __init__(
        self,
        launch: Launch,
        output: Path,
        on_ready: Callable[[ReplicaProcess], None],
        on_lost: Callable[[ReplicaProcess], None],
    ) -> None:
        self._launch, self._output, self._on_ready, self._on_lost = launch, output, on_ready, on_lost
        self.about: dict[str, Any] | None = None  # its first frame: what it says of its release; None until it is ready
        self.refused: str | None = None  # why it is not the replica that was started
        self.statistics = NO_STATISTICS
        self.pending: dict[int, tuple[asyncio.Future[tuple[int, bytes]], float]] = {}
        """Number of a request → its answer to come, and when it was sent; oldest first."""
        self.pid = 0
        self.startup_s = 0.0
        self.is_idle = False  # whether it owes an answer, and was seen to do nothing
        self.stalls = StallDetector(0)
        self._launched_at = self._heard_at = 0.0
        self._is_stalled = False
        self._newest = 0  # number of the newest request that it has answered
        self._overtaken = 0, 0.0  # a request that a later one was answered before, and when that was seen
        self._numbers = count(1)
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._started, self._lost = asyncio.Event(), asyncio.Event()  # it is up, or never will be; it is gone

    async def start(self, fork_server: ForkServer | None, nice: int) -> None:
        """Start the process; it is not ready yet. Without a fork server it gets an interpreter of its own.

        Raises:
            EnvironmentDiffers: the release needs other packages than there are.
            ForkServerGone: the fork server does not fork.
        """
        self._output.parent.mkdir(parents=True, exist_ok=True)
        self._output.unlink(missing_ok=True)
        python = await asyncio.to_thread(release_environments.interpreter, self._launch.folder)
        self._launched_at = time.monotonic()
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._output.open("ab") as output:
                command = self._launch.script, self._launch.arguments, theirs, output, nice
                if python is None and fork_server is not None:
                    self.pid = await fork_server.spawn(*command)
                else:
                    self.pid = await spawn_interpreter(python or Path(sys.executable), *command)
            self.stalls = StallDetector(self.pid)
            await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
        except BaseException:  # cancelled while it was forked: it ends when it finds its socket closed
            ours.close()
            raise

    async def run(self, nice: int) -> None:
        """Wait until it is ready, and then until it is gone.

        Raises:
            ReplicaStalled: it stood still before it was ready.
            TimeoutError: it was not ready in time.
        """
        if nice:
            with suppress(TimeoutError):
                async with asyncio.timeout(GENTLE_S):
                    await self._started.wait()
            await asyncio.to_thread(priority.set_session_nice, self.pid, 0)
        try:
            async with asyncio.timeout(START_S):  # not wait_for: Python 3.11's may lose the cancellation of a drain
                await self._started.wait()
        except TimeoutError:
            raise TimeoutError(f"it has not come up after {START_S:g} s") from None
        if self._is_stalled and self.about is None:
            raise ReplicaStalled
        await self._lost.wait()

    def kill(self) -> None:
        """End the process at once, if there still is one."""
        if self.pid and not self._lost.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_ending(self) -> bool:
        """Whether its socket is known to be closed: a request would not reach it."""
        return self._transport is None or self._transport.is_closing()

    @property
    def is_stopped(self) -> bool:
        """Whether its process is stopped, sampled just now."""
        self.stalls.sample()
        return self.stalls.is_stopped

    def ask(self, kind: int, name: str, key: str, body: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; gives a future of the answer, which fails with ReplicaGone."""
        assert self._transport
        number = next(self._numbers)
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self.pending[number] = answer, time.monotonic()
        name_bytes, key_bytes = name.encode(), key.encode()
        length = len(name_bytes) + len(key_bytes) + len(body)
        head = REQUEST.pack(length, kind, number, time.time(), len(name_bytes), len(key_bytes))
        self._transport.write(b"".join((head, name_bytes, key_bytes, body)))
        return answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = transport  # type: ignore[assignment]  # a socket's can be written to

    def data_received(self, data: bytes) -> None:
        """Frames, or a part of one."""
        self._heard_at = time.monotonic()
        received, at = self._received, 0
        received += data
        while len(received) - at >= REPLY.size:
            length, status, number = REPLY.unpack_from(received, at)
            start = at + REPLY.size
            if len(received) - start < length:
                break
            body, at = bytes(received[start : start + length]), start + length
            if number:
                answer, _ = self.pending.pop(number)
                self._newest = max(self._newest, number)
                if not answer.done():
                    answer.set_result((status, body))
            elif status == STATISTICS:
                self.statistics = json.loads(body)
            else:
                self._first_frame(json.loads(body))
        if at:
            del received[:at]

    def _first_frame(self, about: dict[str, Any]) -> None:
        if about["protocol"] != PROTOCOL or about["candidate"] != self._launch.candidate:
            self.refused = f"{self._launch.folder} speaks protocol {about['protocol']} as {about['candidate']}"
            self.kill()
            return
        self.about, self.startup_s = about, time.monotonic() - self._launched_at
        self._on_ready(self)
        self._started.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """It is gone: its requests fail."""
        self._started.set()
        self._lost.set()
        self._on_lost(self)
        for answer, _ in self.pending.values():
            if not answer.done():
                answer.set_exception(ReplicaStalled() if self._is_stalled else ReplicaGone())
        self.pending.clear()

    def fault(self, now: float, timeout_s: float) -> str | None:
        """Why it must be ended, if it must; looked at several times a second, `now` (time.monotonic)."""
        if self.about is None:
            return self._start_fault(now)
        if not self.pending:
            self.is_idle = False
            return None
        number, (_, sent_at) = next(iter(self.pending.items()))
        since = max(self._heard_at, sent_at)
        if now - since > timeout_s:
            return f"has not answered for {timeout_s:g} s"
        if number < self._newest and self._overtaken[0] != number:
            self._overtaken = number, now
        if number < self._newest and now - self._overtaken[1] > IDLE_S:
            return "has passed over a request"
        if now - since < QUIET_S:
            self.is_idle = False
            return None
        idle = self.stalls.idle_seconds(now, since)
        self.is_idle = idle > IDLE_S
        return self._stall(idle)

    def _start_fault(self, now: float) -> str | None:
        if self._transport is None:
            return None
        idle = self.stalls.idle_seconds(now, self._launched_at)
        self._is_stalled = idle > START_IDLE_S
        return "does nothing, and is not up" if self._is_stalled else self._stall(idle)

    def _stall(self, idle: float) -> str | None:
        reason = None
        if self.stalls.is_stopped and idle > STOPPED_S:
            reason = "is stopped"
        elif self.stalls.status == "disk-sleep" and idle > DISK_S:
            reason = "waits for the disk only"
        self._is_stalled = reason is not None
        return reason
