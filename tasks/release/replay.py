"""What production has asked, asked again of a challenger and of who serves: errors, latency, how far answers move.

Both are asked one request after the other, in turns, on the same machine at the same time: so a machine that is busy
makes both slow.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks import params
from tasks.release.asking import Reply
from tasks.release.verdict import Check

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float64]
Ask = Callable[[list[dict[str, Any]]], Reply]

SURE = 5
"""So many requests, of which the challenger's fastest answer is slower than the slowest of who serves, are enough:
by chance alone that happens once in 252 times, and never beyond a ratio and a limit."""

MOST_SECONDS = 60.0
"""A replay takes no longer: what was replayed until then is judged."""

CHANCE = 0.01
"""The probability that a challenger which is as fast as who serves is taken for slow."""

QUANTILES = 4
"""Ranges into which the values of a numeric feature are cut."""

FEWEST = 20
"""Rows that a slice must have, to be told of."""


@dataclass(frozen=True)
class Slice:
    """The rows in which one feature has one value, or lies in one range."""

    feature: str
    value: str
    rows: int
    moved: float
    """Mean absolute difference, as `Replayed.moved`."""
    shift: float
    """Mean difference, challenger − champion, in the same unit."""


@dataclass
class Replayed:
    """What came of it. The arrays have one value per row that both answered."""

    source: str
    """Where the requests come from: `log` or `golden`."""
    asked: int
    task: str
    features: dict[str, Any] = field(default_factory=dict)
    """Feature → {type: …}, of the challenger."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    champion: list[float] = field(default_factory=list)
    """The probability (two classes), that of the champion's top class (more), or the value (regression)."""
    challenger: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    champion_ms: list[float] = field(default_factory=list)
    challenger_ms: list[float] = field(default_factory=list)
    errors: int = 0
    """Requests that the champion answers and the challenger does not."""
    first_error: str = ""
    unasked: int = 0
    """Requests that the champion does not answer either."""
    stopped: str = ""
    """Why not all were replayed."""

    @property
    def requests(self) -> int:
        """How many requests both were asked."""
        return len(self.challenger_ms)

    @property
    def scale(self) -> float:
        """What differences are told in: 1 for probabilities; the mean absolute prediction for values."""
        mean = float(np.mean(np.abs(self.champion))) if self.champion and self.task == "regression" else 1.0
        return mean or 1.0

    @property
    def moved(self) -> float | None:
        """The mean absolute difference. Of several classes: half the sum over them, which for two is the same."""
        return float(np.mean(self.distances)) / self.scale if self.distances else None

    def add(self, rows: list[dict[str, Any]], champion: Reply, challenger: Reply) -> None:
        """One request that was asked of both."""
        if champion.status != 200:
            self.unasked += 1
            return
        self.champion_ms.append(champion.ms)
        self.challenger_ms.append(challenger.ms)
        if challenger.status != 200:
            self.errors += 1
            self.first_error = self.first_error or challenger.said
            return
        for row, old, new in zip(rows, champion.body["predictions"], challenger.body["predictions"], strict=True):
            was, is_now, far = _compared(old, new)
            self.rows.append(row)
            self.champion.append(was)
            self.challenger.append(is_now)
            self.distances.append(far)

    def slices(self) -> list[Slice]:
        """Every slice with enough rows; where answers move most comes first."""
        if not self.rows:
            return []
        import pandas as pd

        frame = pd.DataFrame(self.rows, columns=list(self.features))
        far = np.array(self.distances) / self.scale
        shift = (np.array(self.challenger) - np.array(self.champion)) / self.scale
        found = []
        for feature, said in self.features.items():
            for value, where in _parts(frame[feature], said["type"]):
                if (count := int(where.sum())) >= FEWEST:
                    found.append(Slice(feature, value, count, float(far[where].mean()), float(shift[where].mean())))
        return sorted(found, key=lambda one: (-one.moved, one.feature, one.value))


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
        if replayed.errors > limits.replay_errors:
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
    """Whether it stands, and why."""
    count, moved = replayed.requests, replayed.moved
    failed = f"; the first: {replayed.first_error}" if replayed.errors else ""
    unasked = f"; {replayed.unasked} more that who serves does not answer either" if replayed.unasked else ""
    checks = [
        Check(
            "errors",
            float(replayed.errors),
            float(limits.replay_errors),
            replayed.errors <= limits.replay_errors,
            f"{replayed.errors} of {count} requests were not answered{failed}{unasked}",
        )
    ]
    if count:
        checks += [_median(replayed, limits), _p99(replayed, limits)]
    if moved is not None:
        what = "of the mean prediction" if replayed.task == "regression" else "of probability"
        reason = f"answers move by {moved:.4f} {what} on average, over {len(replayed.rows):,} rows"
        checks.append(Check("moved", moved, limits.moved, moved <= limits.moved, reason))
    return checks


