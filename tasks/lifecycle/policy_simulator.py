"""Policy simulator: a retrain policy in virtual time, asked every week; what it promotes is live in the next one.

It decides with the code of production: `retrain_policy.decide`, and `gate.judge` on the holdout of the moment, champion
against challenger. Only the checks of a packaged release, latency and size, cannot be simulated; all others count.

Each decision is a line of the ledger, «no» as well. The same history gives the same ledger, byte for byte: it holds no
clock but the virtual one. The CPU seconds of a policy stand beside it, not in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground import files, import_closure, numbers, params
from tasks.ground.errors import DataMissing
from tasks.lifecycle.backtest_history import HOLDOUT_WEEKS, WEEK, Fit, History, Moment
from tasks.modelling import metrics
from tasks.monitoring.retrain_policy import WINDOW_DAYS, MeanLoss, OpenAlarm, PolicyState, decide
from tasks.release.gate import gate
from tasks.release.gate.verdict import Verdict
from tasks.runtime import answer_columns

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DriftDetector = Callable[[Fit, pd.DataFrame], Sequence[OpenAlarm]]
"""A champion, and the rows that came since it was trained → the alarms that are open."""

NOT_SIMULATED = frozenset({"latency", "size"})
"""Checks of the gate that need a packaged release."""

STANDARD: dict[str, params.Retrain] = {
    "never": params.Retrain(when=[]),
    "always": params.Retrain(when=[params.When(new_rows=1)]),
    "monthly": params.Retrain(when=[params.When(months=1)]),
    "drift": params.Retrain(when=[params.When(drift=0.2)]),
    "quality": params.Retrain(when=[params.When(measured_loss=0)]),
}
"""The policies that the configured one is compared with."""


@dataclass(frozen=True)
class PolicyOutcome:
    """What became of a policy."""

    policy: str
    ledger: tuple[dict[str, Any], ...]
    """A record per moment."""
    loss: Floats
    """The mean loss of the champion on the rows that it answered after each moment: shape (moments,)."""
    best: Floats
    """The same of the best of all models that could have been live, in hindsight."""
    rows: Floats
    """How many rows were answered."""
    seconds: float
    """CPU seconds of its trainings and verdicts."""

    def count(self, what: str) -> int:
        """How often: `trained`, `promoted`, `refused`; or how many `alarms` were raised."""
        return sum(int(line[what]) for line in self.ledger)

    @property
    def mean_loss(self) -> float:
        """Over every row that was answered."""
        return float((self.loss * self.rows).sum() / self.rows.sum())

    def as_json(self) -> dict[str, Any]:
        """For `from_json`, in another process."""
        own = {name: getattr(self, name).tolist() for name in ("loss", "best", "rows")}
        return {"policy": self.policy, "ledger": self.ledger, "seconds": self.seconds, **own}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> PolicyOutcome:
        """What `as_json` gave."""
        arrays = {name: np.array(raw[name], dtype=np.float64) for name in ("loss", "best", "rows")}
        return cls(policy=raw["policy"], ledger=tuple(raw["ledger"]), seconds=raw["seconds"], **arrays)

    @property
    def regret(self) -> float:
        """How much better, per row, the best model of each week would have been."""
        return float(((self.loss - self.best) * self.rows).sum() / self.rows.sum())


@dataclass(frozen=True)
class Simulator:
    """A history, the model of each moment, and a drift detector: what every policy has in common.

    A model is named by its position in `fits`, which is the number of its moment.
    """

    history: History
    fits: Sequence[Fit]
    detect_drift: DriftDetector
    _alarms: dict[tuple[int, int], tuple[OpenAlarm, ...]] = field(default_factory=dict)

    def run(self, name: str, policy: params.Retrain) -> PolicyOutcome:
        """Go through the history under a policy.

        Raises:
            DataMissing: the first candidate was refused, so that there is no champion to begin with.
        """
        run = _PolicyRun(self, name, policy)
        ledger, weeks = [], []
        for moment in self.history.moments:
            begin, end = moment.served
            if begin == end:
                continue
            line = run.step(moment)
            if run.champion is None:
                raise DataMissing(
                    f"{self.history.name}: the gate refuses the first candidate, of {moment.at:%Y-%m-%d}: "
                    f"{line['verdict']['summary']}. There is no champion to begin with: begin the backtest later."
                )
            available = [float(self.losses[fit][begin:end].mean()) for fit in range(moment.number + 1)]
            loss, best = available[run.champion], min(available)
            served = {"rows": end - begin, "loss": numbers.short(loss), "best": numbers.short(best)}
            ledger.append({**line, "served": served})
            weeks.append((loss, best, end - begin))
        losses, bests, rows = np.array(weeks, dtype=np.float64).T
        return PolicyOutcome(name, tuple(ledger), losses, bests, rows, run.seconds)

    # losses

    @cached_property
    def losses(self) -> list[Floats]:
        """The loss of each row by the model of each moment; nan where it gave no answer. Shape (rows,) each."""
        labels, losses = metrics.label_of(self.history.rows), []
        for number in range(len(self.fits)):
            answers = self._answers(number)
            own = np.full(len(labels), np.nan)
            own[answers.index] = metrics.losses(self.history.model.loss, labels.iloc[answers.index], answers)
            losses.append(own)
        return losses

    def _answers(self, fit: int) -> pd.DataFrame:
        """The predictions of a model, by the position of the row."""
        return pd.read_parquet(self.fits[fit].answers).set_index("at")

    def _answered(self, fit: int, members: Ints) -> pd.DataFrame:
        """time, label and predictions of some rows."""
        answers = self._answers(fit).loc[members].reset_index(drop=True)
        own = ["time", *answer_columns.labels(self.history.rows.columns)]
        return self.history.rows[own].iloc[members].reset_index(drop=True).join(answers)

    def mean_loss(self, fit: int, members: Ints) -> MeanLoss | None:
        """The loss of a model on some rows, with its interval over days; None without rows."""
        if not len(members):
            return None
        model, times = self.history.model, self.history.rows["time"].iloc[members]
        return MeanLoss.of(self.losses[fit][members], times, model.evaluate.resamples, model.gate.confidence)

    def promised_loss(self, fit: int) -> MeanLoss | None:
        """The loss of a model on its own holdout."""
        return self.mean_loss(fit, self._holdout(self.history.moments[fit]))

    def measured_loss(self, moment: Moment, fit: int, since: int) -> MeanLoss | None:
        """The loss of a model live since a position, on its newest WINDOW_DAYS with labels."""
        times = self.history.rows["time"]
        first = times.iloc[moment.known - 1] - timedelta(days=WINDOW_DAYS)
        return self.mean_loss(fit, _span(max(since, int(times.searchsorted(first, side="right"))), moment.known))

    def estimated_loss(self, moment: Moment, fit: int, since: int) -> MeanLoss | None:
        """The loss of a model live since a position, on the newest week, before its labels come: as weekly.py has it.

        The errors of earlier releases' estimates are not known here: the interval is wider for that.
        """
        from tasks.monitoring.quality import quality, weekly

        model, times = self.history.model, self.history.rows["time"]
        end = moment.served[0]
        week = times.iloc[end - 1] - WEEK
        begin = max(since, int(times.searchsorted(week, side="right")))
        first = max(since, int(times.searchsorted(week - weekly.EARLIER * WEEK, side="right")))
        labelled, rows = _span(first, min(begin, moment.known)), self._answered(fit, _span(begin, end))
        if rows.empty:
            return None
        holdout = self._answered(fit, self._holdout(self.history.moments[fit]))
        earlier = self._answered(fit, labelled) if len(labelled) else None
        estimator = quality.LossEstimator.fit(
            model.task, model.loss, holdout, earlier, confidence=model.gate.confidence
        )
        if (estimate := estimator.estimate(rows)) is None:
            return None
        begun, until = rows["time"].min().to_pydatetime(), rows["time"].max().to_pydatetime()
        return MeanLoss(estimate.value, estimate.low, estimate.high, 0, begun, until)

    def _holdout(self, moment: Moment) -> Ints:
        return self.history.in_holdout(moment).nonzero()[0]

    # drift and verdicts

    def alarms(self, moment: Moment, champion: int) -> tuple[OpenAlarm, ...]:
        """What drifts in the rows that came since a champion was trained, against those that it learned from."""
        key = moment.number, champion
        if key not in self._alarms:
            since = self.history.rows.iloc[self.history.moments[champion].known : moment.known]
            self._alarms[key] = tuple(self.detect_drift(self.fits[champion], since)) if len(since) else ()
        return self._alarms[key]

    def verdict(self, moment: Moment, champion: int | None) -> tuple[Verdict, float]:
        """The gate's verdict on the model of a moment, and its CPU seconds; judged once per content."""
        model = self.history.model
        key = {
            "challenger": self.fits[moment.number].answers.name,
            "champion": None if champion is None else self.fits[champion].answers.name,
            "moment": moment.at.isoformat(),
            "data": self.history.version(moment),
            "rule": model.gate.model_dump(),
            "evaluate": model.evaluate.model_dump(),
            "split": [model.split.model_dump(), HOLDOUT_WEEKS],
            "code": self._gate_code,
        }
        path = files.memo("backtest/verdicts", key, ".json", partial(self._judge, moment, champion))
        judged = files.read_json(path)
        return Verdict.from_json(judged["verdict"]), judged["seconds"]

    @cached_property
    def _gate_code(self) -> dict[str, str]:
        """The identity of the code that judges."""
        return import_closure.hashes("tasks/release/gate/gate.py")

    def _judge(self, moment: Moment, champion: int | None, target: Path) -> None:
        begin = time.process_time()
        history, model, holdout = self.history, self.history.model, self._holdout(moment)
        own = ["id", "time", *answer_columns.labels(history.rows.columns), "weight", *model.evaluate.slices]
        columns = [name for name in own if name in history.rows]
        challenger = self._contender(moment.number, holdout)
        assert challenger.predictions is not None
        comparison = gate.Comparison(
            model=history.name,
            task=model.task,
            holdout=history.rows[columns].iloc[holdout].reset_index(drop=True),
            slices=tuple(model.evaluate.slices),
            challenger=challenger,
            champion=None if champion is None else self._contender(champion, holdout),
            baseline=metrics.baseline_of(self.fits[moment.number].training, challenger.predictions),
            champion_age=None if champion is None else self.age(moment, champion),
            split=model.split.by,
            cost=model.cost,
        )
        verdict = gate.judge(comparison, model.gate, resamples=model.evaluate.resamples)
        files.write_json(target, {"verdict": verdict.to_json(), "seconds": time.process_time() - begin})

    def _contender(self, fit: int, holdout: Ints) -> gate.Contender:
        history, moment = self.history, self.history.moments[fit]
        learned = history.hashes[: moment.known][~history.in_holdout(moment)]
        predictions = self._answers(fit).loc[holdout].reset_index(drop=True)
        features = history.model.described()
        return gate.Contender(self.fits[fit].key[:16], predictions, learned, features)

    def age(self, moment: Moment, champion: int) -> int:
        """How many weeks are newer than what the champion learned from."""
        until, times = self.fits[champion].learned_until, self.history.rows["time"]
        return sum(1 for week in self.history.weeks[: moment.weeks] if times.iloc[week.begin] > until)


