"""Fairness: how far a metric differs between the groups of a column.

The gap of two groups is too large when it exceeds what is allowed beyond doubt: by more than q standard errors, which
come from resampling the same days for both, with q the two-sided quantile of Student's t at (1 − confidence) / pairs
(Bonferroni). So noise between groups that are treated alike refuses in at most 1 − confidence of the cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.ground.words import listed
from tasks.modelling import metrics

if TYPE_CHECKING:
    import pandas as pd

    from tasks.ground import params

Floats = npt.NDArray[np.float64]

WORST = 3
"""Groups that a reason names."""


@dataclass(frozen=True)
class Sample:
    """The rows that are looked at."""

    label: pd.Series[Any] | pd.DataFrame
    predictions: pd.DataFrame
    losses: Floats | None
    """Of the metric `loss`; of others they are not asked for."""
    blocks: npt.NDArray[np.int64]
    """What is resampled as a whole; shape (rows,)."""
    weights: Floats | None


@dataclass(frozen=True)
class Gap:
    """The largest difference of a metric between two groups."""

    value: float | None
    """None where fewer than two groups have enough rows."""
    interval: tuple[float, float] | None
    passed: bool
    reason: str


def gap(asked: params.Fairness, groups: pd.Series[Any], sample: Sample, rule: params.Gate, how: tuple[int, int]) -> Gap:
    """The gap of one metric between the groups of a column; `how` is the number of resamples, and their seed.

    Raises:
        Unscorable: the metric is of two classes, and the predictions are not.
    """
    part, whole = _parts(asked.metric, sample)
    counted = groups if sample.weights is None else groups[sample.weights > 0]
    counts = counted.value_counts().reindex(groups.unique(), fill_value=0)
    large = sorted(counts.index[counts >= rule.slice_min_rows])
    small = sorted(set(counts.index) - set(large))
    left_out = (
        f"; not judged, as it has fewer than {rule.slice_min_rows:,} rows: {listed(small, WORST)}" if small else ""
    )
    drawn = {}
    for name in large:
        own = (groups == name).to_numpy(dtype=bool)
        if (whole * own).sum() > 0:  # of a group in which nothing is positive there is no recall
            drawn[name] = metrics.ratios(part * own, whole * own, sample.blocks, *how, sample.weights)
    if len(drawn) < 2:
        return Gap(None, None, True, f"no two groups of {asked.column} can be compared in {asked.metric}{left_out}")
    by_value = sorted(drawn, key=lambda name: (-drawn[name][0], name))
    pairs = [_Pair(a, b, *_difference(drawn, a, b, sample, rule)) for a, b in combinations(by_value, 2)]
    worst, surest = max(pairs, key=lambda pair: pair.value), max(pairs, key=lambda pair: pair.value - pair.error)
    shown = surest if surest.value - surest.error > asked.at_most else worst
    of = ", ".join(f"{name} {drawn[name][0]:.4g}" for name in (shown.high, shown.low))
    within = f"{asked.at_most:g} is allowed" + (
        "" if shown.value <= asked.at_most else f" and {shown.error:.3g} for doubt"
    )
    passed = surest.value - surest.error <= asked.at_most
    interval = (shown.value - shown.error, shown.value + shown.error) if np.isfinite(shown.error) else None
    reason = f"{asked.metric} differs by {shown.value:.4g} ({of}), {within}{left_out}"
    return Gap(shown.value, interval, passed, reason)


@dataclass(frozen=True)
class _Pair:
    high: str
    low: str
    value: float
    error: float


def _difference(drawn: dict[str, Floats], a: str, b: str, sample: Sample, rule: params.Gate) -> tuple[float, float]:
    """The difference of two groups, and what is allowed for doubt."""
    from scipy.special import stdtrit

    differences = drawn[a] - drawn[b]
    resampled = differences[1:][np.isfinite(differences[1:])]
    pairs = len(drawn) * (len(drawn) - 1) // 2
    freedom = max(len(np.unique(sample.blocks)) - 1, 1)
    quantile = float(stdtrit(freedom, 1 - (1 - rule.confidence) / pairs / 2))
    error = quantile * float(resampled.std(ddof=1)) if len(resampled) > 1 else float("inf")
    return float(differences[0]), error


def _parts(metric: str, sample: Sample) -> tuple[Floats, Floats]:
    """A metric as a ratio of sums over rows."""
    every = np.ones(len(sample.label))
    if sample.losses is not None:
        return sample.losses, every
    if "anomaly_score" in sample.predictions:  # what an alert is raised on is selected
        return sample.predictions["prediction"].to_numpy(dtype=np.float64), every
    if metric == "accuracy":
        return 1 - metrics.losses("zero_one", sample.label, sample.predictions), every
    positive, taken = metrics.positives(sample.label, sample.predictions)
    return {
        "selection_rate": (taken, every),
        "recall": (taken * positive, positive),
        "precision": (taken * positive, taken),
        "false_positive_rate": (taken * (1 - positive), 1 - positive),
    }[metric]
