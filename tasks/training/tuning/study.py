"""Study: trials are drawn in rounds, fitted fold by fold by whoever is free, and told to the sampler in their order.

Which points are drawn, which trials are pruned and what each scores follows from rows, space and seed alone: a round is
drawn before any of it is fitted, and is pruned by what the rounds before it scored. So the table of trials is the same
for any number of workers, after any number of kills, and a smaller budget gives the beginning of a larger one's.

Each fit is a line of a journal, keyed by estimator and fold. A study that is run again takes from there what it finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Literal

from tasks.engine import task as tasks
from tasks.engine.protocol import Workers
from tasks.engine.task import Task, WorkersLost
from tasks.ground import files, json_lines, numbers, params
from tasks.ground.errors import ModelCodeError, ParamsError
from tasks.training.tuning import space as spaces
from tasks.training.tuning.sampler import Sampler

if TYPE_CHECKING:
    from tasks.training.tuning.fits import Outcome
    from tasks.training.tuning.folds import Fold
    from tasks.training.tuning.space import Point, Space

ROUND = 8
"""Trials that are drawn at once: so many workers have something to do. Fixed, as another number draws other points."""

FEWEST = 5
"""Earlier trials that a trial is compared with before it is pruned."""

State = Literal["running", "complete", "pruned", "failed"]


@dataclass
class StudyTrial:
    """An estimator that is tried; number 0 is the present one."""

    number: int
    point: Point
    estimator: params.Estimator
    state: State = "running"
    losses: list[float] = field(default_factory=list)
    """Of each fold, as far as it came."""
    slices: list[dict[str, dict[str, list[float]]]] = field(default_factory=list)
    """Of each fold: column → value → [sum of the loss, weight]."""
    seconds: float = 0.0
    """CPU seconds of its fits; 0 of those that another trial has made already."""
    error: str = ""

    @property
    def digest(self) -> str:
        """Trials of the same estimator share it, and their fits."""
        return spaces.digest(self.estimator)

    @property
    def score(self) -> float:
        """The mean of its losses."""
        return numbers.short(fmean(self.losses))

    def scores(self) -> list[float]:
        """The mean of its losses after each fold."""
        return [numbers.short(fmean(self.losses[: upto + 1])) for upto in range(len(self.losses))]

    def as_json(self) -> dict[str, Any]:
        """What follows from rows, space and seed; not how long it took."""
        estimator = self.estimator.model_dump(mode="json", by_alias=True)
        what = {"class": estimator["class"], "params": estimator["params"]}
        return {"number": self.number, "state": self.state, "losses": self.losses, **what}


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is, for whoever waits."""

    trials: int
    of: int
    best: float
    present: float
    """Losses of the best trial so far, and of the present parameters."""
    spent_s: float
    """CPU seconds."""
    left_s: float
    """Seconds until it ends, as far as can be told."""

    def __str__(self) -> str:
        lead = f", {self.best - self.present:+.4g} from the present" if self.best < self.present else ""
        return (
            f"trial {self.trials} of {self.of}: best {self.best:.6g}{lead}; {self.spent_s:,.0f} CPU seconds, "
            f"about {self.left_s:,.0f} s left"
        )


Tell = Callable[[StudyProgress], None]


@dataclass(frozen=True)
class Study:
    """A study that has ended."""

    trials: tuple[StudyTrial, ...]
    importances: dict[str, float]
    spent_s: float
    """CPU seconds of all its fits, those of earlier runs that it took from the journal too."""
    ended_by: Literal["trials", "budget"]

    @property
    def present(self) -> StudyTrial:
        """The trial of the present parameters."""
        return self.trials[0]

    @property
    def best(self) -> StudyTrial:
        """The finished trial with the lowest loss; the first of equals, so that the present one wins a tie."""
        return min(self.complete, key=lambda trial: (trial.score, trial.number))

    @property
    def complete(self) -> list[StudyTrial]:
        """The trials that were scored on every fold."""
        return [trial for trial in self.trials if trial.state == "complete"]

    @property
    def digest(self) -> str:
        """The identity of the table of trials."""
        return files.digest([trial.as_json() for trial in self.trials])[:16]

    def count(self, state: State) -> int:
        """How many trials, the present parameters apart, ended so."""
        return sum(trial.state == state for trial in self.trials[1:])


