"""Shadow replay: logged requests asked again of a challenger and of the live release; errors, latency, moved answers.

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
"""So many requests are enough, if the challenger's fastest answer is slower than the slowest of the live release: by
chance alone that happens once in 12,870 times, and never beyond a ratio and a limit."""

MOST_SECONDS = 60.0
"""A replay takes no longer: what was replayed until then is judged."""

CHANCE = 0.005
"""The probability that a challenger which is as fast as the live release is taken for slow, by one of two tests."""


@dataclass(kw_only=True)
class Replayed(Pairs):
    """Result of a replay."""

    planned: int
    """Requests that were to be replayed."""
    champion_ms: list[float] = field(default_factory=list)
    challenger_ms: list[float] = field(default_factory=list)
    errors: int = 0
    """Requests that the champion answers and the challenger does not."""
    first_error: str = ""
    late: int = 0
    """Requests that the challenger gave no answer to, or none in time."""
    skipped: int = 0
    """Requests that the champion does not answer either."""
    stopped: str = ""
    """Why not all were replayed."""

    @property
    def requests(self) -> int:
        """How many requests were asked of both."""
        return len(self.challenger_ms)

    def add(self, rows: list[dict[str, Any]], champion: Reply, challenger: Reply) -> None:
        """One request that was asked of both."""
        if champion.status != 200:
            self.skipped += 1
            return
        self.champion_ms.append(champion.ms)
        self.challenger_ms.append(challenger.ms)
        if challenger.status == 200:
            self.add_pairs(rows, champion.body["predictions"], challenger.body["predictions"])
            return
        self.late += challenger.status in LATE
        self.errors += challenger.status not in LATE
        self.first_error = self.first_error or challenger.problem


def replay(
    replayed: Replayed, requests: Iterable[list[dict[str, Any]]], champion: Ask, challenger: Ask, limits: params.Rollout
) -> None:
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
        is_last = number + 1 >= replayed.planned
        if stopped := _stop_reason(replayed, limits, is_last=is_last, is_late=time.monotonic() > deadline):
            replayed.stopped = stopped
            break


def _stop_reason(replayed: Replayed, limits: params.Rollout, *, is_last: bool, is_late: bool) -> str:
    if replayed.errors > limits.replay_errors or replayed.late:
        return "it failed"
    is_sure = not is_last and replayed.requests >= SURE
    if is_sure and min(replayed.challenger_ms) > slow_beyond(max(replayed.champion_ms), limits):
        return "it is slow beyond doubt"
    if replayed.skipped >= SURE and not replayed.requests:
        return "the live release does not answer itself"
    return f"{MOST_SECONDS:g} s are over" if is_late else ""


def judge(replayed: Replayed, limits: params.Rollout) -> list[Check]:
    """Whether it answers, and as fast as the live release; why."""
    late, errors, most = replayed.late, replayed.errors, limits.replay_errors
    runs = f"no answer in time: {replayed.first_error}" if late else "it keeps answering"
    answered = f"{errors} of {replayed.requests} requests were not answered"
    answered += f"; the first: {replayed.first_error}" if errors else ""
    answered += f"; {replayed.skipped} more that the live release does not answer either" if replayed.skipped else ""
    checks = [
        Check("runs", float(late), 0.0, not late, runs),
        Check("errors", float(errors), float(most), errors <= most, answered),
    ]
    if replayed.requests:
        checks += [_latency(replayed, limits, "median", statistics.median, 0.5), _latency(replayed, limits, "p99", p99)]
    return checks


def p99(values: list[float]) -> float:
    """Of so many values that at most one in a hundred is above."""
    return float(np.quantile(values, 0.99, method="higher"))


def slow_beyond(reference: float, limits: params.Rollout) -> float:
    """From how many milliseconds on an answer is slow, beside those that take `reference`."""
    return max(limits.latency_ratio * reference, limits.latency_ms)


def slow_by_chance(slow: int, answers: int, others_slow: int, others: int, share: float) -> float:
    """The probability of so many slow answers, or more, of a release that is not slow.

    It is slow if both are beyond chance: that more than this share of its answers are slow (a binomial test), and that
    more of them are than of the live release, by the same limit (Fisher's exact test): a machine that stands still
    makes both slow, and a p99 of few answers is itself a matter of chance.
    """
    if not slow:
        return 1.0
    from scipy import stats

    table = [[slow, answers - slow], [others_slow, others - others_slow]]
    by_share = stats.binomtest(slow, answers, share, alternative="greater").pvalue
    return max(float(by_share), float(stats.fisher_exact(table, alternative="greater").pvalue))


def _latency(
    replayed: Replayed,
    limits: params.Rollout,
    name: str,
    quantile: Callable[[list[float]], float],
    share: float = 0.01,
) -> Check:
    """Whether more than such a share of the answers are slow beside the quantile of the live release."""
    own, reference = quantile(replayed.challenger_ms), quantile(replayed.champion_ms)
    beyond = slow_beyond(reference, limits)
    slow, others = (sum(ms > beyond for ms in side) for side in (replayed.challenger_ms, replayed.champion_ms))
    both = f"{name} {own:.1f} ms; live release {reference:.1f} ms"
    reason = f"{both}; {slow} of {replayed.requests} above {beyond:.0f} ms"
    chance = slow_by_chance(slow, replayed.requests, others, len(replayed.champion_ms), share)
    return Check(f"latency {name}", own, beyond, chance >= CHANCE, reason)
