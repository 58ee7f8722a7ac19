"""The services of the local stack: what each is started with, and how it is known to answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from deployments.orchestration import flow_run, work_pool
from tasks.ground import http, paths, settings


@dataclass(frozen=True)
class Service:
    """One process that is kept running."""

    name: str
    command: list[str]
    answers: Callable[[datetime], bool]
    """Whether it was heard since then."""
    after: tuple[str, ...] = ()
    """Services that must answer before this one is started."""
    says: str = ""
    """What a person does with it."""
    story: bool = False
    """Whether its output is for people: then it is shown, not only kept."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """The setting that moves it → the port it listens on."""
    holds: tuple[str, int] | None = None
    """Host and port on which the stack listens for it: while the service is restarted, who connects waits."""
    shutdown_seconds: float = 15
    hang_seconds: float = 300
    """Who has not answered for so long hangs: it is killed, and so restarted. Prefect's server, and all on a machine
    that swaps, may stand for a minute or two."""
    serves: bool = False
    """Whether it answers production: the others give way to it."""
    starts_flows: bool = False
    """Whether flow runs are its children: they go on when it is killed."""


def services() -> list[Service]:
    """The services, in the order they are started; they are ended in the opposite one."""
    prefect, mlflow = int(os.environ["PREFECT_SERVER_API_PORT"]), int(os.environ["MLFLOW_PORT"])
    host, router = os.environ["EVERGREEN_HOST"], int(os.environ["EVERGREEN_PORT"])
    python = [sys.executable, "-m"]
    return [
        Service(
            "prefect",
            [*python, "deployments.orchestration.prefect_server", "--port", str(prefect)],
            lambda _: http.answers(f"http://127.0.0.1:{prefect}/api/health"),
            says=f"flows, runs, schedules, events   http://127.0.0.1:{prefect}",
            ports={"PREFECT_SERVER_API_PORT": prefect},
        ),
        Service(
            "mlflow",
            [*python, "deployments.local.mlflow_server"],
            lambda _: http.answers(f"http://127.0.0.1:{mlflow}/health"),
            says=f"metrics, models, the registry    http://127.0.0.1:{mlflow}",
            ports={"MLFLOW_PORT": mlflow},
        ),
        Service(
            "router",
            [*python, "deployments.serving.router"],
            lambda _: http.answers(f"http://127.0.0.1:{router}/healthz"),
            says=f"every champion; the status page  http://127.0.0.1:{router}/status/",
            story=True,
            ports={"EVERGREEN_PORT": router},
            holds=(host, router),
            hang_seconds=60,
            serves=True,
        ),
        Service(
            "nursery",
            [*python, "deployments.orchestration.flow_fork_server", str(flow_run.address())],
            lambda _: http.hears(flow_run.address()),
            says="flow runs are forked from it",
            starts_flows=True,
        ),
        Service(
            "worker",
            [*python, "deployments.orchestration.worker"],
            work_pool.worker_answers,
            after=("prefect",),
            says=f"runs flows, from {settings.ROOT}",
            story=True,
            shutdown_seconds=20,
            starts_flows=True,
        ),
        Service(
            "watch",
            [*python, "deployments.watching.watcher"],
            _watch_answers,
            after=("prefect", "worker"),  # which registers what it wakes
            says="wakes ingest for what lies in the landing zone, rollout for who is champion",
            story=True,
            shutdown_seconds=3,
        ),
    ]


def environment() -> dict[str, str]:
    """What the services are told beyond the project's environment: who speaks to whom."""
    prefect, mlflow = os.environ["PREFECT_SERVER_API_PORT"], os.environ["MLFLOW_PORT"]
    secret = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    return {
        **({"PREFECT_API_AUTH_STRING": secret} if secret else {}),
        # no page of another site may speak to the API through somebody's browser
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{prefect},http://localhost:{prefect}",
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
        "PREFECT_UI_URL": f"http://127.0.0.1:{prefect}",
        "MLFLOW_BACKEND_STORE_URI": settings.environment()["MLFLOW_TRACKING_URI"],
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(flow_run_name)s  %(message)s",  # the stack tells when
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(flow_run_name)s  %(message)s",
        "PYTHONUNBUFFERED": "1",
    }


def _watch_answers(since: datetime) -> bool:
    try:
        return paths.watcher_heartbeat().stat().st_mtime >= since.timestamp()
    except FileNotFoundError:
        return False
