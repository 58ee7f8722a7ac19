"""Leases over several machines: each process has a state folder of its own, and shares the database alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tasks.ground import leases, settings
from tasks.ground.errors import Mistake, SourceUnavailable
from tasks.ground.leases import LeaseLost
from tests.conftest import REPOSITORY
from tests.deployments.conftest import PATIENCE
from tests.fleet.conftest import Database

pytestmark = pytest.mark.group("team", "psycopg")

HOLDER = """
import sys, time
from pathlib import Path
from tasks.ground import leases, settings
settings.VAR, here = Path(sys.argv[1]), Path(sys.argv[1])
tell = lambda text: (here / "waits").touch() if text.startswith("waits") else None
with leases.hold("train-tiny", tell, sys.argv[2]):
    (here / "holds").touch()
    while not (here / "write").exists():
        time.sleep(0.05)
    try:
        with leases.fenced():
            (here / "written").touch()
    except Exception as error:
        (here / "told").write_text(f"{type(error).__name__}: {error}")
        (here / "told").rename(here / "refused")  # whole, when somebody waits for it
"""

Start = Callable[[str], "Machine"]


class Machine:
    """A process that holds the lease, or waits for it, and writes when it is told to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        command = [sys.executable, "-c", HOLDER, str(folder), folder.name]
        self.process = subprocess.Popen(command, cwd=REPOSITORY)

    def wait_for(self, name: str, seconds: float = 60) -> None:
        """Until a file is there."""
        begin = time.monotonic()
        while not (self.folder / name).exists():
            assert time.monotonic() - begin < seconds * PATIENCE, f"{self.folder.name} did not come to {name}"
            time.sleep(0.02)

    def write(self) -> None:
        """Have it write."""
        (self.folder / "write").touch()

    def holds(self) -> bool:
        """Whether it has got the lease."""
        return (self.folder / "holds").exists()


@pytest.fixture
def start(fleet: Database, tmp_path: Path) -> Iterator[Start]:
    """Starts machines; kills them all in the end."""
    machines: list[Machine] = []

    def start(name: str) -> Machine:
        machines.append(Machine(tmp_path / name))
        return machines[-1]

    yield start
    for machine in machines:
        machine.process.kill()
        machine.process.wait()


