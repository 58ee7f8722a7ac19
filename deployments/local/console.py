"""What the stack tells: one line per thing that happens, coloured by who; each service's own log in full."""

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

COLOURS = {"stack": 1, "prefect": 34, "mlflow": 35, "nursery": 33, "worker": 32, "watch": 36, "router": 94}
BAD = 31

FLOW_RUN = re.compile(r"^(ingest|(?:train|rollout|monitor|predict|backtest)/\w+)  (.*)$")
"""A line of a flow run's log, as PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT has it."""

HUSHED = re.compile(
    r"Downloading flow code from storage|Beginning flow run|submitting flow run|submitted to infrastructure"
    r"|Created temporary directory|View (run|experiment) |Waiting up to \d+ seconds for model version"
    r"|prefect\.(events|\w+Observer|_internal)|^\s|^Traceback |^(The above exception|During handling)"
    r"|^\w+(\.\w+)+: \S|^(EOF|OS|Connection\w*|Timeout)Error: "
    r"|\| INFO +\|"  # a flow's own lines have another form
    r"|Received SIG(TERM|INT)|Successfully registered model|Created version"
    r"|(alembic|mlflow\.store)\S* ?[-:]|Worker '\S+' started"
)
"""What tools say beside the story, and tracebacks: that is in the service's log, and not shown."""

KEPT = 8
"""Lines that are shown of a service that does not start."""

MOST_OPEN = 3
"""Files of one service's log that are followed: what was written to one that is older is told."""


def _is_open(path: Path, logs: Sequence[BinaryIO]) -> bool:
    """Whether the file at a path, if there is one, is one of these."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return True
    return any(os.path.samestat(there, os.fstat(log.fileno())) for log in logs)


def _more(log: BinaryIO) -> bytes:
    """What was written since the last time; from the start, if it was cut."""
    if os.fstat(log.fileno()).st_size < log.tell():
        log.seek(0)
    return log.read()


def _close(logs: Sequence[BinaryIO]) -> None:
    for log in logs:
        log.close()


class Story:
    """Writes lines for a person, and keeps the services' logs."""

    def __init__(self, out: IO[str] | None = None) -> None:
        self._out = out or sys.stdout
        self._coloured = self._out.isatty() and "NO_COLOR" not in os.environ

    def tell(self, who: str, what: str, *, bad: bool = False) -> None:
        """One thing that happened."""
        colour, plain = (f"\033[{BAD if bad else COLOURS.get(who, 0)}m", "\033[0m") if self._coloured else ("", "")
        with suppress(OSError):  # a disk that is full, a terminal that is gone: the platform goes on
            print(f"{datetime.now():%H:%M:%S}  {colour}{who:<8}{plain}  {what}", file=self._out, flush=True)

    def log(self, who: str) -> Path:
        """Where a service's own words go."""
        path = paths.log(who)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def last(self, who: str) -> list[str]:
        """The last lines of a service's log."""
        with self.log(who).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
            return log.read().decode(errors="replace").splitlines()[-KEPT:]

    def follow(self, who: str) -> Callable[[], None]:
        """Tells, each time it is called, what was written to a service's log since the last time."""
        path, rest = self.log(who), b""
        logs = [path.open("rb")]
        logs[0].seek(0, os.SEEK_END)

        def tell() -> None:
            nonlocal rest
            if not _is_open(path, logs):  # begun anew, or removed by somebody: what writes to the old one goes on
                logs.append(path.open("rb"))
                if len(logs) > MOST_OPEN:
                    logs.pop(0).close()
            *lines, rest = (rest + b"".join(_more(log) for log in logs)).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                if text and not HUSHED.search(text):
                    run = FLOW_RUN.match(text)
                    self.tell(run[1] if run else who, run[2] if run else text)

        weakref.finalize(tell, _close, logs)
        return tell
