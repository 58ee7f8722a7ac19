"""Supervision of one service: started when its dependencies answer, probed, restarted when it dies or hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from deployments.local.console import Console
from deployments.local.services import HEARTBEAT, LocalService
from tasks.ground import priority, process_tags, settings
from tasks.ground.errors import WorldError

LISTENING = "EVERGREEN_LISTENING_FD"
"""The variable that tells a service the socket on which the supervisor listens for it."""

DEATHS, WITHIN = 5, 60.0  # a service that dies this often within so many seconds ends a platform that is not ready yet
REST_SECONDS = 60  # the pause before it is restarted in one that is: the other services go on, above all what serves
PROBE_SECONDS = 10.0  # how often a service that answers is probed
POLL_SECONDS = 0.2


@dataclass
class Supervision:
    """What all services of a platform share."""

    console: Console
    ready: bool = False
    changed: Callable[[], None] = lambda: None  # called when a service has another process


@dataclass
class SupervisedService:
    """A service and its process."""

    service: LocalService
    shared: Supervision
    dependencies: list[SupervisedService] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    answers: bool = False
    probed_at: float = 0
    answered_at: float = 0  # monotonic seconds of the last probe, and of the last one that was answered
    rest_seconds: float = 0  # the pause before the next restart
    _deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS))
    _socket: socket.socket | None = None

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    async def keep_running(self) -> None:
        """Start it and restart it, until cancelled.

        Raises:
            WorldError: it dies again and again, and the platform is not ready yet.
        """
        while True:
            while not all(dependency.answers for dependency in self.dependencies):
                await asyncio.sleep(POLL_SECONDS)
            try:
                process = await self.start()
            except OSError as error:  # no memory, a full disk
                self._died(f"not started ({error})")
            else:
                code = await process.wait()
                self._died(f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}")
            await asyncio.sleep(self.rest_seconds)

    async def start(self) -> asyncio.subprocess.Process:
        """Start its process, in a session of its own; output goes to its log, which outlives this process."""
        if self.process and not self.service.starts_flows:
            await asyncio.to_thread(process_tags.kill_service, self.name)
        variables, sockets = {process_tags.SERVICE: self.name}, []
        if self.service.serves and self.service.port:  # the socket stays open while the service restarts
            listen = os.environ["EVERGREEN_HOST"], int(os.environ[self.service.port])
            self._socket = self._socket or socket.create_server(listen, backlog=2048)
            sockets = [self._socket.fileno()]
            variables[LISTENING] = str(sockets[0])
        with self.shared.console.log(self.name).open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.service.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=settings.ROOT,
                env={**os.environ, **variables},
                pass_fds=sockets,
                start_new_session=True,
            )
        self.started = datetime.now(UTC)
        if not self.service.serves:
            if not self.service.starts_flows:
                priority.spare_one_cpu(self.process.pid)
            await asyncio.to_thread(priority.lower, self.process.pid)
        self.shared.console.event(self.name, f"started (process {self.process.pid})")
        self.shared.changed()
        return self.process

    def _died(self, how: str) -> None:
        self.answers = False
        self._deaths.append(time.monotonic())
        if len(self._deaths) == DEATHS and self._deaths[-1] - self._deaths[0] < WITHIN:
            tail = "".join(f"\n    {line}" for line in self.shared.console.tail(self.name))
            often = f"{how}, {DEATHS} times within {WITHIN:.0f} s"
            if not self.shared.ready:
                raise WorldError(f"{self.name} was {often}: given up.{tail}")
            self.rest_seconds = REST_SECONDS
            self._report(f"{often}: the next try is in {REST_SECONDS} s.{tail}")
        else:
            self._report(f"{how}: restarted" + (f" in {self.rest_seconds:.0f} s" if self.rest_seconds else ""))

    async def probe(self) -> None:
        """Note whether it answers; kill it where it hangs, which nobody else would notice."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        if self.answers:
            await self._kill_if_it_hangs(process)
        elif await asyncio.to_thread(self.service.answers, self.started) and process is self.process:
            self.answers, self.rest_seconds = True, 0
            self.answered_at = self.probed_at = time.monotonic()
            text = " again" if self.shared.ready else f"   {self.service.about}"
            self.shared.console.event(self.name, f"answers{text}")

    async def _kill_if_it_hangs(self, process: asyncio.subprocess.Process) -> None:
        """A service whose heartbeats go through another one is not to blame while that does not answer."""
        now = time.monotonic()
        if now - self.probed_at < PROBE_SECONDS:
            return
        self.probed_at = now
        excused = any(dependency.answered_at < dependency.probed_at for dependency in self.dependencies)
        if excused or await asyncio.to_thread(self.service.answers, datetime.now(UTC) - HEARTBEAT):
            self.answered_at = now
        elif now - self.answered_at > self.service.hang_seconds:
            self._report(f"has not answered for {now - self.answered_at:.0f} s: killed")
            self.answered_at = now
            _signal(process, signal.SIGKILL)

    async def stop(self) -> None:
        """End its process: asked first, unless it would then report its flow runs as crashed."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        _signal(process, signal.SIGKILL if self.service.starts_flows else signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self.service.shutdown_seconds)
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            await process.wait()

    def _report(self, text: str) -> None:
        self.shared.console.event(self.name, text, bad=True)


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)
