"""Served model: reconciles the replica pools of one model with its desired state, and chooses one for each request."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from deployments.serving.fork_server_client import ForkServer
from deployments.serving.http_error import HttpError, Overloaded
from deployments.serving.replica_pool import ReplicaPool
from deployments.serving.replica_process import Launch
from tasks.ground import params, paths
from tasks.release.registry.desired_state import DesiredState, ReleaseRef
from tasks.release.rollout.router_status import ModelStatus

LARGEST_BODIES = 16
"""So many of the largest requests may wait at one release: as bytes, whatever their number."""

LOOK_S = 0.05
"""How often a request that waits for the first release looks for it."""


class ServedModel:
    """What is served of one model."""

    def __init__(self, name: str, fork_server: ForkServer) -> None:
        self.name, self._fork_server = name, fork_server
        self.desired, self.limits, self.zone = DesiredState(), params.Serving(), ZoneInfo("UTC")
        self.today = datetime.now(UTC).date().isoformat()
        """Date in its zone."""
        self.pools: dict[str, ReplicaPool] = {}
        """By candidate."""
        self.live: ReplicaPool | None = None
        """The desired live release, once it is ready; until then the one before."""
        self.standby: ReplicaPool | None = None
        """The previous release while it is warm: it answers where the live one cannot."""
        self._awaiting_start = 0
        """Requests that wait for the first release to be ready."""
        self._incoming_bytes = 0
        """Of bodies that are not complete yet, or wait for the first release."""

    def follow(self, desired: DesiredState, limits: params.Serving, drain: Callable[[ReplicaPool], None]) -> None:
        """Start what is newly desired, drain what no longer is, and promote the live release as soon as it is ready."""
        self.desired, self.limits = desired, limits
        self.today = datetime.now(self.zone).date().isoformat()
        releases = {release.candidate: release for release in (*desired.warm.values(), desired.live) if release}
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
        folder = Path(os.environ["BENTOML_HOME"]) / "bentos" / self.name / release.candidate / "src"
        return ReplicaPool(
            self.name,
            Launch(release.candidate, release.version, folder, paths.incoming_predictions(self.name)),
            self._fork_server,
            output=paths.replica_logs() / f"{self.name}-{release.candidate}.log",
            size=self.limits.replicas,
            timeout_s=self.limits.timeout_s,
        )

    @property
    def answering(self) -> ReplicaPool | None:
        """The live pool, or the standby where that one cannot answer."""
        if self.standby is None or (self.live is not None and self.live.can_answer):
            return self.live
        return self.standby

    def choose(self, key: str) -> tuple[ReplicaPool, bool]:
        """The pool for a request, and whether that is the canary: always the same for a key."""
        challenger, share = self.desired.challenger, self.desired.share
        if share and challenger and (pool := self.pools.get(challenger.candidate)) and pool.replicas:
            drawn = _fraction(f"{challenger.candidate}/{key}") if key else random.random()  # noqa: S311
            if drawn < share:
                return pool, True
        if pool := self.answering:
            return pool, False
        failed = f": {self._target.trouble}" if self._target and self._target.state == "failed" else ""
        raise HttpError(503, f"{self.name} has no release that is ready{failed}", **{"retry-after": "2"})

    def alternative(self, pool: ReplicaPool) -> ReplicaPool | None:
        """The pool to ask where this one gave no answer: the live one, or the standby."""
        if self.standby is None and pool is self.live:  # nearly always
            return None
        others = (other for other in (self.live, self.standby) if other and other is not pool)
        return next((other for other in others if other.can_answer or pool.is_draining), None)

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered, or will be again in a moment."""
        return self.standby is not None or (self.live is not None and self.live.state != "failed")

    async def await_first(self, size: int) -> None:
        """Hold a request back until the first release is ready: a router that was killed is back before its releases.

        Raises:
            Overloaded: too many wait already.
        """
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

    def shed_load(self, pool: ReplicaPool) -> None:
        """Reject a request that would wait behind too many.

        Raises:
            Overloaded: so many wait, or so many bytes.
        """
        if pool.waiting >= self.limits.max_waiting:
            raise Overloaded(f"{self.name}: {pool.waiting} requests wait already", retry_after="1")
        if pool.waiting_bytes > LARGEST_BODIES * self.limits.max_bytes:
            raise Overloaded(f"{self.name}: {pool.waiting_bytes:,} bytes wait already", retry_after="1")

    def status(self) -> ModelStatus:
        """For `GET /status`."""
        roles = {release.candidate: role for role, release in self.desired.warm.items()}
        roles |= {self.desired.canary["candidate"]: "canary"} if self.desired.canary else {}
        return ModelStatus(
            **self.desired.as_json(),
            answers=self.answering.candidate if self.answering else None,
            releases={
                candidate: pool.status("live" if pool is self.live else roles.get(candidate, "live"))
                for candidate, pool in self.pools.items()
            },
        )


def _fraction(text: str) -> float:
    """A number from 0 to 1 that is always the same for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / 2**56
