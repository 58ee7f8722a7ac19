"""`evergreen doctor` in a fleet: the database of the leases."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from deployments.tools import doctor
from tasks.ground import leases, settings
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


def _execute(database: Database, statement: str) -> None:
    with psycopg.connect(database.address, autocommit=True) as connection:
        connection.execute(statement)
