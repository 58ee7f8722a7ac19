"""Canary analysis: what the router counts of a canary and of the live release, and their answers to the same rows.

Clients differ, and the same client may meet the canary each time: so only latency is compared between requests of the
one and requests of the other. What the canary answers is compared with its own model's answers to the same rows and
with the live release's answers to the same rows; its failures are those that the live release answers.

Each look is another chance of a false alarm. What is left to chance (latency, how far answers move) is judged by a test
whose probability of a false alarm is `FALSE_ALARM` over all looks together (Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tasks.ground import params
from tasks.release.gate.verdict import Check, Moves
from tasks.release.rollout.paired_answers import Pairs
from tasks.release.rollout.router_client import CALL_SECONDS, fault
from tasks.release.rollout.router_status import ReleaseStatus
from tasks.release.rollout.served_answers import OwnAnswers
from tasks.release.rollout.shadow_replay import FALSE_ALARM, latency_check

LOOK_S = 0.5
"""Seconds between two looks."""

_COUNTERS = ("answered", "refused", "errors", "late", "failed_alone")


@dataclass
class Counters:
    """What a release has done since the watch began, across restarts of the router."""

    answered: int = 0
    refused: int = 0
    errors: int = 0
    late: int = 0
    failed_alone: int = 0
    """These five as in `ReleaseStatus`."""
    latency_edges: list[float] = field(default_factory=list)
    latency: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    fault: str | None = None
    """Why it does not run any more."""
    state: str = "ready"
    deaths: int = 0
    """Processes of it that replaced others."""
    waiting: int = 0
    """Requests that it has not answered yet."""
    is_quiet: bool = False
    """Whether it has answered nothing since the look before."""
    _last: ReleaseStatus | None = None
    _router: int | None = None
    _pids: set[int] = field(default_factory=set)

    @property
    def requests(self) -> int:
        """All that it was asked."""
        return self.answered + self.refused + self.errors

    @property
    def is_owing(self) -> bool:
        """Whether it was asked and answers nothing: not now, or not at all."""
        has_answered = self.answered + self.refused > 0
        return (self.waiting > 0 and self.is_quiet) or (self.waiting + self.late > 0 and not has_answered)

    def look(self, status: ReleaseStatus, router: int) -> None:
        """Add what has come since the look before; the first one says where to count from."""
        is_same = self._last is None or router == self._router
        before = self._last or status if is_same else ReleaseStatus(state="ready")  # another router counts from 0
        for name in _COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(status, name) - getattr(before, name))
        self.is_quiet = status.answered + status.refused == before.answered + before.refused
        counts = np.array(status.latency.counts, dtype=np.float64)
        new = counts - _like(np.array(before.latency.counts, dtype=np.float64), counts)
        self.latency, self.latency_edges = _like(self.latency, new) + new, status.latency.edges_ms
        self.fault, self.state, self.waiting = fault(status), status.state, status.waiting
        pids = set(status.pids)
        seen = self._pids if is_same else set()
        self.deaths += len(pids - seen) if seen else 0
        self._last, self._router, self._pids = status, router, seen | pids

    @property
    def answers(self) -> int:
        """How many answers the histogram of latencies has."""
        return int(self.latency.sum())

    def quantile_ms(self, share: float) -> float | None:
        """The latency that such a share of the answers stays below: the upper end of its bin."""
        if not self.answers:
            return None
        at = int(np.searchsorted(np.cumsum(self.latency), share * self.answers))
        return float(self.latency_edges[min(at, len(self.latency_edges) - 1)])

    def slower_than(self, ms: float) -> int:
        """How many answers certainly took longer: those in bins that begin there or above."""
        begin = np.array([0.0, *self.latency_edges])[: len(self.latency)]
        return int(self.latency[begin >= ms].sum())


def _like(counts: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return counts if len(counts) == len(other) else np.zeros(len(other))


@dataclass
class Watch:
    """Both releases, what they answered to the same rows, and for how long they are watched."""

    own: OwnAnswers
    pairs: Pairs
    expected: Moves | None = None
    """How far the gate knew that answers would move."""
    canary: Counters = field(default_factory=Counters)
    live: Counters = field(default_factory=Counters)
    seconds: float = 0.0

    def judge(self, limits: params.Rollout) -> list[Check]:
        """Its checks until now. One with too little traffic is passed, and says so."""
        alpha = FALSE_ALARM / max(1, round(limits.bake_s / LOOK_S))
        return [
            self._runs(limits),
            self._errors(limits),
            latency_check("p99", self.canary, self.live, limits, alpha, fewest=limits.min_requests),
            self.own.check(),
            self.pairs.check(self.expected, limits, alpha),
        ]

    def summary(self, limits: params.Rollout) -> str:
        """How it goes, in a line."""
        canary, live = self.canary, self.live
        few = "; too little traffic to judge its latency and its moves" if canary.requests < limits.min_requests else ""
        return (
            f"{canary.requests} requests in {self.seconds:.0f} s, {canary.errors} errors; "
            f"live release {live.requests}, {live.errors} errors{few}"
        )

    def _runs(self, limits: params.Rollout) -> Check:
        """Whether it dies over its requests, or keeps them waiting. Where both releases do, it is the machine."""
        canary, live = self.canary, self.live
        is_over = self.seconds > limits.bake_s + CALL_SECONDS
        why = canary.fault
        if canary.deaths > live.deaths:
            why = f"{canary.deaths} of its processes died"
        elif canary.late and not live.late:
            why = f"{canary.late} of {canary.requests} requests got no answer in time"
        elif is_over and canary.is_owing:
            why = f"it owes {canary.waiting} answers at the end of its watch, after {self.seconds:.0f} s"
        elif is_over and canary.state != "ready":
            why = f"it is {canary.state} at the end of its watch"
        return Check("runs", float(canary.deaths), float(live.deaths), why is None, why or "it keeps running")

    def _errors(self, limits: params.Rollout) -> Check:
        """What a client's mistake causes, the live release refuses as well."""
        canary, most = self.canary, limits.canary_errors
        shared = canary.refused + canary.errors - canary.late - canary.failed_alone
        also = f"; {shared} more failed with both" if shared > 0 else ""
        reason = f"{canary.failed_alone} of {canary.requests} requests failed that the live release answers{also}"
        return Check("errors", float(canary.failed_alone), float(most), canary.failed_alone <= most, reason)
