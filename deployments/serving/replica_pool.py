"""Replica pool: keeps the replicas of one release running, and spreads requests over them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from bisect import bisect_left
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Any

from deployments.serving.fork_server_client import ForkServer, ForkServerGone
from deployments.serving.replica_process import NO_STATISTICS, Launch, ReplicaGone, ReplicaProcess, ReplicaStalled
from tasks.ground import priority, settings
from tasks.ground.errors import EnvironmentDiffers
from tasks.release.rollout.router_status import LATE, SILENT, Latency, LogStatus, PredictionCounts, ReleaseStatus, State
from tasks.runtime.replica import INFER

EDGES_MS = [round(0.5 * 1.15**i, 4) for i in range(80)]
"""Of the histogram of latencies: from half a millisecond to half a minute, each bin 15 % wider than the one before."""

TRIES = 3  # a request is given up after so many replicas died over it: it may be the reason
FIRST_PAUSE, MOST_PAUSE = 0.5, 30.0  # seconds between two starts of a replica that does not come up: doubled each time
LAST_WORDS = 2000  # characters of what a replica printed before it died that are reported

LOG = logging.getLogger("evergreen.router")


class NoReplica(Exception):
    """No replica could answer: all are starting, failed, or stood still. Another release may be asked."""


class DeadlyRequest(NoReplica):
    """Several replicas died over the request: those of another release may die as well."""


class ReplicaPool:
    """A release that is kept running by `size` replicas. Counters are of production traffic, since the router began.

    What the first replica prints goes to `output`; what the others print, to files beside it.
    """

    def __init__(
        self, model: str, launch: Launch, fork_server: ForkServer, output: Path, size: int = 1, timeout_s: float = 30
    ) -> None:
        self.model, self.candidate, self.timeout_s = model, launch.candidate, timeout_s
        self._launch, self._fork_server, self._output, self._size = launch, fork_server, output, size
        self.replicas: list[ReplicaProcess] = []  # those that are ready
        self.about: dict[str, Any] = {}  # the first frame of its newest replica
        self.why: str | None = None  # why the last start failed; None once one has succeeded
        self.is_draining = False
        self.failures = 0  # starts that failed in a row
        self.waiting = self.waiting_bytes = 0
        """Requests without an answer, and the size of their bodies; also those for which there is no replica yet."""
        self.statuses: Counter[int] = Counter()
        self.latency, self.seconds = [0] * (len(EDGES_MS) + 1), 0.0
        self.failed_alone = 0  # requests of a canary that it refused or failed on, and that the live release answered
        self._stalled = 0
        self._gives_way = False
        """Whether replicas that start give way: another release answers meanwhile, and none of these was up yet."""
        self._launched_at: float | None = None
        self._starting: set[ReplicaProcess] = set()
        self._slots: set[asyncio.Task[None]] = set()
        self._reaped = NO_STATISTICS  # statistics of replicas that are gone
        self._changed = asyncio.Event()
        self._suspects = asyncio.Lock()  # requests that a replica died over are asked one at a time

    def __str__(self) -> str:
        return f"{self.model}:{self.candidate}"

    def start(self, *, gives_way: bool = False) -> None:
        """Keep the replicas running from now on; while they come up for the first time, they may give way to others."""
        self._gives_way = gives_way
        self._slots = {asyncio.create_task(self._keep(place)) for place in range(self._size)}

    async def drain(self, seconds: float) -> None:
        """Stop, once the waiting requests are answered or so many seconds are over."""
        self.is_draining = True
        self._changed.set()  # requests that wait for a replica wait in vain
        deadline = time.monotonic() + seconds
        while self.waiting and time.monotonic() < deadline:
            self.end_stalled()
            await asyncio.sleep(0.02)
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)

    async def _keep(self, place: int) -> None:
        output = self._output if place == 0 else self._output.with_suffix(f".{place + 1}.log")
        fork_server: ForkServer | None = self._fork_server
        while True:
            replica = ReplicaProcess(self._launch, output, self._is_ready, self._is_lost)
            self._starting.add(replica)
            seen, nice = _stat(self._launch.folder), priority.NICE if self._gives_way else 0
            try:
                await replica.start(fork_server, nice)
                self._launched_at = time.monotonic()
                await replica.run(nice)
            except ForkServerGone as error:
                LOG.warning(f"{self}: {error}; the replica gets an interpreter of its own")
                fork_server = None
                continue
            except ReplicaStalled:
                continue
            except (EnvironmentDiffers, OSError, RuntimeError, ValueError) as error:  # unreadable pins; no thread
                self.why = str(error)
            finally:
                self._starting.discard(replica)
                replica.kill()
            fork_server = self._fork_server
            if replica.about is None:
                self.start_failed(_last_words(output) or replica.refused or self.why)
                await self._pause_while(seen)
            else:
                self.failures = 0
                LOG.warning(f"{self}: replica {replica.pid} died and is replaced")

    def start_failed(self, why: str | None) -> None:
        """A replica has not come up: requests that wait for it fail, unless another one answers."""
        self.why = why or f"its process ended and {SILENT}"
        self.failures += 1
        self._wake_waiting()
        LOG.warning(f"{self} does not start: {self.why.splitlines()[-1]}")

    async def _pause_while(self, seen: tuple[int, int] | None) -> None:
        """Longer after each failure, but no longer than the release's folder is as it was: a repair need not wait."""
        end = time.monotonic() + min(MOST_PAUSE, FIRST_PAUSE * 2 ** min(self.failures, 10))  # 2**1024 is no float
        while (left := end - time.monotonic()) > 0 and _stat(self._launch.folder) == seen:
            await asyncio.sleep(min(left, FIRST_PAUSE))

    def _wake_waiting(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _is_ready(self, replica: ReplicaProcess) -> None:
        assert replica.about is not None
        self.about, self.why, self._gives_way = replica.about, None, False
        self._starting.discard(replica)
        self.replicas.append(replica)
        self._wake_waiting()

    def _is_lost(self, replica: ReplicaProcess) -> None:
        if replica in self.replicas:
            self.replicas.remove(replica)
            self._reaped = _sums([self._reaped, replica.statistics])

    def end_stalled(self) -> None:
        """End replicas that stand still and do not come back: their requests are asked again."""
        now = time.monotonic()
        for replica in (*self.replicas, *self._starting):
            if fault := replica.fault(now, self.timeout_s):
                self._stalled += 1
                replica.kill()
                LOG.warning(f"{self}: replica {replica.pid} {fault}: ended")

    def kill_late(self) -> None:
        """Kill replicas that owe an answer which was given up: they would log it, and another release has answered."""
        for replica in self.replicas:
            if any(answer.cancelled() for answer, _ in replica.pending.values()):
                replica.kill()
                LOG.warning(f"{self}: replica {replica.pid} is too late: killed")

    @property
    def state(self) -> State:
        """As in the status."""
        if self.is_draining:
            return "draining"
        return "ready" if self.replicas else "failed" if self.why else "starting"

    @property
    def version(self) -> str:
        """As the registry numbers it; of a release that is in none, its candidate."""
        return str(self._launch.version or self.candidate)

    @property
    def takes_tensors(self) -> bool:
        """Whether its release speaks the Open Inference Protocol: one that was packaged before that ignores tensors."""
        return "tensors" in self.about

    @property
    def can_answer(self) -> bool:
        """Whether a replica is ready, and works when it gets a request."""
        return any(not replica.is_ending and not replica.is_idle for replica in self.replicas)

    @property
    def can_stand_in(self) -> bool:
        """Whether it could answer at once for another release: nor was it stopped while it had no requests."""
        return self.can_answer and any(not replica.is_stopped for replica in self.replicas)

    @property
    def trouble(self) -> str:
        """In a line why it has no replica, without a folder of this machine: for clients."""
        lines = (self.why or "").strip().splitlines() or ["starting"]
        return lines[-1].replace(f"{settings.ROOT}/", "")

    async def ask(self, kind: int, name: str, key: str, body: bytes, *, patient: bool = True) -> tuple[int, bytes]:
        """The status and the body of the answer.

        With `patient` it waits for a replica that is being started, as no other release can be asked.

        Raises:
            NoReplica: none is ready, or comes up within the time limit.
            DeadlyRequest: each one died over it.
        """
        if kind == INFER and not self.takes_tensors:
            raise NoReplica(f"{self} was packaged before the Open Inference Protocol was spoken here")
        self.waiting += 1
        self.waiting_bytes += len(body)
        try:
            for _ in range(TRIES):
                try:
                    return await (self._reachable() or await self._await_replica(patient)).ask(kind, name, key, body)
                except ReplicaStalled:
                    continue
                except ReplicaGone:
                    return await self._ask_as_suspect(kind, name, key, body)
            raise NoReplica(f"{self}: {TRIES} replicas stood still")
        finally:
            self.waiting -= 1
            self.waiting_bytes -= len(body)

    async def _ask_as_suspect(self, kind: int, name: str, key: str, body: bytes) -> tuple[int, bytes]:
        """Ask a request again over which a replica died, one at a time: it must not take others of its kind along."""
        deadline = time.monotonic() + self.timeout_s
        for _ in range(TRIES - 1):
            await self._await_replica()  # outside the lock: where none comes, none waits for the time limit of another
            async with self._suspects:
                if time.monotonic() > deadline:
                    raise self.no_replica()
                try:
                    return await (await self._await_replica()).ask(kind, name, key, body)
                except ReplicaGone:
                    continue
        raise DeadlyRequest(f"{self}: {TRIES} replicas died over the request {name}")

    def _reachable(self) -> ReplicaProcess | None:
        """The replica with the fewest requests, of those that work if there are any.

        Not one that is just ending, of which asyncio tells a moment later: it would lose the request.
        """
        ready = [replica for replica in self.replicas if not replica.is_ending]
        if len(ready) < 2:
            return ready[0] if ready else None
        return min(ready, key=lambda replica: (replica.is_idle, len(replica.pending)))

    async def _await_replica(self, patient: bool = True) -> ReplicaProcess:
        try:
            async with asyncio.timeout(self.timeout_s):
                while not (replica := self._reachable()):
                    if self.is_draining:
                        raise NoReplica(f"{self} is no longer wanted")
                    if self.why or not patient:
                        raise self.no_replica()
                    await self._changed.wait()
                return replica
        except TimeoutError:
            raise self.no_replica() from None

    def no_replica(self) -> NoReplica:
        """The error, for clients."""
        return NoReplica(f"{self} has no replica: {self.trouble}")

    def count(self, status: int, seconds: float) -> None:
        """Count an answer to production traffic."""
        self.statuses[status] += 1
        self.latency[bisect_left(EDGES_MS, seconds * 1000)] += 1
        self.seconds += seconds

    def statistics(self) -> dict[str, Any]:
        """Sums of what its replicas, also those that are gone, reported of their predictions."""
        return _sums([self._reaped, *(replica.statistics for replica in self.replicas)])

    def status(self, role: str) -> ReleaseStatus:
        """For `GET /status`."""
        edges, sums = self.about.get("edges", []), self.statistics()
        trouble = (replica.statistics["log"] for replica in self.replicas)
        return ReleaseStatus(
            state=self.state,
            role=role,
            why=self.why,
            starting_s=None if self._launched_at is None else round(time.monotonic() - self._launched_at, 3),
            startup_s=next((round(replica.startup_s, 2) for replica in self.replicas), None),
            waiting=self.waiting,
            stalled=self._stalled,
            pids=[replica.pid for replica in self.replicas],
            answered=self._answers(range(400)),
            refused=self._answers(range(400, 500)),
            errors=self._answers(range(500, 600)),
            late=self._answers(LATE),
            failed_alone=self.failed_alone,
            latency=Latency(edges_ms=EDGES_MS, counts=self.latency),
            predictions=PredictionCounts(edges=edges, counts=sums["counts"] or [0] * (len(edges) + 1)),
            unseen=sums["unseen"],
            log=LogStatus(trouble=next(filter(None, trouble), None), lost=sums["lost"]),
        )

    def _answers(self, of: range | tuple[int, ...]) -> int:
        return sum(number for status, number in self.statuses.items() if status in of)


def _sums(statistics: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "counts": [sum(bins) for bins in zip_longest(*(own["counts"] for own in statistics), fillvalue=0)],
        "unseen": dict(sum((Counter(own["unseen"]) for own in statistics), Counter())),
        "lost": sum(own["lost"] for own in statistics),
    }


def _stat(folder: Path) -> tuple[int, int] | None:
    """Changes when something in a folder, or the folder itself, is replaced."""
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def _last_words(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as output:
        output.seek(max(0, output.seek(0, os.SEEK_END) - LAST_WORDS))
        return output.read().decode(errors="replace").strip()
