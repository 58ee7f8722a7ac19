"""Backtest: retrain policies compared on the history of a model, in virtual time.

`evergreen backtest` runs it at a terminal, the flow `backtest` in Prefect. It touches no registry, no data version and
no build folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, Literal

import pandas as pd

from tasks.engine import engine
from tasks.ground import files, numbers, params, paths
from tasks.ground.errors import Mistake, did_you_mean
from tasks.lifecycle import backtest_history, policy_simulator
from tasks.lifecycle.backtest_history import Fit, History
from tasks.lifecycle.policy_simulator import PolicyOutcome
from tasks.monitoring.retrain_policy import OpenAlarm

Policy = Literal["never", "always", "monthly", "drift", "quality", "configured"]
EVERY: tuple[Policy, ...] = ("never", "always", "monthly", "drift", "quality", "configured")


@dataclass(frozen=True)
class BacktestRequest:
    """Which history, and which policies."""

    source: backtest_history.Source = "data"
    since: date | None = None
    until: date | None = None
    policies: tuple[Policy, ...] = EVERY
    configured: params.Retrain | None = None
    """In place of the one in params.yaml."""


@dataclass(frozen=True)
class BacktestResult:
    """The outcome of every policy of a model."""

    name: str
    loss: str
    """The loss that is compared: the gate's."""
    configured: params.Retrain
    outcomes: tuple[PolicyOutcome, ...]

    def of(self, policy: str) -> PolicyOutcome | None:
        """The outcome of a policy, if it was requested."""
        return next((outcome for outcome in self.outcomes if outcome.policy == policy), None)

    def kept(self, outcome: PolicyOutcome) -> float | None:
        """The share of the gain in loss, of «always» over «never», that a policy keeps; None without these two."""
        never, always = self.of("never"), self.of("always")
        if never is None or always is None or never.mean_loss == always.mean_loss:
            return None
        return (never.mean_loss - outcome.mean_loss) / (never.mean_loss - always.mean_loss)

    def summary(self) -> dict[str, Any]:
        """The table, as JSON values; equal ledgers give equal summaries."""
        return {
            outcome.policy: {
                "loss": numbers.short(outcome.mean_loss),
                "regret": numbers.short(outcome.regret, of=outcome.mean_loss),
                "gain_kept": None if (kept := self.kept(outcome)) is None else round(kept, 4),
                **{what: outcome.count(what) for what in ("trained", "promoted", "refused", "alarms")},
            }
            for outcome in self.outcomes
        }

    def sentence(self) -> str:
        """The result, as briefly as can be."""
        chosen = self.of("configured") or self.outcomes[-1]
        kept, always = self.kept(chosen), self.of("always")
        gain = f", {kept:.0%} of what «always» gains over «never»" if kept is not None else ""
        trained = f"{chosen.count('trained')} trainings" + (f" of {always.count('trained')}" if always else "")
        return f"{self.name}: «{chosen.policy}» has a {self.loss} of {chosen.mean_loss:.4f}{gain}, with {trained}"


def run(
    names: Sequence[str],
    config: params.Params,
    request: BacktestRequest,
    jobs: int | None = None,
    tell: Callable[[str], Any] = print,
) -> list[BacktestResult]:
    """Simulate the policies on some models; writes var/backtest/<model>/{ledger.jsonl,summary.json,seconds.json}.

    `jobs` processes of this machine train and simulate; None: whoever EVERGREEN_ENGINE names. `tell` takes lines about
    the progress.

    Raises:
        DataMissing: a history is too short, or its first candidate is refused.
    """
    for name in request.policies:
        if name not in EVERY:
            raise Mistake(f"there is no policy {name!r}{did_you_mean(name, list(EVERY))}")
    histories = [
        backtest_history.read(name, config, request.source, since=request.since, until=request.until) for name in names
    ]
    addresses = [history.laid_down() for history in histories]
    trainings = [[*at, moment.number] for h, at in zip(histories, addresses, strict=True) for moment in h.moments]
    for history in histories:
        rows, weeks, decisions = len(history.rows), len(history.weeks), len(history.moments)
        tell(f"{history.name}: {rows:,} rows in {weeks} weeks, {decisions} decisions")
    with engine.opened(len(trainings), processes=jobs) as workers:
        train, simulate = "tasks.lifecycle.backtest_history:train", "tasks.lifecycle.backtest:simulate"
        engine.gather(workers, engine.tasks(train, trainings), "train")
        tell(f"every model is trained; simulating {', '.join(request.policies)}")
        policies = {history.name: _policies(history, request) for history in histories}
        simulations = [
            [*at, policy, of.model_dump(mode="json")] for at in addresses for policy, of in policies[at[0]].items()
        ]
        outcomes = iter(engine.gather(workers, engine.tasks(simulate, simulations), "simulate"))
    results = []
    for history in histories:
        own = tuple(PolicyOutcome.from_json(next(outcomes)) for _ in request.policies)
        configured = request.configured or history.model.retrain
        results.append(_written(BacktestResult(history.name, history.model.loss, configured, own)))
        tell(results[-1].sentence())
    return results


def _policies(history: History, request: BacktestRequest) -> dict[str, params.Retrain]:
    named = {**policy_simulator.STANDARD, "configured": request.configured or history.model.retrain}
    return {policy: named[policy] for policy in request.policies}


def _written(result: BacktestResult) -> BacktestResult:
    folder = paths.backtests() / result.name
    files.write_text(folder / "ledger.jsonl", policy_simulator.ledger_text(result.outcomes))
    files.write_json(folder / "summary.json", result.summary())
    seconds = {outcome.policy: round(outcome.seconds, 3) for outcome in result.outcomes}
    files.write_json(folder / "seconds.json", seconds)
    return result


def simulate(name: str, model: str, rows: str, first: str, policy: str, configured: dict[str, Any]) -> dict[str, Any]:
    """What becomes of one policy, on a history that was laid down."""
    simulator = _simulator(name, model, rows, first)
    return simulator.run(policy, params.Retrain.model_validate(configured)).as_json()


@lru_cache(maxsize=1)
def _simulator(name: str, model: str, rows: str, first: str) -> policy_simulator.Simulator:
    """For all policies: they ask for the same losses and alarms."""
    history, trainings = backtest_history.of(name, model, rows, first)
    return policy_simulator.Simulator(history, [backtest_history.fit(each) for each in trainings], detect_drift)


def detect_drift(champion: Fit, since: pd.DataFrame) -> list[OpenAlarm]:
    """The alarms that are open after the newest row, as the monitor finds them."""
    from tasks.modelling import daily_summaries
    from tasks.monitoring.drift import drift

    layouts = daily_summaries.columns(champion.profile)
    learned = daily_summaries.from_bytes(champion.reference.read_bytes(), layouts)
    return [
        OpenAlarm.of(alarm) for alarm in drift.detect(layouts, learned, daily_summaries.summarise(since, layouts)).open
    ]
