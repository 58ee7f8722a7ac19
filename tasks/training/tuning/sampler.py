"""Sampler: which points are drawn next, by Optuna's tree-structured Parzen estimator. Only this module knows Optuna.

It is asked for a round of points and then told how all of them did, in their order, so that what is drawn follows from
the seed and the results alone, whoever computed them and when. Optuna keeps nothing: a study that is continued is asked
and told again from its beginning. (Optuna's own parallel studies are not reproducible, and killed trials stay RUNNING.)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.training.tuning.space import CLASS

if TYPE_CHECKING:
    from optuna import Trial

    from tasks.training.tuning.space import Axis, Point, Space

DIGITS = 6
"""Of a number that is drawn: as many as a person would write into params.yaml."""

FEWEST_FOR_IMPORTANCE = 20
"""Finished trials: of fewer, Optuna compares two of them with the rest."""


class Sampler:
    """Draws points of a space. Lower scores are better."""

    def __init__(self, space: Space, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, has_families = space, len(space.axes) > 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # of several classes, each has a space of its own: drawn together only with what belongs to it
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=has_families)
        self.study = optuna.create_study(sampler=sampler, direction="minimize")
        self._trials: list[Any] = []

    def know(self, point: Point, score: float) -> None:
        """Tell it of a point that it has not drawn: of the present parameters."""
        inner = {name: value if name == CLASS else self._inner(name, value) for name, value in point.items()}
        self.study.enqueue_trial(inner)
        trial = self.study.ask()
        self._draw(trial)
        self.study.tell(trial, score)

    def ask(self) -> Point:
        """The next point; `tell` is told of it later by its place among those that were asked."""
        trial = self.study.ask()
        self._trials.append(trial)
        return self._draw(trial)

    def _draw(self, trial: Trial) -> Point:
        paths = list(self.space.axes)
        point: Point = {CLASS: trial.suggest_categorical(CLASS, paths)} if len(paths) > 1 else {}
        for axis in self.space.axes[point.get(CLASS, paths[0])]:
            point[axis.name] = _draw(trial, axis)
        return point

    def _inner(self, name: str, value: Any) -> Any:
        """A value as Optuna knows it: of choices, which may be lists, the place."""
        axis = next(axis for axes in self.space.axes.values() for axis in axes if axis.name == name)
        return value if axis.searched.choices is None else axis.searched.choices.index(value)

    def tell(self, place: int, scores: Sequence[float], *, finished: bool) -> None:
        """Tell how a point did: its score after each fold; none: it cannot be fitted. Not finished: it was pruned."""
        from optuna.trial import TrialState

        trial = self._trials[place]
        for fold, score in enumerate(scores):
            trial.report(score, fold)
        if finished:
            self.study.tell(trial, scores[-1])
        else:
            self.study.tell(trial, state=TrialState.PRUNED if scores else TrialState.FAIL)

    def importances(self) -> dict[str, float]:
        """How much each axis tells the best tenth of the trials from the others; shares, none of few or equal trials.

        PED-ANOVA, as Optuna has it (Watanabe et al. 2023); an axis that only one class has counts where it was drawn.
        """
        import optuna

        finished = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len(finished) < FEWEST_FOR_IMPORTANCE or len({trial.value for trial in finished}) == 1:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that many trials score alike
            shares = optuna.importance.get_param_importances(self.study)
        return {name: float(share) for name, share in shares.items() if math.isfinite(share)}  # NaN: it was drawn once


def _draw(trial: Trial, axis: Axis) -> Any:
    """A value as params.yaml has it."""
    searched = axis.searched
    if searched.choices is not None:
        return searched.choices[trial.suggest_categorical(axis.name, range(len(searched.choices)))]
    low, high, step = searched.low, searched.high, searched.step
    assert low is not None
    assert high is not None
    if step is not None:  # the highest step that there is: else Optuna lowers it, and warns
        high = low + step * int((high - low) / step + 1e-9)
    if searched.is_whole:
        return trial.suggest_int(axis.name, int(low), int(high), log=searched.log, step=int(step or 1))
    drawn = trial.suggest_float(axis.name, float(low), float(high), log=searched.log, step=step)
    return min(max(float(f"{drawn:.{DIGITS}g}"), float(low)), float(high))
