"""Backtest: retrain policies compared on the history of a model, in virtual time.

`evergreen backtest` runs it at a terminal, the flow `backtest` in Prefect. It touches no registry, no data version and
no build folder.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, params, paths
from tasks.ground.errors import Mistake, did_you_mean
from tasks.lifecycle import backtest_history, policy_simulator
from tasks.lifecycle.backtest_result import EVERY, BacktestRequest, BacktestResult

if TYPE_CHECKING:
    import pandas as pd

    from tasks.lifecycle.backtest_history import Fit, History
    from tasks.lifecycle.policy_simulator import PolicyOutcome
    from tasks.modelling.daily_summaries import DaySummaries
    from tasks.monitoring.retrain_policy import OpenAlarm


def run(
    names: Sequence[str],
    config: params.Params,
    request: BacktestRequest,
    jobs: int = 2,
    tell: Callable[[str], Any] = print,
) -> list[BacktestResult]:
    """Simulate the policies on some models; writes var/backtest/<model>/{ledger.jsonl,summary.json,seconds.json}.

    Args:
        names: models of params.yaml.
        config: params.yaml.
        request: which history, and which policies.
        jobs: how many processes; 1: this one.
        tell: takes lines about the progress.

    Raises:
        DataMissing: a history is too short, or its first candidate is refused.
    """
    for name in request.policies:
        if name not in EVERY:
            raise Mistake(f"there is no policy {name!r}{did_you_mean(name, list(EVERY))}")
    with _workers(jobs) as workers:
        if workers is None:
            return [_simulate(name, config, request, None, tell) for name in names]
        with ThreadPoolExecutor(len(names)) as threads:  # they only wait for the workers
            return list(threads.map(lambda name: _simulate(name, config, request, workers, tell), names))


@contextmanager
def _workers(jobs: int) -> Iterator[Executor | None]:
    """Spawned processes: a fork would take along the threads and the servers of this one."""
    if jobs == 1:
        yield None
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as workers:
        yield workers


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
    simulate = partial(_outcomes, history, fits, policies)
    outcomes = workers.submit(simulate).result() if workers else simulate()
    result = BacktestResult(name, history.model.gate.loss, named["configured"], tuple(outcomes))
    folder = paths.backtests() / name
    files.write_text(folder / "ledger.jsonl", policy_simulator.ledger_text(outcomes))
    files.write_json(folder / "summary.json", result.summary())
    files.write_json(folder / "seconds.json", {outcome.policy: round(outcome.seconds, 3) for outcome in outcomes})
    tell(result.sentence())
    return result


def _outcomes(history: History, fits: list[Fit], policies: dict[str, params.Retrain]) -> list[PolicyOutcome]:
    simulator = policy_simulator.Simulator(history, fits, Drift())
    return [simulator.run(name, policy) for name, policy in policies.items()]


class Drift:
    """Detects drift as the monitor does: the days since a champion was trained against the days it learned from."""

    def __init__(self) -> None:
        self._learned: dict[str, DaySummaries] = {}

    def __call__(self, champion: Fit, learned: pd.DataFrame, since: pd.DataFrame) -> Sequence[OpenAlarm]:
        """The alarms that are open on the last of the days."""
        from tasks.modelling import daily_summaries
        from tasks.monitoring.drift import drift
        from tasks.monitoring.retrain_policy import OpenAlarm

        layouts = daily_summaries.columns(champion.profile)
        if champion.key not in self._learned:
            self._learned[champion.key] = daily_summaries.summarise(learned, layouts)
        report = drift.detect(layouts, self._learned[champion.key], daily_summaries.summarise(since, layouts))
        return [OpenAlarm.of(alarm) for alarm in report.open]


def compare(
    names: Sequence[str],
    config: params.Params,
    request: BacktestRequest,
    jobs: int,
    page: Path | None = None,
    picture: Path | None = None,
) -> None:
    """Run the backtests of some models (none: all), print the tables, draw the picture, and write the page.

    Raises:
        DataMissing: as `run`.
    """
    from tasks.lifecycle import backtest_report

    results = run(names or list(config.models), config, request, jobs, tell=lambda line: print(line, flush=True))
    picture = picture or paths.backtests() / "backtest.png"
    with files.replacing(picture) as beside:
        beside.write_bytes(backtest_report.picture(results))
    for result in results:
        print(f"\n{backtest_report.table(result)}")
    if page:
        files.write_text(page, backtest_report.page(results, request, jobs))
    print(f"\ndrawn: {picture}; every decision with its reasons: {paths.backtests()}/<model>/ledger.jsonl")
