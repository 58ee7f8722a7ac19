"""Tune: better hyper-parameters of a model are searched on folds of its training rows, and proposed as an edit.

It trains, judges and promotes nothing. `evergreen tune` is the same at a terminal, without a Prefect server.
"""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.prefect_support.as_task import as_task
from flows.prefect_support.progress import ProgressBar
from tasks.ground import params
from tasks.lifecycle import tune as tuning
from tasks.lifecycle import tune_report
from tasks.lifecycle.tune_result import TuneResult
from tasks.training.tuning.study import StudyProgress


@flow(name="tune", flow_run_name="tune/{model}", description=__doc__)
def tune(
    model: str,
    trials: Annotated[int | None, Field(ge=1, le=10_000)] = None,
    budget_s: Annotated[float | None, Field(gt=0)] = None,
    workers: Annotated[int | None, Field(ge=1, le=8)] = None,
    configured: params.Tune | None = None,
) -> State[Any]:
    """Search better hyper-parameters. A run that was killed is continued by the next one.

    Args:
        model: a name below `models` in params.yaml.
        trials: how many points of the space are tried; empty: as params.yaml has it.
        budget_s: CPU seconds of all fits; empty: as params.yaml has it.
        workers: processes of this machine that fit; empty: as EVERGREEN_ENGINE says.
        configured: a search to run in place of the one in params.yaml (`models.<model>.tune`).
    """
    request = tuning.TuneRequest(trials, budget_s, workers, configured)
    bar = ProgressBar(f"tune-progress-{model}", "the present parameters come first")

    def tell(progress: StudyProgress) -> None:
        bar.show(progress.trials / progress.of, str(progress))

    search = as_task(tuning.run, f"search hyper-parameters of {model}")
    result: TuneResult = search(model, params.load(), request, tell=tell, log=get_run_logger().info)
    key = f"tune-{model.replace('_', '-')}"
    create_markdown_artifact(key=key, markdown=tune_report.markdown(result), description=result.sentence())
    return Completed(message=result.sentence())
