"""Where this project keeps its state, and what every tool is told: the one place for both.

`environment()` is what `make shell` exports, and what every way in (`python -m tasks`, the flows, `make up`)
applies to its own process and those it starts; the local stack says the rest (deployments/services.py). A variable
that is already set wins, so one setting moves a store to a real server: `MLFLOW_TRACKING_URI=https://… make run`.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(os.environ.get("EVERGREEN_ROOT") or Path(__file__).resolve().parent.parent)
"""The project that is worked on: the checkout this file is part of, or the one EVERGREEN_ROOT names."""

BUILD = ROOT / "build"
"""What stages make. Nothing in it is a source: `rm -rf build` loses no version."""

VAR = ROOT / "var"
"""What services keep: databases, logs, releases, memos."""


def environment() -> dict[str, str]:
    """Every variable the project's tools need, with its default."""
    prefect_port = os.environ.get("PREFECT_SERVER_API_PORT", "4200")
    store = f"sqlite:///{VAR / 'mlflow' / 'mlflow.db'}"
    return {
        "EVERGREEN_ROOT": str(ROOT),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        # where each tool's state is
        "PREFECT_HOME": str(VAR / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect_port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": prefect_port,
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_BACKEND_STORE_URI": os.environ.get("MLFLOW_TRACKING_URI") or store,  # `mlflow ui` reads no other name
        "MLFLOW_PORT": "5000",
        "EVERGREEN_HOST": "127.0.0.1",
        "EVERGREEN_PORT": "3000",
        "BENTOML_HOME": str(VAR / "bentoml"),
        "BENTOML_HOST": "127.0.0.1",
        "DVC_SITE_CACHE_DIR": str(VAR / "dvc"),
        # telemetry off
        "DO_NOT_TRACK": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "BENTOML_DO_NOT_TRACK": "True",
        "DVC_NO_ANALYTICS": "1",
        "DVC_STUDIO_OFFLINE": "1",
        "GX_ANALYTICS_ENABLED": "false",
        # a server restart must not kill runs that hold a concurrency slot: by default leases are kept in memory
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        # a wake is answered within seconds: a worker asks the server this often for runs that are due
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        # a flow tells its story; what Prefect says of itself is heard from WARNING on
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
        "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s  %(flow_run_name)s  %(message)s",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # OpenMP threads spin while they wait: beside one busy process a fit on two threads is three times
        # slower than on one, and a fit on one is never much slower
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
    }


def apply() -> None:
    """Make this process, and those it starts, use the project's state. What is already set stays."""
    for name, value in environment().items():
        os.environ.setdefault(name, value)
    venv_bin = str(ROOT / ".venv" / "bin")
    if venv_bin not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = environment()["PATH"]


def exports() -> str:
    """The environment as shell commands, for `eval "$(python -m tasks env)"`."""
    from shlex import quote

    kept = {name: os.environ.get(name, value) for name, value in environment().items() if name != "PATH"}
    lines = [f"export {name}={quote(value)}" for name, value in kept.items()]
    return "\n".join([*lines, f'export PATH={quote(str(ROOT / ".venv" / "bin"))}:"$PATH"'])