def run(
    space: Space,
    tune: params.Tune,
    folds: Sequence[Fold],
    workers: Workers,
    fit: Sequence[str],
    journal: Path,
    tell: Tell = lambda _: None,
) -> Study:
    """Search a space on folds.

    Args:
        space: what may be drawn.
        tune: how many trials, which budget, whether to prune, the seed.
        folds: of the training rows.
        workers: who fits.
        fit: the function that fits an estimator on a fold (`fits.fit`), and what it is given before these two.
        journal: the fits so far of the same rows, folds and code; a line is added for each.
        tell: is told after each fit how far it is.

    Raises:
        ModelCodeError: the present parameters, or all that were tried, cannot be fitted; or the budget is too small.
    """
    fits = _Fits(journal, workers, fit, len(folds))
    present = StudyTrial(0, space.point_of_base() or {}, space.base)
    trials, sampler = [present], Sampler(space, tune.seed)

    def progress() -> None:
        if present.losses:
            tell(_progress(trials, tune, fits.spent_s, workers.count))

    fits.advance(trials, {}, progress)
    _refuse_present(present, fits.spent_s, tune.budget_s)
    if present.point:
        sampler.know(present.point, present.score)
    while (wanted := _round_size(trials, tune, fits.spent_s)) > 0:
        limits = _limits(trials, len(folds)) if tune.prune else {}
        first = len(trials)
        for number in range(first, first + wanted):
            point = sampler.ask()
            trials.append(_trial(number, point, space))
        fits.advance(trials[first:], limits, progress)
        for trial in trials[first:]:
            sampler.tell(trial.number - 1, trial.scores(), finished=trial.state == "complete")
        if all(trial.state == "failed" for trial in trials[1:]):
            raise ModelCodeError(
                f"params.yaml: tune: none of {len(trials) - 1} trials can be fitted: {trials[1].error}"
            )
    ended_by: Literal["trials", "budget"] = "trials" if len(trials) > tune.trials else "budget"
    return Study(tuple(trials), sampler.importances(), round(fits.spent_s, 1), ended_by)


def _trial(number: int, point: Point, space: Space) -> StudyTrial:
    try:
        return StudyTrial(number, point, space.estimator(point))
    except ParamsError as error:  # a value in the middle of a range that params.yaml cannot hold
        return StudyTrial(number, point, space.base, "failed", error=str(error))


def _refuse_present(present: StudyTrial, spent_s: float, budget_s: float) -> None:
    if present.state == "failed":
        raise ModelCodeError(f"the present parameters cannot be fitted on the folds: {present.error}")
    if spent_s >= budget_s:
        raise ModelCodeError(
            f"params.yaml: tune.budget_s: {budget_s:g} CPU seconds are used up by the present parameters alone, which "
            f"take {spent_s:.1f} on all folds: nothing was tried. A study of 40 trials takes about {41 * spent_s:,.0f}"
        )


def _round_size(trials: Sequence[StudyTrial], tune: params.Tune, spent_s: float) -> int:
    """How many trials are drawn next: as many as the budget takes, by what a trial took so far."""
    left, each = tune.budget_s - spent_s, spent_s / len(trials)
    affordable = math.ceil(left / each) if each > 0 else ROUND
    return min(ROUND, tune.trials + 1 - len(trials), affordable)


def _limits(trials: Iterable[StudyTrial], folds: int) -> dict[int, float]:
    """Number of folds → the median score of earlier trials after them; a trial that is worse is pruned."""
    scores = [trial.scores() for trial in trials]
    limits = {}
    for upto in range(1, folds):
        reached = [each[upto - 1] for each in scores if len(each) >= upto]
        if len(reached) >= FEWEST:
            limits[upto] = median(reached)
    return limits


