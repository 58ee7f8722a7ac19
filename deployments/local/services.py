"""The services of the local platform: what each is started with, and how it is probed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments.orchestration import flow_run, work_pool
from tasks.ground import http, paths, settings

HEARTBEAT = timedelta(seconds=60)  # how long ago the last heartbeat of the worker and the watcher may be


@dataclass(frozen=True)
class LocalService:
    """A process that is kept running."""

    name: str
    command: list[str]
    answers: Callable[[datetime], bool]  # whether it answers, or had a heartbeat since then
    after: tuple[str, ...] = ()  # services that must answer before this one is started
    about: str = ""  # what it is for, for the person who starts it
    is_shown: bool = False  # whether its output is for people: then the console shows it
    port: str | None = None  # the setting that names the port it listens on
    serves: bool = False
    """Whether it answers production requests: the others have a lower priority, and the supervisor keeps its socket
    open, so that clients wait while it restarts."""
    shutdown_seconds: float = 15
    hang_seconds: float = 300
    """How long it may not answer before it is killed. Prefect's server, and everything on a machine that swaps, may
    stand still for a minute or two."""
    starts_flows: bool = False  # whether flow runs are its children: they go on when it is killed


def local_services() -> list[LocalService]:
    """The services in the order of their start; they are ended in the opposite one."""
    ports = "PREFECT_SERVER_API_PORT", "MLFLOW_PORT", "EVERGREEN_PORT"
    prefect, mlflow, router = (f"http://127.0.0.1:{os.environ[port]}" for port in ports)
    python = [sys.executable, "-m"]
    return [
        LocalService(
            "prefect",
            [*python, "deployments.orchestration.prefect_server", "--port", os.environ[ports[0]]],
            lambda _: http.answers(f"{prefect}/api/health"),
            about=f"flows, runs, schedules, events   {prefect}",
            port=ports[0],
        ),
        LocalService(
            "mlflow",
            [*python, "deployments.local.mlflow_server"],
            lambda _: http.answers(f"{mlflow}/health"),
            about=f"metrics, models, the registry    {mlflow}",
            port=ports[1],
        ),
        LocalService(
            "router",
            [*python, "deployments.serving.router"],
            lambda _: http.answers(f"{router}/healthz"),
            about=f"every champion; the status page  {router}/status/",
            is_shown=True,
            port=ports[2],
            serves=True,
            hang_seconds=60,
        ),
        LocalService(
            "forkserver",
            [*python, "deployments.orchestration.flow_fork_server", str(flow_run.address())],
            lambda _: http.hears(flow_run.address()),
            about="flow runs are forked from it",
            starts_flows=True,
        ),
        LocalService(
            "worker",
            [*python, "deployments.orchestration.worker"],
            work_pool.worker_answers,
            after=("prefect",),
            about=f"runs flows, from {settings.ROOT}",
            is_shown=True,
            starts_flows=True,
        ),
        LocalService(
            "watch",
            [*python, "deployments.watching.watcher"],
            _watcher_answers,
            after=("prefect", "worker"),  # the worker registers what the watcher triggers
            about="triggers ingest for what lies in the landing zone, rollout for a champion that does not serve",
            is_shown=True,
            shutdown_seconds=3,
        ),
    ]


def environment() -> dict[str, str]:
    """The services' variables beyond the project's environment: the servers' addresses, and how logs look."""
    prefect, mlflow = os.environ["PREFECT_SERVER_API_PORT"], os.environ["MLFLOW_PORT"]
    secret = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    run_line = "%(flow_run_name)s  %(message)s"  # the console adds the time
    return {
        **({"PREFECT_API_AUTH_STRING": secret} if secret else {}),
        # no page of another site may use the API through somebody's browser
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{prefect},http://localhost:{prefect}",
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
        "PREFECT_UI_URL": f"http://127.0.0.1:{prefect}",
        "MLFLOW_BACKEND_STORE_URI": settings.environment()["MLFLOW_TRACKING_URI"],
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": run_line,
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": run_line,
        "PYTHONUNBUFFERED": "1",
    }


def _watcher_answers(since: datetime) -> bool:
    try:
        return paths.watcher_heartbeat().stat().st_mtime >= since.timestamp()
    except FileNotFoundError:
        return False
