"""Leases with fencing tokens: one training, one rollout, one ingest at a time, on one machine or over a fleet.

On one machine a lease is its lock file: who holds it is alive, or it is free. A fleet (`EVERGREEN_LEASES`, an address
of PostgreSQL) has a row a name besides: holder, token, and until when. Its times are the database's, so no machine's
clock matters. A holder that is stopped, cut off or killed renews no more; another one takes over with the next higher
token (Gray & Cheriton 1989; the token is Lamport's, as Burrows 2006 calls it a sequencer).

What the world sees is written within `fenced()`: it asks for the tokens of all leases of this process, and keeps their
rows locked until the write is done. So nobody takes over in the middle of it, and who comes late is refused.

Projects that share a database do not meet: a row's name begins with that of the fleet, which `EVERGREEN_FLEET` sets;
else it is the first commit of the repository, which all clones have in common.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tasks.ground import addresses, files, settings
from tasks.ground.errors import Mistake, SourceUnavailable, WorldError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from psycopg import Connection

Tell = Callable[[str], object]

_print = partial(print, file=sys.stderr, flush=True)

ADDRESS = "EVERGREEN_LEASES"
SECONDS = "EVERGREEN_LEASE_S"
FLEET = "EVERGREEN_FLEET"

TABLE = """CREATE TABLE IF NOT EXISTS evergreen_leases (
    name text PRIMARY KEY, token bigint NOT NULL, holder text NOT NULL, since timestamptz NOT NULL,
    expires timestamptz NOT NULL)"""
TAKE = """INSERT INTO evergreen_leases AS lease VALUES (%(name)s, 1, %(holder)s, clock_timestamp(), {until})
    ON CONFLICT (name) DO UPDATE SET token = lease.token + 1, holder = excluded.holder, since = excluded.since,
    expires = {until} WHERE lease.expires < clock_timestamp() RETURNING token"""
RENEW = "UPDATE evergreen_leases SET expires = {until} WHERE name = %(name)s AND token = %(token)s RETURNING token"
END = "UPDATE evergreen_leases SET expires = clock_timestamp() WHERE name = %(name)s AND token = %(token)s"
LOCK = "SELECT name, token FROM evergreen_leases WHERE name = ANY(%(names)s) ORDER BY name FOR UPDATE"
"""Also of those that have run out: who was away, and nobody took over, goes on."""

FORGET = (
    "DELETE FROM evergreen_leases WHERE starts_with(name, %(kind)s) AND expires < clock_timestamp() - interval '1 hour'"
)
WHO = "SELECT holder, since, token FROM evergreen_leases WHERE name = %(name)s"
LIVE = """SELECT name, holder, token, since, expires FROM evergreen_leases
    WHERE starts_with(name, %(fleet)s) AND expires > clock_timestamp() ORDER BY name"""

POLL = 1.0
"""Seconds between two looks of who waits."""

LONGEST_WRITE = 60
"""Seconds after which the database gives up a session that keeps rows locked: whoever wrote is stopped."""


class LeaseLost(WorldError):
    """Another process has taken over what this one was at; what it would have written is refused."""


@dataclass(frozen=True)
class Lease:
    """A lease that this process took; `name` is that of its row."""

    name: str
    token: int

    @property
    def title(self) -> str:
        """Its name within the fleet."""
        return _title(self.name)


@dataclass(frozen=True)
class Database:
    """What holds the leases of a fleet."""

    version: str
    number: tuple[int, int]
    isolation: str
    ahead_s: float
    """How far its clock is ahead of this machine's."""


@dataclass(frozen=True)
class Holder:
    """A lease of the fleet that somebody holds now."""

    name: str
    holder: str
    token: int
    since: str
    expires: str


def is_fleet() -> bool:
    """Whether several machines share leases."""
    return bool(os.environ.get(ADDRESS))


@contextmanager
def hold(name: str, tell: Tell | None = None, who: str | None = None) -> Iterator[None]:
    """Hold a lease; wait for its holder. A process that dies loses its leases, at once or after `EVERGREEN_LEASE_S`.

    Args:
        name: of the lease.
        tell: gets a message that names the holder this waits for; None: prints it to stderr.
        who: how the messages of others name this process.

    Raises:
        SourceUnavailable: the database of the leases cannot be reached.
    """
    with files.lock(name, tell, who), _in_fleet(name, tell, who) if is_fleet() else nullcontext():
        yield


def fenced() -> AbstractContextManager[None]:
    """Write what the world sees: nobody takes over a lease of this process meanwhile.

    Raises:
        LeaseLost: another one holds a lease that this process has taken: nothing is written.
        SourceUnavailable: the database of the leases cannot be reached.
    """
    return _fenced() if is_fleet() else nullcontext()


