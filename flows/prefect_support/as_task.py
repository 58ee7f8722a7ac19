"""Adapters: a plain step as a Prefect task, and a lock that keeps a flow's runs apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows.prefect_support import api, one_line_errors
from tasks.ground import files

one_line_errors.install()


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold a lock while the flow runs; the logs of this run and of those that wait for it link to each other."""
    run = f"{flow_run.name}, {api.run_url(str(flow_run.id))}"
    with files.lock(name, get_run_logger().info, run):
        yield


def as_task(step: Callable[..., Any], name: str, retries: int = 0) -> Callable[..., Any]:
    """The step as a Prefect task. Nothing is cached: each step looks at the current state itself."""
    wrap = task(name=name, task_run_name=name, retries=retries, retry_delay_seconds=2, cache_policy=NO_CACHE)
    return wrap(step)
