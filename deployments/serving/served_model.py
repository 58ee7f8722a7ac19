"""Served model: reconciles the replica pools of one model with its desired state, and has one answer each request."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from deployments.serving.fork_server_client import ForkServer
from deployments.serving.http_error import HttpError, Overloaded
from deployments.serving.replica_pool import DeadlyRequest, NoReplica, ReplicaPool
from deployments.serving.replica_process import Launch
from tasks.ground import params, paths
from tasks.release import bento_store
from tasks.release.registry.desired_state import DesiredState, ReleaseRef
from tasks.release.rollout.router_status import LATE, TIMED_OUT, UNANSWERED, ModelStatus
from tasks.runtime import replica

CANARY_S = 5.0  # after so long without an answer of the canary that counts against it, and the live release is asked
TURNS = 3  # how many releases are asked in turn: the live one, the standby, and the one that is live by then
LARGEST_BODIES = 16  # so many of the largest requests may wait at one release: as bytes, whatever their number
LOOK_S = 0.05  # how often a request that waits for the first release looks for it


class Request(NamedTuple):
    """A request as a release is asked."""

    kind: int
    name: str
    key: str
    body: bytes


class ServedModel:
    """What is served of one model."""

    def __init__(self, name: str, fork_server: ForkServer) -> None:
        self.name, self._fork_server = name, fork_server
        self.desired, self.limits, self.zone = DesiredState(), params.Serving(), ZoneInfo("UTC")
        self.today = datetime.now(UTC).date().isoformat()  # in its zone
        self.pools: dict[str, ReplicaPool] = {}  # by candidate
        self.live: ReplicaPool | None = None  # the desired live release, once it is ready; until then the one before
        self.standby: ReplicaPool | None = (
            None  # the previous release while it is warm: where the live one cannot answer
        )
        self._awaiting_start = 0  # requests that wait for the first release to be ready
        self._incoming_bytes = 0  # of bodies that are not complete yet, or wait for the first release

    # ── which releases there are ──────────────────────────────────────────────────────────────────

    def follow(self, desired: DesiredState, limits: params.Serving, drain: Callable[[ReplicaPool], None]) -> None:
        """Start what is newly desired, drain what no longer is, and promote the live release as soon as it is ready."""
        self.desired, self.limits = desired, limits
        self.today = datetime.now(self.zone).date().isoformat()
        releases = {release.candidate: release for release in desired.releases}
        for candidate, release in releases.items():
            if candidate not in self.pools:
                self.pools[candidate] = self._pool(release)
                self.pools[candidate].start(gives_way=self.live is not None)
        if (target := self._target) is None or target.replicas:
            self.live = target
        for pool in self.pools.values():
            pool.end_stalled()
        previous = self.pools.get(desired.previous.candidate) if desired.previous else None
        self.standby = previous if previous and previous is not self.live and previous.can_stand_in else None
        for candidate in [name for name, pool in self.pools.items() if name not in releases and pool is not self.live]:
            drain(self.pools.pop(candidate))

    @property
    def _target(self) -> ReplicaPool | None:
        """The pool that shall be live."""
        return self.pools.get(self.desired.live.candidate) if self.desired.live else None

    def _pool(self, release: ReleaseRef) -> ReplicaPool:
        folder = bento_store.release_folder(self.name, release.candidate)
        launch = Launch(release.candidate, release.version, folder, paths.incoming_predictions(self.name))
        output = paths.replica_logs() / f"{self.name}-{release.candidate}.log"
        return ReplicaPool(
            self.name, launch, self._fork_server, output, size=self.limits.replicas, timeout_s=self.limits.timeout_s
        )

    @property
    def answering(self) -> ReplicaPool | None:
        """The live pool, or the standby where that one cannot answer."""
        if self.standby is None or (self.live is not None and self.live.can_answer):
            return self.live
        return self.standby

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered, or will be again in a moment."""
        return self.standby is not None or (self.live is not None and self.live.state != "failed")

    def status(self) -> ModelStatus:
        """For `GET /status`."""
        desired = self.desired.as_json()
        roles = {release["candidate"]: release["role"] for release in desired["beside"]}
        roles |= {desired["canary"]["candidate"]: "canary"} if desired["canary"] else {}
        return ModelStatus(
            **desired,
            answers=self.answering.candidate if self.answering else None,
            releases={
                candidate: pool.status("live" if pool is self.live else roles.get(candidate, "live"))
                for candidate, pool in self.pools.items()
            },
        )

    # ── a request ─────────────────────────────────────────────────────────────────────────────────

    async def ask(self, request: Request, version: str | None = None) -> tuple[ReplicaPool, int, bytes]:
        """The pool that was asked last, its status and its answer; UNANSWERED and the reason where none answers.

        With a version, that one answers, or none.

        Raises:
            Overloaded: the request would wait behind too many.
            HttpError: no release is ready, or this version cannot be asked.
        """
        if self.live is None:
            await self._await_first(len(request.body))
        pool, is_canary = self.choose(request.key) if version is None else (self.named(version), False)
        if pool.waiting >= self.limits.max_waiting:
            raise Overloaded(f"{self.name}: {pool.waiting} requests wait already", retry_after="1")
        if pool.waiting_bytes > LARGEST_BODIES * self.limits.max_bytes:
            raise Overloaded(f"{self.name}: {pool.waiting_bytes:,} bytes wait already", retry_after="1")
        if request.kind == replica.INFER and not pool.takes_tensors:
            pool, is_canary = self._that_takes_tensors(pool, version), False
        if version is not None:
            return await self._ask_alone(pool, request)
        if is_canary and self.live is not None:
            return await self._ask_canary(pool, request)
        return await self._ask_in_turn(pool, request)

    @property
    def nameable(self) -> list[ReplicaPool]:
        """The pools that a client may ask by their version: the live one, and the canary while it has a share."""
        canary = self.desired.canary if self.desired.share else None
        trial = self.pools.get(canary.candidate) if canary else None
        return [pool for pool in (self.live, trial) if pool]

    def named(self, version: str) -> ReplicaPool:
        """The pool of a version, by its number or its candidate.

        Raises:
            HttpError: it is neither the live one nor the canary.
        """
        for pool in self.nameable:
            if version in (pool.version, pool.candidate):
                return pool
        others = " and ".join(f"version {pool.version} ({pool.candidate})" for pool in self.nameable) or "none is ready"
        message = f"{self.name} has no version {version[:40]!r} that answers, but {others}"
        raise HttpError(404, f"{message}. Without /versions/… in the path, the live one answers")

    def _that_takes_tensors(self, chosen: ReplicaPool, version: str | None) -> ReplicaPool:
        """The pool to ask where the chosen one cannot be: the live one, if no version was asked for."""
        others = (self.answering, self.live) if version is None else ()
        for pool in others:
            if pool and pool.takes_tensors:
                return pool
        message = f"{chosen} was packaged before the Open Inference Protocol was spoken here. It answers POST"
        raise HttpError(404, f"{message} /{self.name}/predict; a candidate that is trained now answers both")

    def choose(self, key: str) -> tuple[ReplicaPool, bool]:
        """The pool for a request, and whether that is the canary: always the same for a key."""
        canary, share = self.desired.canary, self.desired.share
        if share and canary and (pool := self.pools.get(canary.candidate)) and pool.replicas:
            drawn = _fraction(f"{canary.candidate}/{key}") if key else random.random()  # noqa: S311
            if drawn < share:
                return pool, True
        if pool := self.answering:
            return pool, False
        failed = f": {self._target.trouble}" if self._target and self._target.state == "failed" else ""
        raise HttpError(503, f"{self.name} has no release that is ready{failed}", **{"retry-after": "2"})

    async def _ask_alone(self, pool: ReplicaPool, request: Request) -> tuple[ReplicaPool, int, bytes]:
        """Ask a release, and no other one."""
        begin = time.perf_counter()
        try:
            status, answer = await pool.ask(*request)
        except NoReplica as error:
            status, answer = UNANSWERED, str(error).encode()
        if request.kind in replica.PRODUCTION:
            pool.count(status, time.perf_counter() - begin)
        return pool, status, answer

    async def _ask_canary(self, canary: ReplicaPool, request: Request) -> tuple[ReplicaPool, int, bytes]:
        """Ask a canary, and the live release where it fails or refuses: a client must not notice that there is one."""
        begin = time.perf_counter()
        try:
            async with asyncio.timeout(CANARY_S):
                status, answer = await canary.ask(*request, patient=False)
        except TimeoutError:
            status, answer = TIMED_OUT, b""
            canary.kill_late()
        except NoReplica as error:
            status, answer = UNANSWERED, str(error).encode()
        if request.kind in replica.PRODUCTION:
            canary.count(status, time.perf_counter() - begin)
        if status < 400 or self.live is None or self.live is canary:
            return canary, status, answer
        pool, live_status, answer = await self._ask_in_turn(self.live, request)
        if request.kind in replica.PRODUCTION:
            canary.failed_alone += live_status < 400 and status not in LATE
        return pool, live_status, answer

    async def _ask_in_turn(self, pool: ReplicaPool, request: Request) -> tuple[ReplicaPool, int, bytes]:
        """Ask a release, and another one where it has no answer.

        A request waits for a start only where no other release can answer.
        """
        begin, turns = time.perf_counter(), TURNS
        while True:
            turns -= 1
            patient = turns == 0 or self._alternative(pool) is None
            try:
                status, answer = await pool.ask(*request, patient=patient)
                break
            except NoReplica as error:
                status, answer = UNANSWERED, str(error).encode()
                other = self._alternative(pool)
                if turns == 0 or isinstance(error, DeadlyRequest) or (other is None and patient):
                    break
                pool = other or pool
        if request.kind in replica.PRODUCTION:
            pool.count(status, time.perf_counter() - begin)
        return pool, status, answer

    def _alternative(self, pool: ReplicaPool) -> ReplicaPool | None:
        """The pool to ask where this one gave no answer: the live one, or the standby."""
        if self.standby is None and pool is self.live:  # nearly always
            return None
        others = (other for other in (self.live, self.standby) if other and other is not pool)
        return next((other for other in others if other.can_answer or pool.is_draining), None)

    async def _await_first(self, size: int) -> None:
        """Hold a request back until the first release is ready: a killed router is back before its releases."""
        target = self._target
        if target is None:
            return
        if self._awaiting_start >= self.limits.max_waiting:
            raise Overloaded(f"{self.name}: {self._awaiting_start} requests wait for its start", retry_after="2")
        self._awaiting_start += 1
        try:
            self.take(size)
            async with asyncio.timeout(self.limits.timeout_s):
                while self.answering is None and target.state != "failed":
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            return
        finally:
            self._awaiting_start -= 1
            self.give_back(size)

    def take(self, size: int) -> None:
        """Count bytes of a body that is coming in; the caller gives them back, also when this raises.

        Raises:
            Overloaded: that is too much at once.
        """
        self._incoming_bytes += size
        if self._incoming_bytes > LARGEST_BODIES * self.limits.max_bytes:
            raise Overloaded(f"{self.name}: {self._incoming_bytes:,} bytes of requests are coming in", retry_after="1")

    def give_back(self, size: int) -> None:
        """Bytes that no longer count."""
        self._incoming_bytes -= size


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / 2**56