RUN, MACHINE = "run-", "machine-"
"""How the leases begin that say what lives: nobody waits for them."""


@contextmanager
def alive(run: str) -> Iterator[None]:
    """Have the other machines of a fleet see, until the block ends, that a flow run has a process."""
    with _in_fleet(f"{RUN}{run}", None, None) if is_fleet() else nullcontext():
        yield


@contextmanager
def up(machine: str, who: str) -> Iterator[None]:
    """Have the other machines of a fleet see, until the block ends, that a machine is up, and what it does."""
    with _in_fleet(f"{MACHINE}{machine}", None, who) if is_fleet() else nullcontext():
        yield


def runs() -> set[str]:
    """The flow runs of a fleet that have a process, wherever that is."""
    return {lease.name.removeprefix(RUN) for lease in live() if lease.name.startswith(RUN)}


def examine() -> Database:
    """What the database of the leases is, as `evergreen doctor` asks it.

    Raises:
        SourceUnavailable: it cannot be reached.
    """
    with _connect() as database:
        asked = time.time()
        (version,), (isolation,) = (
            database.execute(f"SHOW {what}").fetchone() or ("",) for what in ("server_version", "transaction_isolation")
        )
        (now,) = database.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone() or (asked,)
        number = divmod(database.info.server_version, 10_000)  # also of a beta, which calls itself 19beta1
        return Database(version.split()[0], number, isolation, float(now) - (asked + time.time()) / 2)


def look(setting: str, table: str) -> tuple[tuple[int, int], bool]:
    """The version of a PostgreSQL that a setting names, and whether it has a table.

    Raises:
        SourceUnavailable: it cannot be used.
    """
    psycopg, address = _library(), addresses.read(setting, "postgresql")
    try:
        with psycopg.connect(address.plain, connect_timeout=5) as database:
            found = database.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
            return divmod(database.info.server_version, 10_000), found == (True,)
    except psycopg.Error as error:
        why = addresses.masked(" ".join(str(error).split()), address.url)
        raise SourceUnavailable(f"{address.shown}: {why}. Start it, or correct {setting}") from None


def live() -> list[Holder]:
    """The leases of the fleet that are held now; empty on one machine."""
    if not is_fleet():
        return []
    with _connect() as database:
        for kind in (RUN, MACHINE):
            database.execute(FORGET, {"kind": _row(kind)})
        rows = database.execute(LIVE, {"fleet": _row("")}).fetchall()
    return [Holder(_title(name), *rest[:2], *map(str, rest[2:])) for name, *rest in rows]


def fleet() -> str:
    """The name of the fleet.

    Raises:
        Mistake: none is set, and there is no history of Git to take one from.
    """
    return os.environ.get(FLEET) or _first_commit(settings.ROOT)[:12]


@cache
def _first_commit(root: Path) -> str:
    def git(*arguments: str) -> list[str]:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.split()

    commits = git("rev-list", "--max-parents=0", "HEAD")
    if not commits or git("rev-parse", "--is-shallow-repository") != ["false"]:
        raise Mistake(
            f"{FLEET} is not set, and {root} has no whole history of Git, whose first commit names the fleet: set "
            f"{FLEET} to one name on all machines, or git fetch --unshallow"
        )
    return commits[-1]


def _row(name: str) -> str:
    return f"{quote(fleet(), safe='')}/{name}"  # so that a fleet `a` sees nothing of one called `a/b`


def _title(row: str) -> str:
    return row.partition("/")[2]


# ── the fleet ─────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Held:
    """What this process holds, and whether a thread of it is within a write."""

    leases: dict[str, Lease] = field(default_factory=dict)
    writing: threading.local = field(default_factory=threading.local)


_held = _Held()


@contextmanager
def _in_fleet(name: str, tell: Tell | None, who: str | None) -> Iterator[None]:
    lease = _take(_row(name), f"{socket.gethostname()}: {who or f'process {os.getpid()}'}", tell or _print)
    _held.leases[name] = lease
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(lease, ended), name=f"lease {name}", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join()
        del _held.leases[name]
        _end(lease)


def _take(row: str, holder: str, tell: Tell) -> Lease:
    begin = answered = time.monotonic()
    waits = False
    while True:
        try:
            with _session() as database:  # one connection for as long as this waits
                while True:
                    token, holding = _try(database, row, holder)
                    answered = time.monotonic()
                    if token is not None:
                        if waits:
                            tell(f"goes on after {answered - begin:.0f} s")
                        return Lease(row, token)
                    if not waits:
                        tell(f"waits for {holding}, who holds {_title(row)}")
                    waits = True
                    time.sleep(POLL)
        except SourceUnavailable:
            if not waits or time.monotonic() - answered > LONGEST_WRITE:
                raise
        time.sleep(POLL)  # a restart: who waits goes on waiting, as who holds goes on holding


