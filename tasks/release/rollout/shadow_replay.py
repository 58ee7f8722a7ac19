"""Shadow replay: logged requests asked again of a release and of the live one; errors, latency, moved answers.

Both are asked one request after the other, in turns, on the same machine at the same time: so a machine that is busy
makes both slow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tasks.ground import params
from tasks.release.gate.verdict import Check
from tasks.release.rollout.paired_answers import Pairs
from tasks.release.rollout.router_client import Reply
from tasks.release.rollout.router_status import LATE

Rows = list[dict[str, Any]]
Ask = Callable[[Rows], Reply]

SURE_REQUESTS = 8
"""So many requests are enough, if the fastest answer of the release is slower than the slowest of the live release: by
chance alone that happens once in 12,870 times, and never beyond a ratio and a limit."""

MOST_SECONDS = 60.0
"""A replay takes no longer: what was replayed until then is judged."""

FALSE_ALARM = 0.005
"""The probability that a release which is as good as the live one alarms, by either of two tests."""

QUANTILES = {"median": 0.5, "p99": 0.99}


class Latencies(Protocol):
    """How long the answers of a release took."""

    @property
    def answers(self) -> int:
        """Of how many answers that is known."""

    def quantile_ms(self, share: float) -> float | None:
        """The latency that such a share of them stays below; None without any."""

    def slower_than(self, ms: float) -> int:
        """How many certainly took longer."""


class Timings(list[float]):
    """Milliseconds of each answer, as `Latencies`."""

    @property
    def answers(self) -> int:  # noqa: D102
        return len(self)

    def quantile_ms(self, share: float) -> float | None:  # noqa: D102
        return float(np.quantile(self, share, method="higher" if share > 0.5 else "linear")) if self else None

    def slower_than(self, ms: float) -> int:  # noqa: D102
        return sum(each > ms for each in self)


@dataclass(kw_only=True)
class Replayed(Pairs):
    """Result of a replay."""

    planned: int
    """Requests that were to be replayed."""
    live_ms: Timings = field(default_factory=Timings)
    candidate_ms: Timings = field(default_factory=Timings)
    errors: int = 0
    """Requests that the live release answers and this one does not."""
    first_error: str = ""
    late: int = 0
    """Requests that it gave no answer to, or none in time."""
    skipped: int = 0
    """Requests that the live release does not answer either."""
    stopped: str = ""
    """Why not all were replayed."""

    @property
    def requests(self) -> int:
        """How many requests were asked of both."""
        return len(self.candidate_ms)

    def add(self, rows: Rows, live: Reply, candidate: Reply) -> None:
        """One request that was asked of both."""
        if live.status != 200:
            self.skipped += 1
            return
        self.live_ms.append(live.ms)
        self.candidate_ms.append(candidate.ms)
        if candidate.status == 200:
            self.add_pairs(rows, live.body["predictions"], candidate.body["predictions"])
            return
        self.late += candidate.status in LATE
        self.errors += candidate.status not in LATE
        self.first_error = self.first_error or candidate.problem


def replay(
    replayed: Replayed, requests: Iterable[Rows], ask_live: Ask, ask_candidate: Ask, limits: params.Rollout
) -> None:
    """Ask both, in turns; stop where it is plain that the release fails."""
    deadline = time.monotonic() + MOST_SECONDS
    for number, rows in enumerate(requests):
        if number % 2:
            after = ask_candidate(rows)
            before = ask_live(rows)
        else:
            before = ask_live(rows)
            after = ask_candidate(rows)
        replayed.add(rows, before, after)
        is_last = number + 1 >= replayed.planned
        replayed.stopped = _stop_reason(replayed, limits, is_last=is_last, is_late=time.monotonic() > deadline)
        if replayed.stopped:
            break


def _stop_reason(replayed: Replayed, limits: params.Rollout, *, is_last: bool, is_late: bool) -> str:
    if replayed.errors > limits.replay_errors or replayed.late:
        return "it failed"
    is_sure = not is_last and replayed.requests >= SURE_REQUESTS
    if is_sure and min(replayed.candidate_ms) > _slow_beyond(max(replayed.live_ms), limits):
        return "it is slow beyond doubt"
    if replayed.skipped >= SURE_REQUESTS and not replayed.requests:
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
        own, live = replayed.candidate_ms, replayed.live_ms
        checks += [latency_check(name, own, live, limits, FALSE_ALARM) for name in QUANTILES]
    return checks


def latency_check(
    name: str, own: Latencies, live: Latencies, limits: params.Rollout, alpha: float, fewest: int = 1
) -> Check:
    """Whether more answers than chance would have are slow beside a quantile of the live release.

    `alpha` is the probability of a false alarm. With fewer answers of the live release than `fewest` nothing is judged.
    """
    share = QUANTILES[name]
    ms, reference = own.quantile_ms(share), live.quantile_ms(share)
    if ms is None or reference is None or live.answers < fewest:
        reason = f"not judged: {own.answers} answers, live release {live.answers}"
        return Check(f"latency {name}", ms, None, passed=True, reason=reason)
    beyond = _slow_beyond(reference, limits)
    slow = own.slower_than(beyond)
    both = f"{name} {ms:.1f} ms; live release {reference:.1f} ms"
    reason = f"{both}; {slow} of {own.answers} answers above {beyond:.0f} ms"
    chance = _slow_by_chance(slow, own.answers, live.slower_than(beyond), live.answers, 1 - share)
    return Check(f"latency {name}", ms, beyond, chance >= alpha, reason)


def _slow_beyond(reference: float, limits: params.Rollout) -> float:
    """From how many milliseconds on an answer is slow, beside those that take `reference`."""
    return max(limits.latency_ratio * reference, limits.latency_ms)


def _slow_by_chance(slow: int, answers: int, others_slow: int, others: int, share: float) -> float:
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
