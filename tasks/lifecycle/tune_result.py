"""Result of a tuning: a study, what it proposes for params.yaml, and whether that is more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tasks.ground import params
from tasks.release.gate.verdict import loss_words
from tasks.training.tuning import lead, proposal
from tasks.training.tuning.lead import Lead
from tasks.training.tuning.study import Study


@dataclass(frozen=True)
class TuneResult:
    """A study, and what is proposed."""

    name: str
    model: params.Model
    tune: params.Tune
    study: Study
    folds: tuple[str, ...]
    """What each fold answers, in words."""
    rows: int
    """Training rows that the folds are made of."""
    workers: int
    text: str
    """params.yaml as it was when the study began."""

    @cached_property
    def new_text(self) -> str:
        """params.yaml with the best parameters; as it was, where the present ones are the best."""
        best = self.study.best.estimator
        if not self.study.best.number:
            return self.text
        return proposal.proposed(self.text, self.name, best.class_, best.params)

    @cached_property
    def patch(self) -> str:
        """The edit as a unified diff; empty where there is none."""
        return proposal.patch(self.text, self.new_text)

    @property
    def loss(self) -> str:
        """What trials are scored by, in words: less is better."""
        return loss_words(self.model.loss)

    @property
    def chosen_lead(self) -> Lead:
        """Of the best trial, on the folds that it was chosen by."""
        return lead.of_best(self.study, self.model.gate.confidence)

    @property
    def fair_lead(self) -> Lead:
        """Of trials that were chosen on other folds than those they are compared on."""
        return lead.chosen_elsewhere(self.study, self.model.gate.confidence)

    def sentence(self) -> str:
        """The result, as briefly as can be."""
        present, best, loss = self.study.present, self.study.best, self.loss
        ended = f"{len(self.study.trials) - 1} trials ({self.study.spent_s:,.0f} CPU seconds)"
        if not best.number:
            return f"{self.name}: none of {ended} has a lower {loss} than the present parameters ({present.score:.5g})"
        return (
            f"{self.name}: {loss} {present.score:.5g} with the present parameters, {best.score:.5g} with trial "
            f"{best.number} of {ended}; {self.doubt()}"
        )

    def doubt(self) -> str:
        """Whether the lead is more than chance."""
        fair = self.fair_lead
        low, high = fair.interval
        between = f"{low:+.3g} to {high:+.3g}, paired by {len(self.folds)} folds"
        if fair.is_beyond_doubt:
            return f"better beyond the folds' noise ({between})"
        return f"it may be chance: the difference is {between}, where the trial is chosen on the other folds"

    def as_json(self) -> dict[str, Any]:
        """For a program, and for var/tune/<model>/study.json."""
        leads = {"chosen": self.chosen_lead, "fair": self.fair_lead}
        return {
            "model": self.name,
            "loss": self.loss,
            "study": self.study.digest,
            "rows": self.rows,
            "folds": self.folds,
            "best": self.study.best.number,
            "lead": {name: {"mean": each.mean, "interval": each.interval} for name, each in leads.items()},
            "is_beyond_doubt": bool(self.study.best.number) and self.fair_lead.is_beyond_doubt,
            "ended_by": self.study.ended_by,
            "cpu_seconds": self.study.spent_s,
            "importances": self.study.importances,
            "trials": [
                {**trial.as_json(), "error": trial.error, "seconds": round(trial.seconds, 3)}
                for trial in self.study.trials
            ],
        }