@dataclass
class _PolicyRun:
    """Champion and last training, as time goes by under one policy."""

    simulator: Simulator
    name: str
    policy: params.Retrain
    champion: int | None = None
    promoted: Moment | None = None
    trained: Moment | None = None
    open: frozenset[str] = frozenset()
    """The alarms of the moment before."""
    seconds: float = 0.0

    def step(self, moment: Moment) -> dict[str, Any]:
        """Decide, and do it; gives the line of the ledger."""
        state = self._state(moment)
        alarms = frozenset(alarm.key for alarm in state.alarms)
        raised, self.open = len(alarms - self.open), alarms
        decision = decide(state, self.policy)
        verdict = self._train(moment) if decision.retrain else None
        return {
            "policy": self.name,
            "at": moment.at.isoformat(),
            "decision": decision.to_dict(),
            "trained": decision.retrain,
            "verdict": verdict,
            "promoted": verdict is not None and verdict["promoted"],
            "refused": verdict is not None and not verdict["promoted"],
            "alarms": raised,
            "champion": None if self.champion is None else self.simulator.fits[self.champion].key[:16],
        }

    def _train(self, moment: Moment) -> dict[str, Any]:
        """Judge the candidate of a moment, and promote it if it passes."""
        verdict, seconds = self.simulator.verdict(moment, self.champion)
        self.seconds += seconds + self.simulator.fits[moment.number].seconds
        failed = [check for check in verdict.checks if not check.passed and check.name not in NOT_SIMULATED]
        improvement = next((check for check in verdict.checks if check.name == "improvement"), None)
        self.trained = moment
        if not failed:
            self.champion, self.promoted = moment.number, moment
            self.open = frozenset()  # the new champion is its own reference
        return {
            "candidate": verdict.challenger,
            "champion": verdict.champion,
            "promoted": not failed,
            "improvement": improvement and {"value": improvement.value, "interval": improvement.interval},
            "failed": [check.name for check in failed],
            "summary": "; ".join(f"{check.name}: {check.reason}" for check in failed[:3]) or "every check passed",
        }

    def _state(self, moment: Moment) -> PolicyState:
        """What is known at a moment: nothing from later."""
        history, simulator, trained = self.simulator.history, self.simulator, self.trained
        state = PolicyState(
            model=history.name,
            now=moment.at,
            data_version=history.version(moment),
            trained_at=trained.at if trained else None,
            trained_on=history.version(trained) if trained else None,
            new_rows=moment.known - (trained.known if trained else 0),
            new_partitions=moment.weeks - (trained.weeks if trained else 0),
        )
        if self.champion is None or self.promoted is None:
            return state
        champion, since = self.champion, self.promoted.served[0]
        is_estimate_wanted = any(when.estimated_loss is not None for when in self.policy.when)
        return replace(
            state,
            learned_until=simulator.fits[champion].learned_until,
            learned_rows=simulator.fits[champion].training["rows"],
            newer_rows=moment.known - history.moments[champion].known,
            newer_partitions=simulator.age(moment, champion),
            alarms=simulator.alarms(moment, champion),
            promised=simulator.promised_loss(champion),
            measured=simulator.measured_loss(moment, champion, since),
            estimated=simulator.estimated_loss(moment, champion, since) if is_estimate_wanted else None,
        )


def _span(begin: int, end: int) -> Ints:
    return np.arange(begin, max(begin, end), dtype=np.int64)


def ledger_text(outcomes: Sequence[PolicyOutcome]) -> str:
    """The ledger of all policies as JSON lines."""
    lines = [line for outcome in outcomes for line in outcome.ledger]
    return "".join(json.dumps(line, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
