"""The worker: first the flows' deployments are registered, then Prefect's process worker takes this process' place.

So whatever a worker is about to run is what this checkout says, also after a restart with another params.yaml.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from deployments.orchestration import registration
from deployments.orchestration.work_pool import POOL, WORKER
from tasks.ground import http, params
from tasks.ground.errors import EvergreenError, ParamsError

PAUSE_SECONDS = 2.0
"""Between two looks at a params.yaml that cannot be read."""


def main() -> int:
    """Register, then become the worker. Returns only when the Prefect server does not answer."""
    try:
        _register()
    except EvergreenError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    _wait_for_mlflow(60)
    sys.stdout.flush()
    worker = str(Path(sys.executable).parent / "prefect")
    command = [worker, "worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER]
    return os.execv(worker, command)  # noqa: S606 - no shell is wanted


def _register() -> None:
    """Waits as long as there is a mistake in params.yaml: to end would end the platform, and with it what serves."""
    before = ""
    while True:
        try:
            lines = registration.deploy(params.load())
        except ParamsError as error:
            if str(error) != before:
                print(f"no flow runs until params.yaml is mended: {error}", flush=True)
            before = str(error)
            time.sleep(PAUSE_SECONDS)
        else:
            print("\n".join(lines), flush=True)
            return


def _wait_for_mlflow(seconds: float) -> None:
    """A flow that is due at once would not find it; later, a run waits for it by its retries."""
    store, deadline = os.environ["MLFLOW_TRACKING_URI"], time.monotonic() + seconds
    while store.startswith("http") and not http.answers(f"{store}/health") and time.monotonic() < deadline:
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
