"""Adapters: a plain step as a Prefect task, a lock that keeps a flow's runs apart, errors as one line of a run's log.

Prefect logs an exception where a task fails, again where its flow does, and once more where the process ends, each time
with a traceback that is mostly its own. That hides the line which says what happened and what to do next. So an error
of this platform is logged once, as one line; its traceback goes to var/log/tracebacks.log. A defect keeps its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from logging.handlers import RotatingFileHandler
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.prefect_support import api, progress
from tasks.ground import leases, paths
from tasks.ground.errors import EvergreenError
from tasks.journal import journal

LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")

LARGEST = 5_000_000  # bytes of the file; what was before is kept once, as tracebacks.log.1


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold a lease while the flow runs; logs of this run and of those that wait for it, and the journal, name it."""
    url = api.run_url(str(flow_run.id))
    with leases.hold(name, get_run_logger().info, f"{flow_run.name}, {url}"), journal.in_run(url):
        yield


def as_task(step: Callable[..., Any], name: str, retries: int = 0) -> Callable[..., Any]:
    """The step as a Prefect task. Nothing is cached: each step looks at the current state itself."""
    wrap = task(
        name=name,
        task_run_name=name,
        retries=retries,
        retry_delay_seconds=2,
        retry_condition_fn=_may_pass,
        cache_policy=NO_CACHE,
    )

    @wraps(step)
    def shown(*arguments: Any, **named: Any) -> Any:
        with progress.of_engine():
            return step(*arguments, **named)

    return wrap(shown)


def _may_pass(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether a step may succeed when it is tried again: another holder of its lease does not give it back."""
    return not isinstance(state.result(raise_on_failure=False), leases.LeaseLost)


class OneLine(logging.Filter):
    """Passes each error once, as one line."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: list[EvergreenError] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged; changes it to one line."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if not isinstance(error, EvergreenError):
            return not self._repeats(record)
        if any(error is logged for logged in self._logged):
            return False
        self._logged.append(error)
        _keep_traceback(record, error)
        record.msg, record.args, record.exc_info, record.exc_text = _text(error), (), None, None
        return True

    def _repeats(self, record: logging.LogRecord) -> bool:
        """Whether a record only says that a task or flow failed by an error that was logged already."""
        text = record.getMessage()
        return text.startswith("Finished in state Failed(") and any(_text(error) in text for error in self._logged)


def _text(error: EvergreenError) -> str:
    """As Prefect writes it into the state of the run."""
    return f"{type(error).__name__}: {error}"


def _keep_traceback(record: logging.LogRecord, error: EvergreenError) -> None:
    path = paths.log("tracebacks")
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=LARGEST, backupCount=1, encoding="utf-8")
    full: dict[str, Any] = {**record.__dict__, "msg": type(error).__name__, "args": ()}
    line = "%(asctime)s  %(flow_run_name)s  %(message)s"
    handler.setFormatter(logging.Formatter(line, defaults={"flow_run_name": ""}))
    with closing(handler):
        handler.emit(logging.makeLogRecord(full))


_FILTER = OneLine()
for _name in LOGGERS:
    logging.getLogger(_name).addFilter(_FILTER)
