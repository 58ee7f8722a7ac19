"""A study is a function of space, seed and scores: not of how many fit, in which order they end, or what was killed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.ground import json_lines, params
from tasks.ground.errors import ModelCodeError
from tasks.training.tuning import lead, study
from tasks.training.tuning.folds import Fold
from tasks.training.tuning.space import Space

LINEAR, TREES = "sklearn.linear_model.LogisticRegression", "sklearn.ensemble.HistGradientBoostingClassifier"
BASE = params.Estimator.model_validate({"class": LINEAR, "params": {"C": 1.0}})
FOLDS = [Fold(f"fold {n}", np.array([0]), np.array([1])) for n in range(3)]
SEVERAL: dict[str, Any] = {
    "space": {"C": {"low": 0.001, "high": 1000, "log": True}},
    "classes": {TREES: {"learning_rate": {"low": 0.01, "high": 0.5}, "max_depth": {"choices": [None, 2, [3, 4]]}}},
    "trials": 30,
}


class Killed(Exception):
    """The process that ran the study is gone."""


def scored(estimator: dict[str, Any], fold: int) -> dict[str, Any]:
    """The outcome of a fit, by a formula: C is best at 10, trees are worse."""
    own = estimator["params"]
    if estimator["class"] == TREES:
        loss = 0.6 + own["learning_rate"] / 10 + 0.01 * fold
    else:
        loss = 0.5 + 0.01 * (math.log10(own["C"]) - 1) ** 2 + 0.02 * fold + 0.001 * math.sin(own["C"] + fold)
    return {"loss": round(loss, 9), "slices": {"side": {"a": [loss, 1.0]}}, "seconds": 1.0}


@dataclass
class Here:
    """Workers of this process, so many at once, that end in any order; they may be killed after so many fits."""

    count: int = 1
    seed: int = 0
    lives: float = math.inf
    score: Callable[[dict[str, Any], int], dict[str, Any]] = scored
    fits: int = 0
    at_work: list[dict[str, Any]] = field(default_factory=list)

    def run(self, following: Callable[[], Any], done: Callable[[Any, Any], None]) -> None:
        """As `Workers.run`."""
        draw = random.Random(self.seed)
        self.at_work = []
        while True:
            while len(self.at_work) < self.count and (task := following()) is not None:
                self.at_work.append(task)
            if not self.at_work:
                return
            if self.fits >= self.lives:
                raise Killed
            task = self.at_work.pop(draw.randrange(len(self.at_work)))
            self.fits += 1
            done(task, {"result": self.score(*task["arguments"])})


class Clocked(Here):
    """Fits take their time, by a clock of their own."""

    now: float = 0.0

    def run(self, following: Callable[[], Any], done: Callable[[Any, Any], None]) -> None:
        """Whoever ends first is given the next fit."""
        ends: list[tuple[float, int, Any]] = []
        while True:
            while len(ends) < self.count and (task := following()) is not None:
                takes = random.Random(f"{task['digest']}{task['fold']}").lognormvariate(0, 0.4)
                self.fits += 1
                ends.append((self.now + takes, self.fits, task))
            if not ends:
                return
            self.now, _, task = ends.pop(ends.index(min(ends)))
            done(task, {"result": self.score(*task["arguments"])})


def searched(journal: Path, workers: Here, tell: study.Tell = lambda _: None, **changed: Any) -> study.Study:
    """A study of the two families."""
    tune = params.Tune.model_validate({**SEVERAL, **changed})
    space = Space.of(_Model, tune)  # type: ignore[arg-type]
    return study.run(space, tune, FOLDS, workers, ("tasks.none:fit",), journal, tell)


class _Model:
    estimator = BASE


def test_the_table_is_the_same_for_any_number_of_workers_in_any_order(tmp_path: Path) -> None:
    """Fits end as they like; trials are drawn, pruned and told by rounds."""
    alone = searched(tmp_path / "alone", Here())
    for count, seed in [(2, 1), (4, 2), (8, 3)]:
        assert searched(tmp_path / f"{count}", Here(count, seed)).digest == alone.digest
    assert {trial.state for trial in alone.trials} == {"complete", "pruned"}
    assert len(alone.trials) == 31
    assert alone.best.score < alone.present.score


def test_two_cores_are_kept_busy(tmp_path: Path) -> None:
    """Fits of different length, folds one after the other, rounds that end together: 1.8 times as quick, and more."""
    alone, pair, four = Clocked(1), Clocked(2), Clocked(4)
    for workers in (alone, pair, four):
        searched(tmp_path / str(workers.count), workers)
    assert alone.now / pair.now > 1.88
    assert alone.now / four.now > 3.3


def test_another_seed_is_another_table(tmp_path: Path) -> None:
    """The identity sees what was drawn."""
    assert searched(tmp_path / "a", Here(), seed=1).digest != searched(tmp_path / "b", Here(), seed=2).digest


def test_after_twenty_kills_it_is_the_same_table_and_no_fit_was_made_twice(tmp_path: Path) -> None:
    """A kill loses what was at work then, at most one fit a worker."""
    whole, journal = searched(tmp_path / "whole", Here(2)), tmp_path / "killed"
    for seed in range(20):
        with pytest.raises(Killed):
            searched(journal, Here(2, seed, lives=2))
    assert searched(journal, Here(2)).digest == whole.digest
    fits = [(line["estimator"], line["fold"]) for line in json_lines.lines(journal)]
    assert len(fits) == len(set(fits)) == len(json_lines.lines(tmp_path / "whole"))


def test_a_smaller_budget_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    """The budget ends a study between two trials, and says so."""
    whole, short = searched(tmp_path / "a", Here()), searched(tmp_path / "b", Here(4), budget_s=30)
    assert (whole.ended_by, short.ended_by) == ("trials", "budget")
    assert 30 <= short.spent_s < 30 + 3 * study.ROUND
    assert 5 < len(short.trials) < 20
    assert [t.as_json() for t in short.trials] == [t.as_json() for t in whole.trials[: len(short.trials)]]


def test_more_trials_take_the_fits_that_were_made(tmp_path: Path) -> None:
    """The journal is keyed by estimator and fold."""
    first, again = Here(), Here()
    searched(tmp_path / "j", first)
    longer = searched(tmp_path / "j", again, trials=40)
    assert len(longer.trials) == 41
    assert again.fits <= 30
    assert longer.spent_s >= first.fits


def test_without_pruning_every_trial_is_complete(tmp_path: Path) -> None:
    """It costs more fits."""
    pruned, whole = Here(), Here()
    searched(tmp_path / "a", pruned)
    assert {trial.state for trial in searched(tmp_path / "b", whole, prune=False).trials} == {"complete"}
    assert whole.fits > pruned.fits


def test_a_trial_that_cannot_be_fitted_is_shown_and_the_others_go_on(tmp_path: Path) -> None:
    """Its error stands in the table; the best is another."""

    def fails(estimator: dict[str, Any], fold: int) -> dict[str, Any]:
        broken = estimator["class"] == TREES
        return {"error": "ValueError: too deep", "seconds": 0.5} if broken else scored(estimator, fold)

    done = searched(tmp_path / "j", Here(score=fails))
    assert done.count("failed") > 0
    assert done.best.estimator.class_ == LINEAR
    assert next(trial for trial in done.trials if trial.state == "failed").error == "ValueError: too deep"


def test_a_value_that_params_cannot_hold_is_a_failed_trial(tmp_path: Path) -> None:
    """`max_features: 1.0`, where a step of a range comes to it."""
    trees = {TREES: {"max_features": {"low": 0.5, "high": 1.5, "step": 0.5}}}
    done = searched(
        tmp_path / "j", Here(score=lambda _, fold: {"loss": 0.5, "slices": {}, "seconds": 1}), classes=trees
    )
    failed = [trial for trial in done.trials if trial.state == "failed"]
    assert failed
    assert all("write null for all of them" in trial.error for trial in failed)


def test_what_can_never_work_is_told(tmp_path: Path) -> None:
    """The present parameters fail; all trials fail; the budget is less than the present parameters take."""

    def broken(estimator: dict[str, Any], fold: int) -> dict[str, Any]:
        return {"error": "ValueError: no", "seconds": 0.1}

    def only_present(estimator: dict[str, Any], fold: int) -> dict[str, Any]:
        return scored(estimator, fold) if estimator["params"] == {"C": 1} else broken(estimator, fold)

    with pytest.raises(ModelCodeError, match="the present parameters cannot be fitted on the folds: ValueError: no"):
        searched(tmp_path / "a", Here(score=broken))
    with pytest.raises(ModelCodeError, match="none of 8 trials can be fitted: ValueError: no"):
        searched(tmp_path / "b", Here(score=only_present))
    with pytest.raises(ModelCodeError, match=r"2 CPU seconds are used up by the present parameters alone.*take 3\.0"):
        searched(tmp_path / "c", Here(), budget_s=2)


def test_progress_is_told_after_each_fit(tmp_path: Path) -> None:
    """So many trials of so many, the best so far, and what is left."""
    told: list[study.StudyProgress] = []
    done = searched(tmp_path / "j", Here(), told.append)
    assert [each.trials for each in told] == sorted(each.trials for each in told)
    assert str(told[-1]).startswith(f"trial 30 of 30: best {done.best.score:.6g}, {done.best.score - 0.5:+.1g}"[:25])
    assert told[-1].left_s == 0


def test_the_lead_of_the_best_is_too_good_and_the_fair_one_says_chance(tmp_path: Path) -> None:
    """Trials that differ by noise only: the best of thirty leads on its folds, and not on others."""

    def noise(estimator: dict[str, Any], fold: int) -> dict[str, Any]:
        draw = random.Random(f"{estimator['params']}{fold}")
        return {"loss": 0.5 + draw.gauss(0, 0.01), "slices": {}, "seconds": 1.0}

    done = searched(tmp_path / "j", Here(score=noise), prune=False)
    assert lead.of_best(done, 0.95).mean < -0.005
    assert lead.chosen_elsewhere(done, 0.95).mean > lead.of_best(done, 0.95).mean / 2
    assert not lead.chosen_elsewhere(done, 0.95).is_beyond_doubt


def test_a_real_lead_is_beyond_doubt(tmp_path: Path) -> None:
    """Where C = 10 is better on every fold."""
    done = searched(tmp_path / "j", Here(), prune=False)
    assert lead.chosen_elsewhere(done, 0.95).is_beyond_doubt
    assert [change.name for change in lead.slices(done)] == ["side=a"]
    assert lead.slices(done)[0].change < 0


def test_importance_names_what_matters(tmp_path: Path) -> None:
    """Of enough trials; of too few it is left out."""
    shares = searched(tmp_path / "a", Here(), trials=40, prune=False).importances
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=lambda name: shares[name]) in ("class", "LogisticRegression.C")
    assert searched(tmp_path / "b", Here(), trials=10, prune=False).importances == {}
