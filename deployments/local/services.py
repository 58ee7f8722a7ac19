"""The services of the local platform: what each is started with, and how it is probed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments.orchestration import flow_run, prefect_server, work_pool, worker
from tasks.ground import addresses, http, leases, paths, settings
from tasks.ground.errors import Mistake, did_you_mean

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


CHOSEN = "EVERGREEN_SERVICES"
"""The variable that names the services of this machine; else all but those that another machine has."""

API, DATABASE, REDIS = "PREFECT_API_URL", prefect_server.DATABASE, "PREFECT_REDIS_MESSAGING_URL"
STORE, ARTIFACTS = "MLFLOW_TRACKING_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT"


def local_services() -> list[LocalService]:
    """The services of this machine in the order of their start; they are ended in the opposite one.

    Raises:
        Mistake: one is chosen that does not exist, or an address cannot be read.
    """
    every, chosen = _every_service(), _chosen()
    if not chosen:
        elsewhere = {"prefect", "background"} if _has_other_api() else set[str]()
        elsewhere |= {"mlflow"} if _store().startswith("http") else set()
        return [service for service in every if service.name not in elsewhere]
    names = [service.name for service in every]
    for name in chosen:
        if name not in names:
            more = f"; background stands apart where {REDIS} is set" if name == "background" else ""
            raise Mistake(f"{name!r} is no service{did_you_mean(name, names)}: {', '.join(names)}{more}")
    wanted = {*chosen, "forkserver"} if "worker" in chosen else set(chosen)
    return [service for service in every if service.name in wanted]


def _chosen() -> list[str]:
    """The services that are named for this machine; none, where it is to have all that no other one has."""
    return os.environ.get(CHOSEN, "").replace(",", " ").split()


def _has_other_api() -> bool:
    """Whether flows are kept by a Prefect server of another machine."""
    return not addresses.read(API, "http", "https").is_here


def _store() -> str:
    """MLflow's store as it was set; the project's own, where that names the server of this machine."""
    store = os.environ.get(STORE, "")
    if store.startswith("postgresql") or (
        store.startswith("http") and not addresses.read(STORE, "http", "https").is_here
    ):
        return store
    return settings.environment()[STORE]


def _every_service() -> list[LocalService]:
    ports = "PREFECT_SERVER_API_PORT", "MLFLOW_PORT", "EVERGREEN_PORT"
    prefect, mlflow, router = (f"http://127.0.0.1:{os.environ[port]}" for port in ports)
    python = [sys.executable, "-m"]
    has_router = "router" in (_chosen() or ["router"])
    server = [*python, "deployments.orchestration.prefect_server"]
    background = LocalService(
        "background",
        [*server, prefect_server.BACKGROUND],
        lambda _: True,  # it has no port; one that dies is started again
        about="schedules, automations and late runs, apart from the servers",
    )
    return [
        LocalService(
            "prefect",
            [*server, "--port", os.environ[ports[0]], *(["--no-services"] if os.environ.get(REDIS) else [])],
            lambda _: http.answers(f"{prefect}/api/health"),
            about=f"flows, runs, schedules, events   {prefect}",
            port=ports[0],
        ),
        *([background] if os.environ.get(REDIS) else []),
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
            [*python, "deployments.orchestration.worker", *([] if has_router else [worker.ASIDE])],
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


def refuse_silence() -> None:
    """Connect to each server of another machine that the services need.

    Raises:
        Mistake: an address cannot be read.
        SourceUnavailable: nobody answers there; it says where, and what to do.
    """
    names = {service.name for service in local_services()}
    needs = (
        (DATABASE, ("postgresql",), names & {"prefect", "background"}),
        (REDIS, ("redis", "rediss"), names & {"prefect", "background"}),
        (leases.ADDRESS, ("postgresql",), names & {"worker", "watch"}),
        (STORE, ("postgresql", "http", "https"), names & {"worker", "mlflow"} if _is_shared(_store()) else set()),
        (API, ("http", "https"), names & {"worker", "watch"} if "prefect" not in names else set()),
    )
    for setting, schemes, users in needs:
        if users and os.environ.get(setting) and "+sentinel" not in os.environ[setting]:
            todo = f"{', '.join(sorted(users))} of this machine needs it: start it there, or correct {setting}"
            addresses.read(setting, *schemes).refuse_silence(f"{todo}. `evergreen doctor` looks at every part")


def shares_store() -> bool:
    """Whether MLflow's store is a database that machines share."""
    return _store().startswith("postgresql")


def _is_shared(store: str) -> bool:
    return not store.startswith("sqlite")


def environment() -> dict[str, str]:
    """The services' variables beyond the project's environment: the servers' addresses, and how logs look."""
    prefect, mlflow = os.environ["PREFECT_SERVER_API_PORT"], os.environ["MLFLOW_PORT"]
    names = {service.name for service in local_services()}
    api, store = f"http://127.0.0.1:{prefect}/api", _store()
    if "prefect" not in names or _has_other_api():
        api = os.environ[API]
    secret = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    run_line = "%(flow_run_name)s  %(message)s"  # the console adds the time
    return {
        **({"PREFECT_API_AUTH_STRING": secret} if secret else {}),
        # no page of another site may use the API through somebody's browser
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{prefect},http://localhost:{prefect}",
        **_on_redis(),
        API: api,
        "PREFECT_UI_URL": api.removesuffix("/api"),
        "MLFLOW_BACKEND_STORE_URI": store,
        STORE: store if _is_shared(store) else f"http://127.0.0.1:{mlflow}",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": run_line,
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": run_line,
        "PYTHONUNBUFFERED": "1",
    }


def _on_redis() -> dict[str, str]:
    """Prefect's own recipe for several servers: what they tell one another goes through Redis, all of it."""
    url = os.environ.get(REDIS)
    if not url:
        return {}
    return {
        "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
        "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
        "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL": url,
        "PREFECT_SERVER_DOCKET_URL": os.environ.get("PREFECT_SERVER_DOCKET_URL", url),
    }


def _watcher_answers(since: datetime) -> bool:
    try:
        return paths.watcher_heartbeat().stat().st_mtime >= since.timestamp()
    except FileNotFoundError:
        return False
