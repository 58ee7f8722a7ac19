"""A canary, watched: what the router counts of it and of who serves, and what both answer to the same requests.

Clients differ, and the same client may meet the canary each time: so nothing is compared between requests of the one
and requests of the other but how long answers take. What the canary answers is compared with its own model's answers
to the same rows, with those of who serves to the same rows, and its failures are those that who serves answers.

Each look is another chance of a false alarm. What is left to chance (latency, how far answers move) is asked by a test
whose probability of a false alarm is `FALSE_ALARM` over all looks together (Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.ground import params
from tasks.release.gate.verdict import Check, Moves
from tasks.release.rollout.paired_answers import Pairs
from tasks.release.rollout.router_client import CALL_SECONDS, fault
from tasks.release.rollout.router_status import ReleaseStatus
from tasks.release.rollout.served_answers import OwnAnswers
from tasks.release.rollout.shadow_replay import slow_beyond, slow_by_chance

LOOK_S = 0.5
"""Seconds between two looks."""

FALSE_ALARM = 0.005
"""The probability that a canary which is as good as who serves alarms, by either of the two tests."""

Counts = npt.NDArray[np.float64]


@dataclass
class Counted:
    """What one release has done since the watch began. A router that was started anew counts from 0 again."""

    answered: int = 0
    refused: int = 0
    errors: int = 0
    late: int = 0
    """Of the errors: no answer, or none in time."""
    failed_alone: int = 0
    """Requests that it refused or failed on, and that who serves answered."""
    latency_edges: list[float] = field(default_factory=list)
    latency: Counts = field(default_factory=lambda: np.zeros(0))
    fault: str | None = None
    """Why it does not run any more."""
    state: str = "ready"
    deaths: int = 0
    """Processes of it that came in the place of others."""
    waiting: int = 0
    """Requests that it was asked and has not answered yet."""
    is_quiet: bool = False
    """Whether it has answered nothing since the look before."""
    _seen: dict[str, Any] = field(default_factory=dict)
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

    def look(self, release: ReleaseStatus, router: int) -> None:
        """Take in what `GET /status` says of the release; the first time, as where to count from."""
        begin = not self._seen
        now = {name: np.array([getattr(release, name)], dtype=np.float64) for name in _COUNTERS}
        now["latency"] = np.array(release.latency.counts, dtype=np.float64)
        since = self._seen if self._seen.get("router") == router else {}
        new = {name: value - _like(since.get(name), value) if not begin else value * 0 for name, value in now.items()}
        self._seen = {**now, "router": router}
        for name in _COUNTERS:
            setattr(self, name, getattr(self, name) + int(new[name].sum()))
        self.is_quiet = not (new["answered"] + new["refused"]).sum()
        self.latency = _like(self.latency, new["latency"]) + new["latency"]
        self.latency_edges = release.latency.edges_ms
        self.fault, self.state, self.waiting = fault(release), release.state, release.waiting
        pids = set(release.pids)
        known = self._pids if since or begin else set()  # another router has started others
        self.deaths += len(pids - known) if known else 0
        self._pids = known | pids

    def quantile_ms(self, share: float) -> float | None:
        """The latency that such a share of the answers stays below: the upper end of its bin."""
        if not self.latency.sum():
            return None
        at = int(np.searchsorted(np.cumsum(self.latency), share * self.latency.sum()))
        return float(self.latency_edges[min(at, len(self.latency_edges) - 1)])

    def slower_than(self, ms: float) -> int:
        """How many answers certainly took longer: those in bins that begin there or above."""
        begin = np.array([0.0, *self.latency_edges])[: len(self.latency)]
        return int(self.latency[begin >= ms].sum())


_COUNTERS = ("answered", "refused", "errors", "late", "failed_alone")


@dataclass
class Watch:
    """Both sides, what they answered to the same rows, and for how long they are watched."""

    own: OwnAnswers
    pairs: Pairs
    expected: Moves | None = None
    """How far the gate knew that answers would move."""
    canary: Counted = field(default_factory=Counted)
    live: Counted = field(default_factory=Counted)
    seconds: float = 0.0

    def judge(self, limits: params.Rollout) -> list[Check]:
        """Whether it stands until now, and why. What there is too little traffic for is passed, and said to be."""
        alpha = FALSE_ALARM / max(1, round(limits.bake_s / LOOK_S))
        return [
            self._runs(limits),
            self._errors(limits),
            self._latency(limits, alpha),
            self.own.check(),
            self.pairs.check(self.expected, limits, alpha),
        ]

    def _runs(self, limits: params.Rollout) -> Check:
        """One that dies over its requests, or keeps them waiting. Where who serves does as well, it is the machine."""
        canary, live = self.canary, self.live
        over = self.seconds > limits.bake_s + CALL_SECONDS
        why = canary.fault
        if canary.deaths > live.deaths:
            why = f"{canary.deaths} of its processes died"
        elif canary.late and not live.late:
            why = f"{canary.late} of {canary.requests} requests got no answer in time"
        elif over and canary.is_owing:
            why = f"it owes {canary.waiting} answers at the end of its watch, after {self.seconds:.0f} s"
        elif over and canary.state != "ready":
            why = f"it is {canary.state} at the end of its watch"
        return Check("runs", float(canary.deaths), float(live.deaths), why is None, why or "it keeps running")

    def _errors(self, limits: params.Rollout) -> Check:
        """What a client's mistake causes, who serves refuses as well."""
        canary, most = self.canary, limits.canary_errors
        shared = canary.refused + canary.errors - canary.late - canary.failed_alone
        also = f"; {shared} more failed with both" if shared > 0 else ""
        reason = f"{canary.failed_alone} of {canary.requests} requests failed that who serves answers{also}"
        return Check("errors", float(canary.failed_alone), float(most), canary.failed_alone <= most, reason)

    def _latency(self, limits: params.Rollout, alpha: float) -> Check:
        """Whether more than one in a hundred answers are slow, beside the p99 of who serves."""
        reference, own = self.live.quantile_ms(0.99), self.canary.quantile_ms(0.99)
        answers, others = int(self.canary.latency.sum()), int(self.live.latency.sum())
        if reference is None or own is None or others < limits.min_requests:
            reason = f"not judged: {answers} answers, who serves {others}"
            return Check("latency p99", own, None, passed=True, reason=reason)
        beyond = slow_beyond(reference, limits)
        slow = self.canary.slower_than(beyond)
        chance = slow_by_chance(slow, answers, self.live.slower_than(beyond), others, 0.01)
        reason = f"p99 {own:.1f} ms; who serves {reference:.1f} ms; {slow} of {answers} answers above {beyond:.0f} ms"
        return Check("latency p99", own, beyond, chance >= alpha, reason)


def _like(counts: Counts | None, other: Counts) -> Counts:
    """Counts, or none where there are none of this kind yet."""
    return counts if counts is not None and len(counts) == len(other) else np.zeros(len(other))