def _try(database: Connection[Any], row: str, holder: str) -> tuple[int, None] | tuple[None, str]:
    """The token, or who holds the lease. Its row is locked while its holder writes: this waits until that is done."""
    with _transaction(database):
        taken = database.execute(TAKE.format(until=_until()), {"name": row, "holder": holder}).fetchone()
        return (taken[0], None) if taken else (None, _who(database, row))


def _renew(lease: Lease, ended: threading.Event) -> None:
    """Keep a lease until it is ended or lost; it runs out where the database does not come back in time."""
    while not ended.wait(seconds() / 4):
        try:
            with _connect() as database:
                if not database.execute(RENEW.format(until=_until()), vars(lease)).fetchone():
                    return  # another one has it: `fenced` says so to whoever writes
        except SourceUnavailable:
            continue


def _end(lease: Lease) -> None:
    """Where the database is gone it ends by itself."""
    try:
        with _connect() as database:
            database.execute(END, vars(lease))
    except SourceUnavailable:
        return


@contextmanager
def _fenced() -> Iterator[None]:
    mine = {lease.name: lease.token for lease in list(_held.leases.values())}
    if not mine or getattr(_held.writing, "is_fenced", False):
        yield  # nothing to lose, or this write is part of one that is fenced
        return
    with _connect() as database:
        found = dict(database.execute(LOCK, {"names": list(mine)}).fetchall())
        for name in sorted(mine):
            if found.get(name) != mine[name]:
                raise LeaseLost(
                    f"{_title(name)} was taken over by {_who(database, name)}: this process was stopped or cut off for "
                    f"more than {seconds():g} s, and what it was about to write is refused. Whoever holds it goes on"
                )
        _held.writing.is_fenced = True
        try:
            yield
        finally:
            _held.writing.is_fenced = False


def taken() -> list[Lease]:
    """What this process took, and believes to hold."""
    return list(_held.leases.values())


def _who(database: Connection[Any], name: str) -> str:
    found = database.execute(WHO, {"name": name}).fetchone()
    return f"{found[0]} (since {found[1]:%Y-%m-%d %H:%M:%S}, token {found[2]})" if found else "nobody"


def seconds() -> float:
    """How long a lease lasts without being renewed.

    Raises:
        Mistake: what is set is no time that a lease can last.
    """
    text = os.environ.get(SECONDS) or "30"
    try:
        lasting = float(text)
    except ValueError:
        lasting = 0
    if not 1 <= lasting <= LONGEST_WRITE:
        raise Mistake(f"{SECONDS} is {text!r}: a lease lasts from 1 to {LONGEST_WRITE} seconds")
    return lasting


def _until() -> str:
    return f"clock_timestamp() + interval '{seconds()} seconds'"


@contextmanager
def _connect() -> Iterator[Connection[Any]]:
    """A transaction of its own, committed at the end of the block."""
    with _session() as database, _transaction(database):
        yield database


@contextmanager
def _session() -> Iterator[Connection[Any]]:
    """A connection, whose transactions are its user's; without what PgBouncer does not know."""
    psycopg = _library()
    address = addresses.read(ADDRESS, "postgresql").url
    try:
        with psycopg.connect(address, connect_timeout=5, prepare_threshold=None, autocommit=True) as database:
            _prepare(address)
            yield database
    except psycopg.errors.IdleInTransactionSessionTimeout:
        raise LeaseLost(
            f"this process was stopped for more than {LONGEST_WRITE} s while it wrote: whether another has taken over, "
            f"the next run sees"
        ) from None
    except psycopg.Error as error:
        raise SourceUnavailable(
            f"the database of the leases ({ADDRESS}) cannot be used: {' '.join(str(error).split())[:200]}. "
            f"`evergreen doctor` says which part is missing"
        ) from None


@contextmanager
def _transaction(database: Connection[Any]) -> Iterator[None]:
    with database.transaction():
        database.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{LONGEST_WRITE}s'")
        database.execute(f"SET LOCAL lock_timeout = '{2 * LONGEST_WRITE}s'")
        yield


@cache
def _prepare(address: str) -> None:
    """Make the table, once a process; of several that do so at once one succeeds, which is enough."""
    psycopg = _library()
    try:
        with psycopg.connect(address, connect_timeout=5) as database:
            database.execute(TABLE)
    except psycopg.errors.UniqueViolation:
        return


def _library() -> Any:
    try:
        import psycopg
    except ImportError:
        raise Mistake(f"{ADDRESS} is set, and PostgreSQL's driver is not installed: make setup WITH=team") from None
    return psycopg
