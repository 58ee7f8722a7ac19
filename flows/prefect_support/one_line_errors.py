"""Log filter: an error of this platform is one line in a run's log; its traceback goes to var/log/tracebacks.log.

Prefect logs an exception where a task fails, again where its flow does, and once more where the process ends, each time
with a traceback that is mostly its own. That hides the line which says what happened and what to do next. A defect
keeps its traceback.
"""

from __future__ import annotations

import logging
from contextlib import closing
from logging.handlers import RotatingFileHandler
from typing import Any

from tasks.ground import paths
from tasks.ground.errors import EvergreenError

LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")

LARGEST = 5_000_000  # bytes of the file; what was before is kept once, as tracebacks.log.1


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


_FILTER = OneLine()


def install() -> None:
    """Filter from now on, in this process. Repeating it changes nothing."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)  # which adds the same filter once


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
