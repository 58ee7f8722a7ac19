"""Event log of the platform for people: a line per event, coloured by service; each service keeps a log of its own."""

from __future__ import annotations

import os
import re
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, BinaryIO

from tasks.ground import paths

COLOURS = {"stack": 1, "prefect": 34, "mlflow": 35, "forkserver": 33, "worker": 32, "watch": 36, "router": 94}
RED = 31

FLOW_RUN = re.compile(r"^(ingest|(?:train|rollout|monitor|predict|backtest)/\w+)  (.*)$")
"""A line of a flow run's log, as PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT has it."""

NOISE = re.compile(
    r"Downloading flow code from storage|Beginning flow run|submitting flow run|submitted to infrastructure"
    r"|Created temporary directory|View (at|run|experiment) |Waiting up to \d+ seconds for model version"
    r"|prefect\.(events|\w+Observer|_internal)|^\s|^Traceback |^(The above exception|During handling)"
    r"|^\w+(\.\w+)+: \S|^(EOF|OS|Connection\w*|Timeout)Error: "
    r"|\| INFO +\|"  # a flow's own lines have another form
    r"|Received SIG(TERM|INT)|Successfully registered model|Created version"
    r"|(alembic|mlflow\.store)\S* ?[-:]|Worker '\S+' started"
)
"""What tools print about themselves, and tracebacks: these lines stay in the service's log."""

TAIL = 8  # lines that are shown of a service that does not start
MOST_OPEN = 3  # files of one service's log that are followed at once, as the log may be removed and begun anew


class Console:
    """Writes events for a person, and follows the services' logs."""

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out or sys.stdout
        self._coloured = self._out.isatty() and "NO_COLOR" not in os.environ

    def event(self, source: str, text: str, *, bad: bool = False) -> None:
        """Write one event."""
        colour, plain = (f"\033[{RED if bad else COLOURS.get(source, 0)}m", "\033[0m") if self._coloured else ("", "")
        with suppress(OSError):  # a disk that is full, a terminal that is gone: the platform goes on
            print(f"{datetime.now():%H:%M:%S}  {colour}{source:<10}{plain}  {text}", file=self._out, flush=True)

    def log(self, service: str) -> Path:
        """The log of a service; it is made where it does not exist."""
        path = paths.log(service)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def tail(self, service: str) -> list[str]:
        """The last lines of a service's log."""
        with self.log(service).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
            return log.read().decode(errors="replace").splitlines()[-TAIL:]

    def follow(self, service: str) -> Callable[[], None]:
        """A function that writes, at each call, the lines that a service's log got since the last call."""
        path, rest = self.log(service), b""
        logs = [path.open("rb")]
        logs[0].seek(0, os.SEEK_END)

        def write_new() -> None:
            nonlocal rest
            if not _is_open(path, logs):  # begun anew, or removed by somebody: whoever has the old one open writes on
                logs.append(path.open("rb"))
                if len(logs) > MOST_OPEN:
                    logs.pop(0).close()
            *lines, rest = (rest + b"".join(_read_new(log) for log in logs)).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                if text and not NOISE.search(text):
                    run = FLOW_RUN.match(text)
                    self.event(run[1] if run else service, run[2] if run else text)

        weakref.finalize(write_new, _close, logs)
        return write_new


def _is_open(path: Path, logs: Sequence[BinaryIO]) -> bool:
    """Whether the file at a path is one of these, or there is no such file."""
    try:
        current = path.stat()
    except FileNotFoundError:
        return True
    return any(os.path.samestat(current, os.fstat(log.fileno())) for log in logs)


def _read_new(log: BinaryIO) -> bytes:
    """What was written since the last time; from the start, if the file was cut."""
    if os.fstat(log.fileno()).st_size < log.tell():
        log.seek(0)
    return log.read()


def _close(logs: Sequence[BinaryIO]) -> None:
    for log in logs:
        log.close()
