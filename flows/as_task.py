"""A plain step as a Prefect task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE


def as_task(step: Callable[..., Any], name: str, retries: int = 0) -> Callable[..., Any]:
    """The step under a name that says what it does. Nothing is cached: each step looks itself at what is there."""
    wrap = task(name=name, task_run_name=name, retries=retries, retry_delay_seconds=2, cache_policy=NO_CACHE)
    return wrap(step)
