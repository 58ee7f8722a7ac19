"""What production has asked, asked again of a challenger and of who serves: errors, latency, how far answers move.

Both are asked one request after the other, in turns, on the same machine at the same time: so a machine that is busy
makes both slow.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.ground import params
from tasks.release.gate.verdict import Check
from tasks.release.rollout.paired_answers import Pairs
from tasks.release.rollout.router_client import Reply
from tasks.release.rollout.router_status import LATE

Ask = Callable[[list[dict[str, Any]]], Reply]

SURE = 8
"""So many requests, of which the challenger's fastest answer is slower than the slowest of who serves, are enough:
by chance alone that happens once in 12,870 times, and never beyond a ratio and a limit."""

MOST_SECONDS = 60.0
"""A replay takes no longer: what was replayed until then is judged."""

CHANCE = 0.005
"""The probability that a challenger which is as fast as who serves is taken for slow, by one of two tests."""


@dataclass(kw_only=True)
class Replayed(Pairs):
    """What came of it."""

    asked: int
    champion_ms: list[float] = field(default_factory=list)
    challenger_ms: list[float] = field(default_factory=list)
    errors: int = 0
    """Requests that the champion answers and the challenger does not."""
    first_error: str = ""
    late: int = 0
    """Requests that the challenger gave no answer to, or none in time."""
    unasked: int = 0
    """Requests that the champion does not answer either."""
    stopped: str = ""
    """Why not all were replayed."""

    @property
    def requests(self) -> int:
        """How many requests both were asked."""
        return len(self.challenger_ms)

    def add(self, rows: list[dict[str, Any]], champion: Reply, challenger: Reply) -> None:
        """One request that was asked of both."""
        if champion.status != 200:
            self.unasked += 1
            return
        self.champion_ms.append(champion.ms)
        self.challenger_ms.append(challenger.ms)
        if challenger.status == 200:
            self.pair(rows, champion.body["predictions"], challenger.body["predictions"])
            return
        self.late += challenger.status in LATE
        self.errors += challenger.status not in LATE
        self.first_error = self.first_error or challenger.said


def replay(
    replayed: Replayed, requests: Iterable[list[dict[str, Any]]], champion: Ask, challenger: Ask, limits: params.Rollout
) -> Replayed:
    """Ask both, in turns; stop where it is plain that the challenger fails."""
    deadline = time.monotonic() + MOST_SECONDS
    for number, rows in enumerate(requests):
        if number % 2:
            after = challenger(rows)
            before = champion(rows)
        else:
            before = champion(rows)
            after = challenger(rows)
        replayed.add(rows, before, after)
        if replayed.errors > limits.replay_errors or replayed.late:
            replayed.stopped = "it failed"
        elif number + 1 < replayed.asked and _is_surely_slow(replayed, limits):
            replayed.stopped = "it is slow beyond doubt"
        elif replayed.unasked >= SURE and not replayed.requests:
            replayed.stopped = "who serves does not answer itself"
        elif time.monotonic() > deadline:
            replayed.stopped = f"{MOST_SECONDS:g} s are over"
        if replayed.stopped:
            break
    return replayed


def judge(replayed: Replayed, limits: params.Rollout) -> list[Check]:
    """Whether it answers, and as fast as who serves; why."""
    return [
        _runs(replayed),
        _errors(replayed, limits),
        *([_median(replayed, limits), _p99(replayed, limits)] if replayed.requests else []),
    ]


def p99(values: list[float]) -> float:
    """Of so many values that at most one in a hundred is above."""
    return float(np.quantile(values, 0.99, method="higher"))


def slow_beyond(reference: float, limits: params.Rollout) -> float:
    """From how many milliseconds on an answer is slow, beside those that take `reference`."""
    return max(limits.latency_ratio * reference, limits.latency_ms)


def slow_by_chance(slow: int, answers: int, others_slow: int, others: int, share: float) -> float:
    """The probability of so many slow answers, or more, of a release that is not slow.

    It is slow if both are beyond chance: that more than this share of its answers are slow (a binomial test), and that
    more of them are than of who serves, by the same limit (Fisher's exact test): a machine that stands still makes both
    slow, and a p99 of few answers is itself a matter of chance.
    """
    if not slow:
        return 1.0
    from scipy import stats

    table = [[slow, answers - slow], [others_slow, others - others_slow]]
    by_share = stats.binomtest(slow, answers, share, alternative="greater").pvalue
    return max(float(by_share), float(stats.fisher_exact(table, alternative="greater").pvalue))


def _runs(replayed: Replayed) -> Check:
    reason = f"no answer in time: {replayed.first_error}" if replayed.late else "it keeps answering"
    return Check("runs", float(replayed.late), 0.0, not replayed.late, reason)


def _errors(replayed: Replayed, limits: params.Rollout) -> Check:
    errors, most = replayed.errors, limits.replay_errors
    failed = f"; the first: {replayed.first_error}" if errors else ""
    unasked = f"; {replayed.unasked} more that who serves does not answer either" if replayed.unasked else ""
    reason = f"{errors} of {replayed.requests} requests were not answered{failed}{unasked}"
    return Check("errors", float(errors), float(most), errors <= most, reason)


def _median(replayed: Replayed, limits: params.Rollout) -> Check:
    own, reference = statistics.median(replayed.challenger_ms), statistics.median(replayed.champion_ms)
    return _latency("median", 0.5, own, reference, replayed, limits)


def _p99(replayed: Replayed, limits: params.Rollout) -> Check:
    return _latency("p99", 0.01, p99(replayed.challenger_ms), p99(replayed.champion_ms), replayed, limits)


def _latency(
    what: str, share: float, own: float, reference: float, replayed: Replayed, limits: params.Rollout
) -> Check:
    """Whether more than such a share of the answers are slow beside the quantile of who serves."""
    beyond = slow_beyond(reference, limits)
    slow, others = (sum(ms > beyond for ms in side) for side in (replayed.challenger_ms, replayed.champion_ms))
    reason = f"{what} {own:.1f} ms; who serves {reference:.1f} ms; {slow} of {replayed.requests} above {beyond:.0f} ms"
    chance = slow_by_chance(slow, replayed.requests, others, len(replayed.champion_ms), share)
    return Check(f"latency {what}", own, beyond, chance >= CHANCE, reason)


def _is_surely_slow(replayed: Replayed, limits: params.Rollout) -> bool:
    if replayed.requests < SURE:
        return False
    return min(replayed.challenger_ms) > slow_beyond(max(replayed.champion_ms), limits)
