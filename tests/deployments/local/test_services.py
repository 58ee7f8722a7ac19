"""The services of a machine: all of them, those that are named, or those that no other machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.local import services
from tasks.ground import http, leases
from tasks.ground.errors import Mistake, SourceUnavailable

EMBEDDED = ["prefect", "mlflow", "router", "forkserver", "worker", "watch"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of its own, whatever this one is."""
    for name in (services.CHOSEN, services.DATABASE, services.REDIS, services.STORE, leases.ADDRESS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(services.API, "http://127.0.0.1:4200/api")
    for name, port in {"PREFECT_SERVER_API_PORT": 4200, "MLFLOW_PORT": 5000, "EVERGREEN_PORT": 3000}.items():
        monkeypatch.setenv(name, str(port))


def names() -> list[str]:
    """Of the services of this machine."""
    return [service.name for service in services.local_services()]


def test_a_machine_of_its_own_has_every_service() -> None:
    """Prefect's background work is in its server, and nothing is set that is not needed."""
    assert names() == EMBEDDED
    (prefect,) = [service for service in services.local_services() if service.name == "prefect"]
    assert "--no-services" not in prefect.command
    assert not [name for name in services.environment() if "REDIS" in name or "DOCKET" in name]


def test_services_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What flows are forked from comes with the worker; a worker without a router leaves to others what needs one."""
    monkeypatch.setenv(services.CHOSEN, "worker")
    forkserver, worker = services.local_services()
    assert forkserver.name == "forkserver"
    assert worker.command[-1] == "--no-router"
    monkeypatch.setenv(services.CHOSEN, "worker, router")
    assert services.local_services()[-1].command[-1] != "--no-router"


def test_a_service_that_does_not_exist_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which there are, and when there is one more."""
    monkeypatch.setenv(services.CHOSEN, "wroker")
    with pytest.raises(Mistake, match=r"'wroker' is no service.*worker.*: prefect, mlflow"):
        names()
    monkeypatch.setenv(services.CHOSEN, "background")
    with pytest.raises(Mistake, match=f"where {services.REDIS} is set"):
        names()


def test_what_another_machine_has_is_not_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its address stays."""
    monkeypatch.setenv(services.API, "http://prefect.example/api")
    monkeypatch.setenv(services.STORE, "https://mlflow.example")
    assert names() == ["router", "forkserver", "worker", "watch"]
    given = services.environment()
    assert given[services.API] == "http://prefect.example/api"
    assert given[services.STORE] == "https://mlflow.example"


def test_a_shared_database_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the registry's writes are fenced; MLflow's own server, for people, is on the same."""
    store = "postgresql+psycopg://me:secret@db.example/evergreen"
    monkeypatch.setenv(services.STORE, store)
    given = services.environment()
    assert given[services.STORE] == given["MLFLOW_BACKEND_STORE_URI"] == store
    assert "mlflow" in names()


def test_with_redis_servers_stand_apart_from_background_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable moves all that Prefect's recipe names."""
    monkeypatch.setenv(services.REDIS, "redis://cache.example/0")
    monkeypatch.setenv(services.CHOSEN, "prefect,background")
    prefect, background = services.local_services()
    assert prefect.command[-1] == "--no-services"
    assert background.command[-1] == "background"
    given = services.environment()
    assert given["PREFECT_SERVER_DOCKET_URL"] == "redis://cache.example/0"
    assert given["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == "prefect_redis.lease_storage"


@pytest.mark.parametrize(
    ("setting", "address", "chosen"),
    [
        (services.DATABASE, "postgresql+asyncpg://me:secret@127.0.0.1:{}/prefect", "prefect"),
        (services.REDIS, "redis://:secret@127.0.0.1:{}/0", "background"),
        (leases.ADDRESS, "postgresql://me:secret@127.0.0.1:{}/evergreen", "worker"),
        (services.STORE, "postgresql+psycopg://me:secret@127.0.0.1:{}/evergreen", "mlflow"),
        (services.API, "http://me:secret@127.0.0.1:{}/api", "worker"),
    ],
)
def test_a_server_that_does_not_answer_is_one_message(
    setting: str, address: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which setting, where, what for, and what to do; not the password."""
    port = http.free_port()
    monkeypatch.setenv(setting, address.format(port))
    monkeypatch.setenv(services.CHOSEN, chosen)
    with pytest.raises(
        SourceUnavailable, match=rf"{setting}: nobody answers at \w+://127.0.0.1:{port}/.*{chosen}"
    ) as e:
        services.refuse_silence()
    assert "secret" not in str(e.value)
    monkeypatch.setenv(setting, address.format(port).replace("secret", "sec@ret"))
    with pytest.raises(Mistake, match=f"{setting} is no address") as mistake:
        services.refuse_silence()
    assert "ret@" not in str(mistake.value)


def test_a_machine_of_its_own_connects_to_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own servers are not up yet."""
    monkeypatch.setattr(services.addresses.socket, "create_connection", pytest.fail)
    services.refuse_silence()
