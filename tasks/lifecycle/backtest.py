"""A history lived through again under several retrain policies side by side, in virtual time.

`evergreen backtest` does it at a terminal, the flow `backtest` from Prefect. Nothing that serves is touched: no
registry, no data version, no build folder.
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

    from tasks.lifecycle.policy_simulator import PolicyOutcome
    from tasks.monitoring import retrain_policy


def run(
    names: Sequence[str], said: params.Params, asked: BacktestRequest, jobs: int = 2, tell: Callable[[str], Any] = print
) -> list[BacktestResult]:
    """Replay the histories of some models; writes var/backtest/<model>/{ledger.jsonl,summary.json,seconds.json}.

    Args:
        names: models of params.yaml.
        said: params.yaml.
        asked: which history, and which policies.
        jobs: so many processes work; 1: this one.
        tell: is told how it goes.

    Raises:
        DataMissing: a history is too short, or its first candidate is refused.
    """
    for name in asked.policies:
        if name not in EVERY:
            raise Mistake(f"there is no policy {name!r}{did_you_mean(name, list(EVERY))}")
    with _workers(jobs) as workers:
        if workers is None:
            return [_one(name, said, asked, None, tell) for name in names]
        with ThreadPoolExecutor(len(names)) as beside:  # the threads only wait for the workers
            return list(beside.map(lambda name: _one(name, said, asked, workers, tell), names))


@contextmanager
def _workers(jobs: int) -> Iterator[Executor | None]:
    """So many processes that begin from nothing: a fork would take along the threads and the servers of this one."""
    if jobs == 1:
        yield None
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as workers:
        yield workers


def _one(
    name: str, said: params.Params, asked: BacktestRequest, workers: Executor | None, tell: Callable[[str], Any]
) -> BacktestResult:
    lived = backtest_history.read(name, said, asked.source, since=asked.since, until=asked.until)
    trainings = backtest_history.trainings(lived)
    tell(f"{name}: {len(lived.rows):,} rows in {len(lived.weeks)} weeks, {len(trainings)} decisions")
    fits = list((workers.map if workers else map)(backtest_history.fit, trainings))
    chosen = {**policy_simulator.STANDARD, "configured": asked.configured or lived.model.retrain}
    policies: dict[str, params.Retrain] = {policy: chosen[policy] for policy in asked.policies}
    tell(f"{name}: every model is there; {', '.join(policies)} live through {len(lived.moments)} weeks")
    live = partial(_live, lived, fits, policies)
    replays = workers.submit(live).result() if workers else live()
    found = BacktestResult(name, lived.model.gate.loss, chosen["configured"], tuple(replays))
    folder = paths.backtests() / name
    files.write_text(folder / "ledger.jsonl", policy_simulator.ledger_text(replays))
    files.write_json(folder / "summary.json", found.summary())
    files.write_json(folder / "seconds.json", {replay.policy: round(replay.seconds, 3) for replay in replays})
    tell(found.sentence())
    return found


def _live(
    lived: backtest_history.History, fits: list[backtest_history.Fit], policies: dict[str, params.Retrain]
) -> list[PolicyOutcome]:
    world = policy_simulator.Simulator(lived, fits, Drift(lived.name))
    return [world.replay(name, said) for name, said in policies.items()]


class Drift:
    """Looks for drift as the monitor does: the days since a champion was trained against the days it learned from."""

    def __init__(self, name: str) -> None:
        self._model = name
        self._learned: dict[str, Any] = {}

    def __call__(
        self, champion: backtest_history.Fit, learned: pd.DataFrame, since: pd.DataFrame
    ) -> Sequence[retrain_policy.OpenAlarm]:
        """The alarms that are open on the last of the days."""
        from tasks.modelling import daily_summaries
        from tasks.monitoring import retrain_policy
        from tasks.monitoring.drift import drift

        wanted = daily_summaries.columns(champion.profile)
        if champion.key not in self._learned:
            self._learned[champion.key] = daily_summaries.summarise(learned, wanted)
        report = drift.detect(wanted, self._learned[champion.key], daily_summaries.summarise(since, wanted))
        return [retrain_policy.OpenAlarm.of(alarm) for alarm in report.open]


def compare(
    names: Sequence[str],
    said: params.Params,
    asked: BacktestRequest,
    jobs: int,
    page: Path | None = None,
    picture: Path | None = None,
) -> None:
    """Replay the histories of some models (none: all), print the tables, draw the picture, and write the page.

    Raises:
        DataMissing: as `run`.
    """
    from tasks.lifecycle import backtest_report

    results = run(names or list(said.models), said, asked, jobs, tell=lambda line: print(line, flush=True))
    picture = picture or paths.backtests() / "backtest.png"
    with files.replacing(picture) as beside:
        beside.write_bytes(backtest_report.picture(results))
    for result in results:
        print(f"\n{backtest_report.table(result)}")
    if page:
        files.write_text(page, backtest_report.page(results, asked, jobs))
    print(f"\ndrawn: {picture}; every decision with its reasons: {paths.backtests()}/<model>/ledger.jsonl")
