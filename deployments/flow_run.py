"""What the worker starts for a flow run: Prefect's engine, its output in var/log/flows.log.

Not in the worker's pipe: when the worker is killed, the next line written there would end the run (rich exits on a
broken pipe); into a file, the run goes on and tells the server itself how it ended.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from deployments import priority

LOG = "flows.log"


def main() -> None:
    """Become Prefect's engine."""
    priority.give_way(os.getpid())  # a request waits for neither a training nor a rollout
    path = Path(os.environ["EVERGREEN_ROOT"]) / "var" / "log" / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    sys.argv = ["prefect.engine"]
    runpy.run_module("prefect.engine", run_name="__main__")


if __name__ == "__main__":
    main()