def _progress(trials: Sequence[StudyTrial], tune: params.Tune, spent_s: float, workers: int) -> StudyProgress:
    ended = [trial for trial in trials if trial.state != "running"]
    best = min((trial.score for trial in ended if trial.state == "complete"), default=trials[0].score)
    each = spent_s / max(len(ended), 1)
    left_s = min(max(tune.trials + 1 - len(ended), 0) * each, max(tune.budget_s - spent_s, 0)) / max(workers, 1)
    return StudyProgress(max(len(ended) - 1, 0), tune.trials, best, trials[0].score, spent_s, left_s)


def _fitted(outcome: tasks.Outcome) -> Outcome:
    """A trial that no worker survives has failed."""
    try:
        fitted: Outcome = tasks.result(outcome)
    except WorkersLost as error:
        return {"error": str(error), "seconds": 0.0}
    return fitted


class _Fits:
    """The fits that were made, by estimator and fold; others are made by workers, and written to the journal."""

    def __init__(self, journal: Path, workers: Workers, fit: Sequence[str], folds: int) -> None:
        self.journal, self.workers, self.fit, self.folds = journal, workers, fit, folds
        self.made: dict[tuple[str, int], Outcome] = {
            (line["estimator"], line["fold"]): line["outcome"] for line in json_lines.lines(journal)
        }
        self.spent_s, self._counted = 0.0, set[tuple[str, int]]()

    def advance(self, trials: Sequence[StudyTrial], limits: dict[int, float], progress: Callable[[], None]) -> None:
        """Bring trials to their end: each goes through the folds until it is pruned, fails, or is complete."""
        at_work: set[tuple[str, int]] = set()

        def take() -> None:
            for trial in trials:
                self._take(trial, limits)

        def following() -> Task | None:
            waiting = [(fold, t.number, t) for t in trials for fold in self._next_folds(t, limits, at_work)]
            if not waiting:
                return None
            fold, _, trial = min(waiting, key=lambda each: each[:2])  # all have about as many: they end together
            at_work.add((trial.digest, fold))
            estimator = trial.estimator.model_dump(mode="json", by_alias=True)
            return tasks.task(*self.fit, estimator, fold, digest=trial.digest, fold=fold)

        def done(task: Task, outcome: tasks.Outcome) -> None:
            key = task["digest"], task["fold"]
            self.made[key] = outcome = _fitted(outcome)
            at_work.discard(key)
            json_lines.append(self.journal, {"estimator": key[0], "fold": key[1], "outcome": outcome})
            take()
            progress()

        take()
        self.workers.run(following, done)

    def _next_folds(self, trial: StudyTrial, limits: dict[int, float], at_work: set[tuple[str, int]]) -> list[int]:
        """The folds of a trial that may be fitted now: one after the other, where it may be pruned between them."""
        first, digest = len(trial.losses), trial.digest
        folds = range(first, first + 1 if limits else self.folds) if trial.state == "running" else ()
        return [fold for fold in folds if (digest, fold) not in at_work and (digest, fold) not in self.made]

    def _take(self, trial: StudyTrial, limits: dict[int, float]) -> None:
        """Let a trial have the fits of its next folds, as far as they were made."""
        while trial.state == "running" and (key := (trial.digest, len(trial.losses))) in self.made:
            outcome = self.made[key]
            if key not in self._counted:
                self._counted.add(key)
                self.spent_s += outcome["seconds"]
                trial.seconds += outcome["seconds"]
            if "error" in outcome:
                trial.state, trial.error = "failed", outcome["error"]
                return
            trial.losses.append(outcome["loss"])
            trial.slices.append(outcome["slices"])
            if len(trial.losses) == self.folds:
                trial.state = "complete"
            elif trial.scores()[-1] > limits.get(len(trial.losses), math.inf):
                trial.state = "pruned"
