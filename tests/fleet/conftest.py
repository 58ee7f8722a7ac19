"""What a fleet shares: a PostgreSQL of this machine, on a free port of loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.ground import http, leases


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server, and how to restart it."""

    folder: Path
    address: str

    def control(self, verb: str) -> None:
        """`pg_ctl <verb>`, as a user who may: PostgreSQL runs as no root."""
        as_owner(self.folder, "pg_ctl", "-D", str(self.folder), "-w", "-s", "-m", "immediate", verb)

    def make(self, name: str) -> str:
        """The address of an empty database on it."""
        import psycopg

        with psycopg.connect(self.address, autocommit=True) as server:
            server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            server.execute(f"CREATE DATABASE {name}")
        return self.address.removesuffix("postgres") + name


def as_owner(folder: Path, *command: str) -> None:
    """Run a command of PostgreSQL as the owner of its folder."""
    if os.getuid() == 0:
        command = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=60)


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """An empty server; ended with the tests."""
    if shutil.which("initdb") is None:
        if "CI" in os.environ:
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="evergreen-postgresql-"))
    port = http.free_port()
    if os.getuid() == 0:
        os.chown(folder, 65534, 65534)
    server = Database(folder / "data", f"postgresql://evergreen@127.0.0.1:{port}/postgres")
    try:
        as_owner(folder, "initdb", "-D", str(server.folder), "-U", "evergreen", "-A", "trust", "-N")
        with (server.folder / "postgresql.conf").open("a") as settings:
            settings.write(f"port={port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\nfsync=off\n")
            settings.write("logging_collector=on\n")
        server.control("start")
        yield server
    finally:
        server.control("stop")
        shutil.rmtree(folder)


@pytest.fixture
def fleet(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Leases of this process, and of those that it starts, are in the database; they last four seconds."""
    monkeypatch.setenv(leases.ADDRESS, database.address)
    monkeypatch.setenv(leases.SECONDS, "4")
    monkeypatch.setenv(leases.FLEET, "tests")  # CI's clone has no whole history
    return database


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """A Redis of this machine; its address."""
    port = http.free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        yield f"redis://127.0.0.1:{port}/0"
        server.terminate()
