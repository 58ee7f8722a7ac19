"""The worker: it registers the flows' deployments, and then becomes Prefect's process worker.

So a worker runs what this checkout says, also after a restart with another params.yaml.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from deployments.orchestration import registration, work_pool
from tasks.ground import addresses, exit_codes, http, params
from tasks.ground.errors import ParamsError

PAUSE_SECONDS = 2.0  # between two looks at a params.yaml that cannot be read

ASIDE = "--no-router"
"""No router runs on this machine: what needs one is left to other workers."""

PREFECT_SECONDS = 60.0
"""How often a worker tells that no Prefect server answers yet; it waits on: one of another machine may come late."""

MLFLOW_SECONDS = 60.0
"""How long a worker waits for MLflow: a flow that is due at once needs it. Later, a run waits by its retries."""


@exit_codes.command
def main() -> int:
    """Register, then become the worker. Returns only when the Prefect server does not answer."""
    _wait_for_prefect()
    _register()
    store = os.environ["MLFLOW_TRACKING_URI"]
    if store.startswith("http"):
        http.wait_until(lambda: http.answers(f"{store}/health"), MLFLOW_SECONDS)
    sys.stdout.flush()
    commands = Path(sys.executable).parent
    os.environ["PATH"] = f"{commands}{os.pathsep}{os.environ['PATH']}"  # flow runs are started as `python`
    worker = str(commands / "prefect")
    command = [worker, "worker", "start", "--pool", work_pool.POOL, "--type", "process", "--name", work_pool.worker()]
    if ASIDE in sys.argv[1:]:
        command += ["--work-queue", "default"]
    return os.execv(worker, command)  # noqa: S606 - no shell is wanted


def _wait_for_prefect() -> None:
    health = f"{os.environ['PREFECT_API_URL']}/health"
    while not http.wait_until(lambda: http.answers(health), PREFECT_SECONDS):
        print(f"waits for the Prefect server: {addresses.masked(health)} does not answer", flush=True)


def _register() -> None:
    """Waits as long as params.yaml cannot be read: to end would end the platform, and with it what serves."""
    reported = ""
    while True:
        try:
            print("\n".join(registration.deploy(params.load())), flush=True)
        except ParamsError as error:
            if str(error) != reported:
                print(f"no flow runs until params.yaml is repaired: {error}", flush=True)
            reported = str(error)
            time.sleep(PAUSE_SECONDS)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
