"""Backtest: retrain policies compared on the history of a model, in virtual time.

`evergreen backtest` runs it at a terminal, the flow `backtest` in Prefect. It touches no registry, no data version and
no build folder.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import pandas as pd

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
    jobs: int = 2,
    tell: Callable[[str], Any] = print,
) -> list[BacktestResult]:
    """Simulate the policies on some models; writes var/backtest/<model>/{ledger.jsonl,summary.json,seconds.json}.

    Of several processes (`jobs`) each trains models; one is this process. `tell` takes lines about the progress.

    Raises:
        DataMissing: a history is too short, or its first candidate is refused.
    """
    for name in request.policies:
        if name not in EVERY:
            raise Mistake(f"there is no policy {name!r}{did_you_mean(name, list(EVERY))}")
    if jobs == 1:
        return [_simulate(name, config, request, None, tell) for name in names]
    spawn = multiprocessing.get_context("spawn")  # a fork would take along the threads and servers of this process
    with ProcessPoolExecutor(jobs, spawn) as workers, ThreadPoolExecutor(len(names)) as threads:
        return list(threads.map(lambda name: _simulate(name, config, request, workers, tell), names))


def _simulate(
    name: str, config: params.Params, request: BacktestRequest, workers: Executor | None, tell: Callable[[str], Any]
) -> BacktestResult:
    history = backtest_history.read(name, config, request.source, since=request.since, until=request.until)
    trainings = backtest_history.trainings(history)
    tell(f"{name}: {len(history.rows):,} rows in {len(history.weeks)} weeks, {len(trainings)} decisions")
    fits = list((workers.map if workers else map)(backtest_history.fit, trainings))
    named = {**policy_simulator.STANDARD, "configured": request.configured or history.model.retrain}
    policies: dict[str, params.Retrain] = {policy: named[policy] for policy in request.policies}
    tell(f"{name}: every model is trained; simulating {', '.join(policies)} over {len(history.moments)} weeks")
    arguments = history, fits, policies
    outcomes = workers.submit(_outcomes, *arguments).result() if workers else _outcomes(*arguments)
    result = BacktestResult(name, history.model.loss, named["configured"], tuple(outcomes))
    folder = paths.backtests() / name
    files.write_text(folder / "ledger.jsonl", policy_simulator.ledger_text(outcomes))
    files.write_json(folder / "summary.json", result.summary())
    files.write_json(folder / "seconds.json", {outcome.policy: round(outcome.seconds, 3) for outcome in outcomes})
    tell(result.sentence())
    return result


def _outcomes(history: History, fits: list[Fit], policies: dict[str, params.Retrain]) -> list[PolicyOutcome]:
    simulator = policy_simulator.Simulator(history, fits, detect_drift)
    return [simulator.run(name, policy) for name, policy in policies.items()]


def detect_drift(champion: Fit, since: pd.DataFrame) -> list[OpenAlarm]:
    """The alarms that are open after the newest row, as the monitor finds them."""
    from tasks.modelling import daily_summaries
    from tasks.monitoring.drift import drift

    layouts = daily_summaries.columns(champion.profile)
    learned = daily_summaries.from_bytes(champion.reference.read_bytes(), layouts)
    return [
        OpenAlarm.of(alarm) for alarm in drift.detect(layouts, learned, daily_summaries.summarise(since, layouts)).open
    ]
