"""A canary and who serves, side by side: what the router has counted of both, and whether the canary stands.

Each look is another chance of a false alarm. So what is left to chance is asked by a test, whose probability of a false
alarm is `FALSE_ALARM` over all looks together (Bonferroni); a limit from params.yaml must be passed as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks import params
from tasks.release.asking import CALL_SECONDS, fault
from tasks.release.replay import slow_beyond, slow_by_chance
from tasks.release.verdict import Check

LOOK_S = 0.5
"""Seconds between two looks."""

FALSE_ALARM = 0.01
"""The probability that a canary which is as good as who serves is withdrawn, by any one of the three tests."""

MOST_DEATHS = 2
"""Of its processes: one may be killed by somebody, and another one. The router gives a request up after three."""

FEWEST = 5.0
"""Predictions that the smaller side is to have in each bin, if both were alike: the rule of thumb for a χ² test."""

Counts = npt.NDArray[np.float64]


@dataclass
class Counted:
    """What one release has done since the watch began. A router that was started anew counts from 0 again."""

    answered: int = 0
    refused: int = 0
    errors: int = 0
    latency_edges: list[float] = field(default_factory=list)
    latency: Counts = field(default_factory=lambda: np.zeros(0))
    prediction_edges: list[float] = field(default_factory=list)
    predictions: Counts = field(default_factory=lambda: np.zeros(0))
    fault: str | None = None
    """Why it does not run any more."""
    deaths: int = 0
    """Processes of it that came in the place of others."""
    waiting: int = 0
    """Requests that it was asked and has not answered yet."""
    _seen: dict[str, Any] = field(default_factory=dict)
    _pids: set[int] = field(default_factory=set)

    @property
    def is_owing(self) -> bool:
        """Whether it was asked and has answered nothing at all."""
        return self.waiting > 0 and not self.requests

    @property
    def requests(self) -> int:
        """All that it was asked."""
        return self.answered + self.refused + self.errors

    def look(self, said: dict[str, Any], router: int) -> None:
        """Take in what `GET /status` says of the release; the first time, as where to count from."""
        begin = not self._seen
        latency, predictions = said["latency"], said["predictions"]
        now = {
            **{name: np.array([said[name]], dtype=np.float64) for name in ("answered", "refused", "errors")},
            "latency": np.array(latency["counts"], dtype=np.float64),
            "predictions": np.array(predictions["counts"], dtype=np.float64),
        }
        since = self._seen if self._seen.get("router") == router else {}
        new = {name: value - _like(since.get(name), value) if not begin else value * 0 for name, value in now.items()}
        self._seen = {**now, "router": router}
        self.answered += int(new["answered"].sum())
        self.refused += int(new["refused"].sum())
        self.errors += int(new["errors"].sum())
        self.latency = _like(self.latency, new["latency"]) + new["latency"]
        self.predictions = _like(self.predictions, new["predictions"]) + new["predictions"]
        self.latency_edges, self.prediction_edges = latency["edges_ms"], predictions["edges"]
        self.fault, self.waiting = fault(said), said.get("waiting", 0)
        pids = set(said["pids"])
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


@dataclass
class Watch:
    """Both sides, and how often they are looked at in all."""

    canary: Counted = field(default_factory=Counted)
    live: Counted = field(default_factory=Counted)
    seconds: float = 0.0

    def judge(self, limits: params.Rollout) -> list[Check]:
        """Whether it stands until now, and why. What there is too little traffic for is passed, and said to be."""
        alpha = FALSE_ALARM / max(1, round(limits.bake_s / LOOK_S))
        return [
            self._runs(limits),
            self._errors(limits),
            self._refused(alpha),
            self._latency(limits, alpha),
            self._drift(limits, alpha),
        ]

    def _runs(self, limits: params.Rollout) -> Check:
        """One that dies over its requests, or keeps them waiting, has answered none that could be counted."""
        canary = self.canary
        why = canary.fault
        if canary.deaths > MOST_DEATHS:
            why = f"{canary.deaths} of its processes died"
        elif canary.is_owing and self.seconds > limits.bake_s + CALL_SECONDS:
            why = f"it has answered none of {canary.waiting} requests in {self.seconds:.0f} s"
        return Check("runs", float(canary.deaths), float(MOST_DEATHS), why is None, why or "it keeps running")

    def _errors(self, limits: params.Rollout) -> Check:
        errors, most = self.canary.errors, limits.canary_errors
        reason = f"{errors} of {self.canary.requests} requests ended in an error"
        return Check("errors", float(errors), float(most), errors <= most, reason)

    def _refused(self, alpha: float) -> Check:
        """Whether it refuses more of what clients send than who serves does: Fisher's exact test."""
        one, other = self.canary, self.live
        reason = f"{one.refused} of {one.requests} requests refused; who serves {other.refused} of {other.requests}"
        if not one.refused or not other.requests:
            return Check("refused", float(one.refused), None, passed=True, reason=reason)
        from scipy import stats

        table = [[one.refused, one.requests - one.refused], [other.refused, other.requests - other.refused]]
        p = float(stats.fisher_exact(table, alternative="greater").pvalue)
        return Check("refused", float(one.refused), None, p >= alpha, f"{reason} (p = {p:.2g})")

    def _latency(self, limits: params.Rollout, alpha: float) -> Check:
        """Whether more than one in a hundred answers are slow, beside the p99 of who serves: a binomial test."""
        reference, own = self.live.quantile_ms(0.99), self.canary.quantile_ms(0.99)
        answers = int(self.canary.latency.sum())
        if reference is None or own is None or self.live.latency.sum() < limits.min_requests:
            reason = f"not judged: {answers} answers, who serves {int(self.live.latency.sum())}"
            return Check("latency p99", own, None, passed=True, reason=reason)
        beyond = slow_beyond(reference, limits)
        slow = self.canary.slower_than(beyond)
        p = slow_by_chance(slow, answers)
        reason = f"p99 {own:.1f} ms; who serves {reference:.1f} ms; {slow} of {answers} answers above {beyond:.0f} ms"
        return Check("latency p99", own, beyond, p >= alpha, reason)

    def _drift(self, limits: params.Rollout, alpha: float) -> Check:
        """Whether it predicts otherwise than who serves: the population stability index.

        Of n and m predictions of the same distribution in b bins, PSI / (1/n + 1/m) is about χ² with b − 1 degrees of
        freedom (B. Yurdakul, J. Naranjo: Statistical properties of the population stability index, Journal of Risk
        Model Validation 14 (4), 2020), so 50 predictions in 20 bins give 0.4 by chance alone.
        """
        one, other = self.canary.predictions, self.live.predictions
        n, m = float(one.sum()), float(other.sum())
        if min(n, m) < limits.min_requests or not (self.canary.prediction_edges and self.live.prediction_edges):
            reason = f"not judged: {n:.0f} predictions, who serves {m:.0f}; from {limits.min_requests} of each on"
            return Check("drift", None, limits.drift, passed=True, reason=reason)
        from scipy import stats

        one, other = _merged(_rebinned(one, self.canary.prediction_edges, self.live.prediction_edges), other)
        if len(one) < 2:
            return Check("drift", 0.0, limits.drift, passed=True, reason=f"{n:.0f} predictions, all in one bin")
        psi = _psi(one, other)
        by_chance = (1 / n + 1 / m) * float(stats.chi2.isf(alpha, len(one) - 1))
        beyond = max(limits.drift, by_chance)
        reason = f"PSI {psi:.3f} of {n:.0f} predictions beside {m:.0f} in {len(one)} bins; at most {beyond:.3f}"
        return Check("drift", psi, beyond, psi <= beyond, reason)


