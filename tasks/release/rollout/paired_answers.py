"""Paired answers: how far a release's lie from the live release's on the same rows, beside what the gate knew.

A better release is meant to move answers, and some rows more than others: whether that alarms must not depend on which
rows happen to be asked. So no mean is compared: counted is which rows move further than any of the holdout's did, when
the gate promoted the one over the other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.ground import params
from tasks.ground.task_kinds import KINDS
from tasks.release.gate.verdict import Check, Moves

if TYPE_CHECKING:
    import pandas as pd

SLICED = ("category", "boolean", "integer", "number")
"""Types of features by which rows are sliced."""

QUANTILES = 4
"""Ranges into which the values of a numeric feature are cut."""

FEWEST = 20
"""Rows that a slice must have, to be reported."""

ROUNDING = 1e-9
"""A verdict keeps nine digits of how far answers move."""


@dataclass(frozen=True)
class MovedSlice:
    """The rows in which one feature has one value, or lies in one range."""

    feature: str
    value: str
    rows: int
    moved: float
    """Mean absolute difference, as `Pairs.moved`."""
    shift: float
    """Mean difference, its answers − those of the live release, in the same unit."""


@dataclass
class Pairs:
    """What both answered to the same rows. The lists have one value per row."""

    task: str
    features: dict[str, Any] = field(default_factory=dict)
    """Feature → {type: …}, of the release that is tried."""
    tolerance: float = ROUNDING
    """How far the answer to one row may be off each time, relative to values above 1."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Those of the release that is tried, whole."""
    live: list[float] = field(default_factory=list)
    """The probability (two classes), that of the live release's top class (more), or the value (regression)."""
    candidate: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    """As `tasks.release.gate.verdict.Moves` has them."""

    def add_pairs(self, rows: list[dict[str, Any]], before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
        """Add a request that both answered."""
        for row, old, new in zip(rows, before, after, strict=True):
            live, candidate, distance = _compared(old, new)
            self.rows.append(row)
            self.answers.append(new)
            self.live.append(live)
            self.candidate.append(candidate)
            self.distances.append(distance)

    @property
    def scale(self) -> float:
        """The unit of differences: 1 for probabilities; the mean absolute prediction, or score, for values."""
        mean = float(np.mean(np.abs(self.live))) if self.live and self.task != "classification" else 1.0
        return mean or 1.0

    @property
    def moved(self) -> float | None:
        """The mean absolute difference. Of several classes: half the sum over them, which for two is the same."""
        return float(np.mean(self.distances)) / self.scale if self.distances else None

    def check(self, expected: Moves | None, limits: params.Rollout, alpha: float) -> Check:
        """Whether answers move as was to be expected."""
        if expected is None:
            return self._check_unexpected(limits)
        distinct = {json.dumps(row, sort_keys=True): far for row, far in zip(self.rows, self.distances, strict=True)}
        if (rows := len(distinct)) < limits.min_requests:
            few = f"not judged: {rows} different rows, from {limits.min_requests} on"
            return Check("moves", None, limits.unexpected, passed=True, reason=few)
        far = np.array(list(distinct.values()))
        beyond = int((far > expected.most + max(ROUNDING, self.tolerance) * max(1.0, expected.most)).sum())
        share = beyond / rows
        passed = share <= limits.unexpected or exceed_by_chance(beyond, rows, expected.rows) >= alpha
        reason = (
            f"{beyond} of {rows:,} different rows move further than any of the {expected.rows:,} that the gate saw "
            f"({expected.most:.4g}); on average they move by {far.mean():.4g}, expected {expected.mean:.4g}"
        )
        return Check("moves", share, limits.unexpected, passed, reason)

    def _check_unexpected(self, limits: params.Rollout) -> Check:
        """Without a verdict about these two, as when a person set the alias, they are to answer much the same."""
        moved = self.moved or 0.0
        what = "of probability" if self.task == "classification" else f"of the mean {number_of(self.task)}"
        reason = f"answers move by {moved:.4f} {what} on average, over {len(self.rows):,} rows"
        if moved > limits.moved:
            reason += ", and no verdict of the gate has promoted the one over the other (rollout.moved)"
        return Check("moves", moved, limits.moved, moved <= limits.moved, reason)

    def slices(self) -> list[MovedSlice]:
        """Every slice with enough rows; where answers move most comes first."""
        if not self.rows:
            return []
        import pandas as pd

        features = pd.DataFrame(self.rows, columns=list(self.features))
        shift = np.array(self.candidate) - np.array(self.live)
        moves = pd.DataFrame({"far": self.distances, "shift": shift}) / self.scale
        slices = [
            MovedSlice(name, str(value), len(rows), float(rows["far"].mean()), float(rows["shift"].mean()))
            for name, feature in self.features.items()
            if feature["type"] in SLICED
            for value, rows in moves.groupby(_values(features[name], feature["type"]))
            if len(rows) >= FEWEST
        ]
        return sorted(slices, key=lambda part: (-part.moved, part.feature, part.value))


def number_of(task: str) -> str:
    """What is compared of two answers."""
    return KINDS[task].number


def exceed_by_chance(beyond: int, rows: int, reference: int) -> float:
    """The probability that so many of some rows, or more, lie above all reference rows, if all were drawn alike.

    Then each of the rows + reference values is equally likely to be among the largest (S. Rosenbaum: Tables for a
    nonparametric test of location, Annals of Mathematical Statistics 25 (1), 1954): no distribution is assumed.
    """
    largest = np.arange(beyond)
    return float(np.prod((rows - largest) / (rows + reference - largest)))


def _compared(old: dict[str, Any], new: dict[str, Any]) -> tuple[float, float, float]:
    """The live release's number, the other's, and how far apart the answers are; of several labels the means."""
    if isinstance(old.get("prediction"), dict):
        each = [_compared(_of_output(old, output), _of_output(new, output)) for output in old["prediction"]]
        before, after, distance = np.mean(each, axis=0).tolist()
        return before, after, distance
    if "probabilities" not in old:
        name = "score" if "score" in old and "score" in new else "prediction"
        before, after = float(old[name]), float(new[name])
        return before, after, abs(after - before)
    olds, news = old["probabilities"], new["probabilities"]
    distance = sum(abs(news.get(label, 0.0) - olds.get(label, 0.0)) for label in olds.keys() | news.keys()) / 2
    if "probability" in old and "probability" in new:
        return old["probability"], new["probability"], distance
    top = max(olds, key=lambda label: olds[label])
    return olds[top], news.get(top, 0.0), distance


def _of_output(answer: dict[str, Any], output: str) -> dict[str, Any]:
    """The answer to one of several labels."""
    return {name: of[output] for name, of in answer.items() if isinstance(of, dict)}


def _values(column: pd.Series[Any], kind: str) -> list[str]:
    """Of each row the feature's value; of a number the range it lies in, each with about as many rows."""
    missing = column.isna().to_numpy(dtype=bool)
    if kind in ("category", "boolean") or missing.all():
        return ["missing" if is_missing else str(value) for value, is_missing in zip(column, missing, strict=True)]
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    edges = np.unique(np.quantile(numbers[~missing], np.arange(1, QUANTILES) / QUANTILES, method="higher"))
    bins = np.where(missing, -1, np.searchsorted(edges, numbers, side="right"))
    names = {-1: "missing"}
    for number in np.unique(bins[~missing]):
        low, high = (f"{value:.4g}" for value in (numbers[bins == number].min(), numbers[bins == number].max()))
        names[number] = low if low == high else f"{low} to {high}"
    return [names[number] for number in bins]
