"""An error of this platform is one line in a run's log and on the terminal; its traceback is in var/log/tracebacks.log.

Prefect logs an exception where a task fails, again where its flow does, and once more where the process ends, each time
with a traceback that is mostly its own. Of an error that says what happened and what to do next, that hides the line. A
defect keeps all of it.
"""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from typing import Any

from tasks.ground import paths
from tasks.ground.errors import EvergreenError

LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")

LARGEST = 5_000_000
"""Bytes of the file; what was before is kept once, as tracebacks.log.1."""


class OneLine(logging.Filter):
    """Has each error be told once, in one line."""

    def __init__(self) -> None:
        super().__init__()
        self._told: list[EvergreenError] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged; changes it to one line."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if not isinstance(error, EvergreenError):
            return not self._repeats(record)
        if any(error is one for one in self._told):
            return False
        self._told.append(error)
        _keep(record, error)
        record.msg, record.args, record.exc_info, record.exc_text = _text(error), (), None, None
        return True

    def _repeats(self, record: logging.LogRecord) -> bool:
        """Whether it only says how a task or flow ended that raised what was told already."""
        text = record.getMessage()
        return text.startswith("Finished in state Failed(") and any(_text(error) in text for error in self._told)


def _text(error: EvergreenError) -> str:
    """As Prefect writes it into the state of the run."""
    return f"{type(error).__name__}: {error}"


def install() -> None:
    """From now on, in this process. Doing it again changes nothing."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(one, OneLine) for one in logger.filters):
            logger.addFilter(_FILTER)


_FILTER = OneLine()


def _keep(record: logging.LogRecord, error: EvergreenError) -> None:
    path = paths.log("tracebacks")
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=LARGEST, backupCount=1, encoding="utf-8")
    whole: dict[str, Any] = {**record.__dict__, "msg": type(error).__name__, "args": ()}
    handler.setFormatter(
        logging.Formatter("%(asctime)s  %(flow_run_name)s  %(message)s", defaults={"flow_run_name": ""})
    )
    try:
        handler.emit(logging.makeLogRecord(whole))
    finally:
        handler.close()
