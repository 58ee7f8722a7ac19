"""`evergreen doctor` in a fleet: the database of the leases, Prefect's database and Redis, the files, the machines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from redis.exceptions import RedisError

from deployments.local import fleet as local_fleet
from deployments.local import services
from deployments.tools import doctor
from tasks.ground import http, leases, settings
from tasks.ground.errors import SourceUnavailable
from tests.fleet.conftest import Database

pytestmark = pytest.mark.group("team", "psycopg")


def test_a_database_as_it_has_to_be_is_well(fleet: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its version, its clock, and how many leases are held."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    with leases.hold("train-tiny"):
        finding = doctor._leases()
    assert finding.is_well
    assert "1 lease held" in finding.state
    assert finding.state.startswith("PostgreSQL 1")


def test_another_isolation_level_is_named(fleet: Database) -> None:
    """A worker that waits has to see who ended."""
    try:
        _execute(fleet, "ALTER ROLE evergreen SET default_transaction_isolation = 'serializable'")
        assert "read committed" in doctor._leases().mend
    finally:
        _execute(fleet, "ALTER ROLE evergreen RESET default_transaction_isolation")


def test_a_clock_that_is_far_off_is_named(fleet: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of this machine is to be set."""
    now = leases.time.time
    monkeypatch.setattr(leases.time, "time", lambda: now() - 600)
    assert "set this machine's clock" in doctor._leases().mend


def test_a_database_that_is_gone_is_told(fleet: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other part."""
    monkeypatch.setenv(leases.ADDRESS, "postgresql://evergreen@127.0.0.1:9/none")
    with pytest.raises(SourceUnavailable, match="cannot be used"):
        doctor._leases()


@pytest.fixture
def broker(redis: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """Its client."""
    monkeypatch.setenv(services.REDIS, redis)
    with Redis.from_url(redis) as client:
        http.wait_until(lambda: _answers(client), 10)
        yield client


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


def test_a_redis_without_background_services_is_named(broker: Redis) -> None:
    """Nobody would make schedules into runs; one with a heartbeat is well."""
    assert doctor._redis().mend == "evergreen up --only background"
    broker.zadd("prefect:workers", {"vm#1": time.time()})
    finding = doctor._redis()
    assert finding.is_well
    assert "1 background service at work" in finding.state


def test_a_redis_that_drops_messages_is_named(broker: Redis) -> None:
    """As a cache is set up to."""
    broker.config_set("maxmemory-policy", "allkeys-lru")
    assert "noeviction" in doctor._redis().mend


def test_a_redis_that_is_gone_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """With where it was looked for."""
    monkeypatch.setenv(services.REDIS, "redis://me:secret@127.0.0.1:9/0")
    finding = doctor._redis()
    assert "redis://127.0.0.1:9/0" in finding.state
    assert services.REDIS in finding.mend
    assert "secret" not in str(finding)


def test_prefects_database_without_tables_is_named(fleet: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is gone, without its password."""
    address = fleet.make("prefect_empty")
    monkeypatch.setenv(services.DATABASE, address.replace("://", "+asyncpg://"))
    assert "evergreen up --only prefect" in doctor._prefect_database().mend
    _execute(Database(fleet.folder, address), "CREATE TABLE alembic_version (version_num text)")
    assert doctor._prefect_database().is_well
    monkeypatch.setenv(services.DATABASE, "postgresql+asyncpg://me:secret@127.0.0.1:9/none")
    with pytest.raises(SourceUnavailable, match=rf"127\.0\.0\.1:9/none: .* or correct {services.DATABASE}") as error:
        doctor._prefect_database()
    assert "secret" not in str(error.value)


def test_a_shared_registry_whose_files_stay_on_a_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine would find a version and not its release."""
    monkeypatch.delenv(services.ARTIFACTS, raising=False)
    assert services.ARTIFACTS in doctor._artifacts().mend


def test_a_machine_with_other_code_is_named(fleet: Database) -> None:
    """By its worker's name; one with the same code is well."""
    with leases.up("here-1", f"worker, code {local_fleet.code()}"):
        assert doctor._machines().is_well
        with leases.up("old-2", "worker, code 00000000"):
            finding = doctor._machines()
    assert "old run other code" in finding.state
    assert "git pull" in finding.mend


def _execute(database: Database, statement: str) -> None:
    with psycopg.connect(database.address, autocommit=True) as connection:
        connection.execute(statement)