def _like(counts: Counts | None, other: Counts) -> Counts:
    """Counts, or none where there are none of this kind yet."""
    return counts if counts is not None and len(counts) == len(other) else np.zeros(len(other))


def _psi(one: Counts, other: Counts) -> float:
    """The population stability index: Σ (p − q) ln(p / q). Half a prediction is added to each bin: none is empty."""
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (one, other))
    return float(np.sum((p - q) * np.log(p / q)))


def _merged(one: Counts, other: Counts) -> tuple[Counts, Counts]:
    """Neighbouring bins put together until each would hold FEWEST of the smaller side, if both were alike."""
    enough = FEWEST * (one.sum() + other.sum()) / min(one.sum(), other.sum())
    ones, others, at = [0.0], [0.0], 0
    for a, b in zip(one, other, strict=True):
        if ones[at] + others[at] >= enough:
            ones, others, at = [*ones, 0.0], [*others, 0.0], at + 1
        ones[at] += a
        others[at] += b
    if at and ones[at] + others[at] < enough:
        last = ones.pop(), others.pop()
        ones[-1] += last[0]
        others[-1] += last[1]
    return np.array(ones), np.array(others)


def _rebinned(counts: Counts, edges: list[float], to: list[float]) -> Counts:
    """Counts between other edges, as if within each bin all values were alike likely. Equal edges change nothing.

    The edges of a probability are the same in every release, those of a value come from its evaluation. The outer
    bins, which have no end, are taken to be as wide as all the others together.
    """
    if edges == to:
        return counts
    width = edges[-1] - edges[0] or 1.0
    ends = np.array([edges[0] - width, *edges, edges[-1] + width])
    below = np.interp(to, ends, np.concatenate([[0.0], np.cumsum(counts)]))
    return np.diff(np.concatenate([[0.0], below, [counts.sum()]]))
