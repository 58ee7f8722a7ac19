"""Lead: how much better the best trial is than the present parameters, and whether by more than the folds differ.

The best of many is chosen because it did well on these folds, so that its lead on them is partly luck. The lead that a
sentence is made of is therefore of trials that were chosen without the fold they are compared on (as Tibshirani &
Tibshirani 2009 measure that bias): on each fold, the trial that is best on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from tasks.ground import numbers

if TYPE_CHECKING:
    from tasks.training.tuning.study import Study, StudyTrial


@dataclass(frozen=True)
class Lead:
    """Differences of the loss from the present parameters', fold by fold; below 0 is better."""

    by_fold: tuple[float, ...]
    confidence: float

    @property
    def mean(self) -> float:
        """Over the folds."""
        return numbers.short(fmean(self.by_fold))

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean, paired by fold: Student's t of so few differences as there are folds."""
        from scipy.stats import t

        half = float(t.ppf((1 + self.confidence) / 2, len(self.by_fold) - 1)) * stdev(self.by_fold)
        half /= len(self.by_fold) ** 0.5
        return numbers.short(self.mean - half), numbers.short(self.mean + half)

    @property
    def is_beyond_doubt(self) -> bool:
        """Whether the interval excludes that there is none."""
        return self.interval[1] < 0


def of_best(study: Study, confidence: float) -> Lead:
    """Of the best trial, on the folds that it was chosen by: too good."""
    return Lead(_differences(study.best.losses, study.present.losses), confidence)


def chosen_elsewhere(study: Study, confidence: float) -> Lead:
    """On each fold, of the trial that is best on the other folds."""
    present, differences = study.present.losses, []
    for fold in range(len(present)):
        best = min(study.complete, key=lambda trial: (_without(trial, fold), trial.number))
        differences.append(numbers.short(best.losses[fold] - present[fold], of=present[fold]))
    return Lead(tuple(differences), confidence)


def _without(trial: StudyTrial, fold: int) -> float:
    return fmean(loss for number, loss in enumerate(trial.losses) if number != fold)


def _differences(losses: Sequence[float], present: Sequence[float]) -> tuple[float, ...]:
    return tuple(numbers.short(loss - before, of=before) for loss, before in zip(losses, present, strict=True))


@dataclass(frozen=True)
class SliceChange:
    """The mean loss of a slice with the present and with the best parameters, on all answered rows."""

    name: str
    weight: float
    present: float
    best: float

    @property
    def change(self) -> float:
        """Below 0 is better."""
        return self.best - self.present


def slices(study: Study) -> list[SliceChange]:
    """Every slice, those that become worst first."""
    before, after = _summed(study.present), _summed(study.best)
    changes = [
        SliceChange(name, weight, total / weight, after[name][0] / after[name][1])
        for name, (total, weight) in before.items()
        if weight > 0 and after.get(name, (0.0, 0.0))[1] > 0
    ]
    return sorted(changes, key=lambda change: (-change.change, change.name))


def _summed(trial: StudyTrial) -> dict[str, tuple[float, float]]:
    sums: dict[str, tuple[float, float]] = {}
    for of_fold in trial.slices:
        for column, values in of_fold.items():
            for value, (total, weight) in values.items():
                before = sums.get(f"{column}={value}", (0.0, 0.0))
                sums[f"{column}={value}"] = before[0] + total, before[1] + weight
    return sums