def p99(values: list[float]) -> float:
    """Of so many values that at most one in a hundred is above."""
    return float(np.quantile(values, 0.99, method="higher"))


def slow_beyond(reference: float, limits: params.Rollout) -> float:
    """From how many milliseconds on an answer is slow, beside those that take `reference`."""
    return max(limits.latency_ratio * reference, limits.latency_ms)


def _median(replayed: Replayed, limits: params.Rollout) -> Check:
    own, reference = statistics.median(replayed.challenger_ms), statistics.median(replayed.champion_ms)
    beyond = slow_beyond(reference, limits)
    reason = f"median {own:.1f} ms; who serves {reference:.1f} ms; at most {beyond:.0f} ms"
    return Check("latency median", own, beyond, own <= beyond, reason)


def _p99(replayed: Replayed, limits: params.Rollout) -> Check:
    """Whether more than one in a hundred answers are slow beside the p99 of who serves: a binomial test."""
    own, reference = p99(replayed.challenger_ms), p99(replayed.champion_ms)
    beyond = slow_beyond(reference, limits)
    slow = sum(ms > beyond for ms in replayed.challenger_ms)
    reason = f"p99 {own:.1f} ms; who serves {reference:.1f} ms; {slow} of {replayed.requests} above {beyond:.0f} ms"
    return Check("latency p99", own, beyond, not slow or slow_by_chance(slow, replayed.requests) >= CHANCE, reason)


def slow_by_chance(slow: int, answers: int) -> float:
    """The probability of so many slow answers, or more, where one in a hundred is slow."""
    from scipy import stats

    return float(stats.binomtest(slow, answers, 0.01, alternative="greater").pvalue)


def _is_surely_slow(replayed: Replayed, limits: params.Rollout) -> bool:
    if replayed.requests < SURE:
        return False
    return min(replayed.challenger_ms) > slow_beyond(max(replayed.champion_ms), limits)


def _compared(old: dict[str, Any], new: dict[str, Any]) -> tuple[float, float, float]:
    """The champion's number, the challenger's, and how far apart the answers are."""
    if "probabilities" not in old:
        was, is_now = float(old["prediction"]), float(new["prediction"])
        return was, is_now, abs(is_now - was)
    before, after = old["probabilities"], new["probabilities"]
    far = sum(abs(after.get(c, 0.0) - before.get(c, 0.0)) for c in before.keys() | after.keys()) / 2
    if "probability" in old and "probability" in new:
        return old["probability"], new["probability"], far
    top = max(before, key=lambda one: before[one])
    return before[top], after.get(top, 0.0), far


def _parts(column: pd.Series[Any], kind: str) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """A feature's values, or ranges of them with about as many rows each; and which rows are in."""
    missing = column.isna().to_numpy(dtype=bool)
    parts = [("missing", missing)]
    if kind == "category":
        return parts + [(str(value), (column == value).to_numpy(dtype=bool)) for value in column.dropna().unique()]
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    there = values[~missing]
    if not there.size:
        return parts
    edges = np.unique(np.quantile(there, np.arange(1, QUANTILES) / QUANTILES, method="higher"))
    bins = np.searchsorted(edges, values, side="right")
    for number in range(len(edges) + 1):
        where = ~missing & (bins == number)
        if where.any():
            parts.append((_range(values[where]), where))
    return parts


def _range(values: Vector) -> str:
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"
