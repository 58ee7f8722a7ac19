"""backtest: retrain policies compared on the history of a model, in virtual time.

It touches no registry, no data version and no build folder. `evergreen backtest` is the same at a terminal, without a
Prefect server.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import date
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.prefect_support.as_task import as_task
from tasks.ground import params
from tasks.lifecycle import backtest_history
from tasks.lifecycle.backtest import EVERY, BacktestRequest, BacktestResult, Policy, run


@flow(name="backtest", flow_run_name="backtest/{model}", description=__doc__)
def backtest(
    model: str,
    since: date | None = None,
    until: date | None = None,
    policies: list[Policy] = list(EVERY),  # noqa: B006 - Prefect shows it in the form, and hands over a copy
    source: backtest_history.Source = "data",
    configured: params.Retrain | None = None,
) -> State[Any]:
    """Compare retrain policies on the history of a model.

    Args:
        model: a name below `models` in params.yaml.
        since: the day of the first decision; empty: the first Monday with enough weeks before it.
        until: the day after the last row that counts; empty: all there are.
        policies: which to compare.
        source: data: the partitions of the data version; upstream: all that the upstream of params.yaml can deliver.
        configured: a policy to try in place of the one in params.yaml (`models.<model>.retrain`).
    """
    request = BacktestRequest(source, since, until, tuple(policies), configured)
    simulate = as_task(run, f"simulate policies on the history of {model}")
    result: BacktestResult = simulate([model], params.load(), request, tell=get_run_logger().info)[0]
    _publish(result)
    return Completed(message=result.sentence())


def _publish(result: BacktestResult) -> None:
    from tasks.lifecycle import backtest_report

    drawn = b64encode(backtest_report.picture([result])).decode()
    create_markdown_artifact(
        key=f"backtest-{result.name.replace('_', '-')}",
        markdown=f"{backtest_report.table(result)}\n\n![the backtest](data:image/png;base64,{drawn})\n",
        description=result.sentence(),
    )