@pytest.fixture
def here(fleet: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of this process."""
    monkeypatch.setattr(settings, "VAR", tmp_path / "here")
    return tmp_path / "here"


def test_one_machine_at_a_time_holds_a_lease(start: Start) -> None:
    """The next one goes on when the first has ended, and each has a higher token."""
    first = start("first")
    first.wait_for("holds")
    (before,) = leases.live()
    assert "first" in before.holder
    second = start("second")
    second.wait_for("waits")
    time.sleep(5)  # longer than a lease lasts: the first one renews
    assert not second.holds()
    first.write()
    second.wait_for("holds")
    (after,) = leases.live()
    assert after.token == before.token + 1
    assert (first.folder / "written").exists()


def test_what_a_stopped_holder_writes_late_is_refused(start: Start) -> None:
    """Another machine has taken over meanwhile: the first is told who."""
    first = start("first")
    first.wait_for("holds")
    os.kill(first.process.pid, signal.SIGSTOP)
    second = start("second")
    second.wait_for("holds")
    first.write()
    os.kill(first.process.pid, signal.SIGCONT)
    first.wait_for("refused")
    assert "second" in (first.folder / "refused").read_text()
    assert not (first.folder / "written").exists()
    second.write()
    second.wait_for("written")


def test_a_killed_holder_loses_its_lease(start: Start) -> None:
    """Once it has run out, nobody has to do anything."""
    first = start("first")
    first.wait_for("holds")
    first.process.kill()
    start("second").wait_for("holds")


def test_a_lease_outlives_a_restart_of_the_database(start: Start, fleet: Database) -> None:
    """It is renewed when the database is back, and what is written then is not refused."""
    first = start("first")
    first.wait_for("holds")
    fleet.control("restart")
    time.sleep(5)
    first.write()
    first.wait_for("written")


def test_nobody_takes_over_in_the_middle_of_a_write(here: Path, start: Start) -> None:
    """A write that takes longer than the lease lasts: the row stays locked until it is done."""
    with leases.hold("train-tiny", print, "here"), leases.fenced():
        other = start("other")
        time.sleep(5)
        assert not other.holds()
        with leases.fenced():  # within another: nothing to wait for
            pass
    other.wait_for("holds")


def test_a_lease_that_another_has_taken_refuses_every_write(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of another name: who was away for so long knows nothing any more."""
    with leases.hold("train-tiny", print, "here"), leases.hold("registry-tiny", print, "here"):
        monkeypatch.setenv(leases.SECONDS, "2")
        with leases._connect() as database:
            database.execute("UPDATE evergreen_leases SET token = token + 1 WHERE name LIKE '%/train-tiny'")
        with pytest.raises(LeaseLost, match="train-tiny was taken over by"), leases.fenced():
            pytest.fail("was written")


def test_a_database_that_is_gone_is_told_without_its_password(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with the command that looks for the cause."""
    monkeypatch.setenv(leases.ADDRESS, "postgresql://evergreen:secret@127.0.0.1:9/none")
    with pytest.raises(SourceUnavailable, match="evergreen doctor") as error, leases.hold("train-tiny"):
        pytest.fail("is held")
    assert "secret" not in str(error.value)


def test_who_waits_outlives_a_restart_of_the_database_too(start: Start, fleet: Database) -> None:
    """Its run does not fail because of it: it gets the lease when the holder has ended."""
    first = start("first")
    first.wait_for("holds")
    second = start("second")
    second.wait_for("waits")
    fleet.control("stop")
    time.sleep(2.5)
    fleet.control("start")
    assert second.process.poll() is None
    first.write()
    second.wait_for("holds")


@pytest.mark.parametrize("password", ["sec%ret", "secret?foo=secret", "sec/ret", "sec@ret", "12/sec@ret", "sec#ret"])
def test_an_address_that_is_none_is_a_mistake(here: Path, monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    """Its password is not shown."""
    monkeypatch.setenv(leases.ADDRESS, f"postgresql://evergreen:{password}@127.0.0.1/none?{password}")
    with pytest.raises(Mistake, match="is no address") as error, leases.hold("train-tiny"):
        pytest.fail("is held")
    assert "ret" not in str(error.value).replace("<password>", "")


def test_two_projects_on_one_database_do_not_wait_for_each_other(
    here: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has rows of its own, by the name of its fleet, and sees no others."""
    first = start("first")
    first.wait_for("holds")
    monkeypatch.setenv(leases.FLEET, "another project")
    assert leases.live() == []
    with leases.hold("train-tiny", pytest.fail), leases.fenced():
        assert [lease.name for lease in leases.live()] == ["train-tiny"]
    first.write()
    first.wait_for("written")


def test_who_waits_keeps_one_connection(here: Path, start: Start, fleet: Database) -> None:
    """However long: a crowd that waits does not connect each second."""
    first = start("first")
    first.wait_for("holds")
    second = start("second")
    second.wait_for("waits")
    with psycopg.connect(fleet.address, autocommit=True) as server:
        time.sleep(2.5)
        others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid != pg_backend_pid()"
        asked = f"SELECT count(*) {others} AND clock_timestamp() - backend_start > interval '2.3 seconds'"
        assert server.execute(asked).fetchone() == (1,)
    first.write()
    second.wait_for("holds")


def test_a_fleet_is_named_by_the_first_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no history, it has to be set."""
    monkeypatch.delenv(leases.FLEET, raising=False)
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    with pytest.raises(Mistake, match="EVERGREEN_FLEET is not set"):
        leases.fleet()
    for command in (
        ["init", "-q"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x", "--allow-empty"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert leases.fleet() == head.stdout[:12]


def test_a_user_who_may_not_make_the_table_is_told(fleet: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """From PostgreSQL 15 on only the owner of a database may."""
    with psycopg.connect(fleet.address, autocommit=True) as server:
        server.execute("DROP ROLE IF EXISTS guest")
        server.execute("CREATE ROLE guest LOGIN")
    monkeypatch.setenv(leases.ADDRESS, fleet.make("others").replace("evergreen@", "guest@"))
    with pytest.raises(SourceUnavailable, match="permission denied"):
        leases.live()


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan"])
def test_a_lease_that_cannot_last_is_a_mistake(here: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Before anything is taken."""
    monkeypatch.setenv(leases.SECONDS, text)
    with pytest.raises(Mistake, match="EVERGREEN_LEASE_S"), leases.hold("train-tiny"):
        pytest.fail("is held")


def test_on_one_machine_no_database_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A lease is its lock file, and nothing is imported for it."""
    monkeypatch.delenv(leases.ADDRESS, raising=False)
    monkeypatch.setattr(settings, "VAR", tmp_path)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with leases.hold("train-tiny"), leases.fenced():
        assert leases.live() == []
    assert (tmp_path / "locks" / "train-tiny.lock").exists()


def test_a_fleet_whose_name_has_a_slash_sees_its_own_leases_only(
    fleet: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And their names whole: a run of it is alive."""
    monkeypatch.setenv(leases.FLEET, "team/a")
    with leases.alive("f00"):
        assert leases.runs() == {"f00"}
        monkeypatch.setenv(leases.FLEET, "team")
        assert leases.live() == []
