"""Doctor: whether each part that this machine needs is there and as it has to be, and the command that mends it.

It looks and changes nothing, but for a scratch file that it writes into each shared folder, reads back and removes, and
for the store of MLflow on this machine, which it makes where there is none yet, as every command does.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deployments.local import fleet, services
from flows.prefect_support import api
from tasks.data import dvc_store, git_sync
from tasks.ground import addresses, leases, locked_packages, params, settings
from tasks.ground.addresses import masked
from tasks.ground.errors import EnvironmentDiffers, EvergreenError
from tasks.ground.git import Clone
from tasks.ground.storage import Location
from tasks.ground.words import listed, many, one_line

OLDEST_POSTGRESQL = (14, 9)
"""What Prefect's own recipe for several servers asks for."""

CLOCK_S = 5.0
"""So far may a machine's clock be from the database's: leases do not depend on it, but times of requests do."""

OLDEST_REDIS = (6, 2)

BEAT_S = 60.0
"""Prefect's background services have a heartbeat in Redis every few seconds."""

LEAST_FREE = 5 * 2**30
"""Bytes."""


@dataclass(frozen=True)
class Finding:
    """A part, as it is; `mend`: what to do, where it is not as it has to be."""

    part: str
    state: str
    mend: str = ""

    @property
    def is_well(self) -> bool:
        """Whether nothing has to be done."""
        return not self.mend

    def __str__(self) -> str:
        text = f"{'✓' if self.is_well else '✗'} {self.part:<12} {self.state}"
        return text if self.is_well else f"{text}\n  {'':<12} {self.mend}"


def examine(config: params.Params) -> Iterator[Finding]:
    """Look at every part; each is told as soon as it is known."""
    parts: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("packages", _packages),
        ("disk", _disk),
        ("prefect", _prefect),
        ("mlflow", _mlflow),
        *((("database", _prefect_database),) if os.environ.get(services.DATABASE) else ()),
        *((("redis", _redis),) if os.environ.get(services.REDIS) else ()),
        *((("artifacts", _artifacts),) if services.shares_store() else ()),
        ("leases", _leases),
        *((("machines", _machines),) if leases.is_fleet() else ()),
        ("git", lambda: _git(config)),
        ("dvc remote", _remote),
        ("landing", lambda: _folder("landing", config.landing)),
        ("quarantine", lambda: _folder("quarantine", config.quarantine)),
    )
    for part, look in parts:
        try:
            yield look()
        except (EvergreenError, OSError) as error:  # OSError: a folder's rights, or a file in its place
            yield Finding(part, one_line(error, 300), "mend what it says, then ask again: evergreen doctor")


def _packages() -> Finding:
    lock = locked_packages.lock()
    try:
        locked_packages.refuse_difference(set(lock) & {"prefect", "mlflow", "dvc", "scikit-learn", "bentoml"}, lock)
    except EnvironmentDiffers as error:
        return Finding("packages", one_line(error, 300), "make setup")
    return Finding("packages", "prefect, mlflow, dvc, scikit-learn and bentoml are those of the lock")


def _disk() -> Finding:
    free = shutil.disk_usage(settings.ROOT).free
    state = f"{free / 2**30:.1f} GB are free"
    return Finding(
        "disk", state, "" if free > LEAST_FREE else "make room: what lies below var/ is in docs/reference/state.md"
    )


def _prefect() -> Finding:
    url = masked(os.environ["PREFECT_API_URL"])
    with api.patience(1):
        try:
            version = api.call("/admin/version")
        except api.PrefectApiError:
            mend = "evergreen up, or name the server that there is: PREFECT_API_URL"
            return Finding("prefect", f"no server answers on {url}", mend)
    own = locked_packages.lock()["prefect"][0].version
    if version != own:
        return Finding("prefect", f"{url} is {version}, and the lock names {own}", "update the server, or the lock")
    return Finding("prefect", f"{version} answers on {url}")


def _mlflow() -> Finding:
    from tasks.release.registry import mlflow_store

    @mlflow_store.with_retries
    def experiments() -> int:
        with mlflow_store.connect() as client:
            return len(client.search_experiments())

    return Finding("mlflow", f"{masked(mlflow_store.uri())} answers: {many(experiments(), 'experiment')}")


def _prefect_database() -> Finding:
    address = addresses.read(services.DATABASE, "postgresql")
    version, has_tables = leases.look(services.DATABASE, "alembic_version")
    state = f"{address.shown} is PostgreSQL {'.'.join(map(str, version))}"
    if version < OLDEST_POSTGRESQL:
        return Finding("database", state, "PostgreSQL 14.9 or newer is needed")
    if not has_tables:
        return Finding("database", f"{state}, without Prefect's tables", "evergreen up --only prefect makes them")
    return Finding("database", f"{state}, with Prefect's tables")


def _redis() -> Finding:
    """Prefect's messages are streams, which Redis has since 5.0, and taken over from the dead since 6.2."""
    import redis

    address = addresses.read(services.REDIS, "redis", "rediss")
    try:
        with redis.Redis.from_url(address.url, socket_timeout=5, socket_connect_timeout=5) as client:
            info = client.info()
            beats = client.zcount("prefect:workers", time.time() - BEAT_S, "+inf")
    except redis.RedisError as error:
        why = masked(one_line(error), address.url)
        return Finding("redis", f"{address.shown}: {why}", f"start it, or correct {services.REDIS}")
    version, policy = info["redis_version"], info.get("maxmemory_policy", "noeviction")
    state = f"{address.shown} is Redis {version}"
    if tuple(map(int, version.split(".")[:2])) < OLDEST_REDIS:
        return Finding("redis", state, "Redis 6.2 or newer is needed: Prefect's messages are streams")
    if policy != "noeviction":
        return Finding("redis", f"{state}, maxmemory-policy {policy}", "noeviction: messages would be dropped")
    if not beats:
        return Finding("redis", f"{state}, and no background services use it", "evergreen up --only background")
    return Finding("redis", f"{state}, {many(beats, 'background service')} at work")


def _artifacts() -> Finding:
    root = os.environ.get(services.ARTIFACTS)
    if not root:
        mend = f"{services.ARTIFACTS}=s3://…: a release that lies on one machine is not found by another"
        return Finding("artifacts", f"MLflow's store is shared, and {services.ARTIFACTS} is not set", mend)
    return _folder("artifacts", root)


def _machines() -> Finding:
    own, others = fleet.code(), fleet.machines()
    names = sorted(machine.name for machine in others if machine.code != own)
    if names:
        mend = "git pull, make setup and evergreen up on whichever is behind: all machines run one code and lock"
        return Finding("machines", f"{listed(names, 3)} run other code than {own} here", mend)
    return Finding("machines", f"{many(len(others), 'machine')} up, none with other code than {own}")


def _leases() -> Finding:
    if not leases.is_fleet():
        return Finding("leases", f"this machine alone (lock files); a fleet names its database: {leases.ADDRESS}")
    database, held = leases.examine(), leases.live()
    state = f"PostgreSQL {database.version}, {many(len(held), 'lease')} held, clock {database.ahead_s:+.1f} s"
    if database.number < OLDEST_POSTGRESQL:
        return Finding("leases", state, "PostgreSQL 14.9 or newer is needed")
    if database.isolation != "read committed":
        mend = (
            "ALTER DATABASE … SET default_transaction_isolation = 'read committed': a waiting worker must see who ended"
        )
        return Finding("leases", f"{state}, isolation {database.isolation}", mend)
    if abs(database.ahead_s) > CLOCK_S:
        return Finding("leases", state, "set this machine's clock (chronyd, systemd-timesyncd)")
    return Finding("leases", state)


def _git(config: params.Params) -> Finding:
    here = Clone(settings.ROOT)
    if not here.is_checkout():
        return Finding("git", "this is no clone", "git init, or clone the project: a candidate names its commit")
    if not config.git.commit:
        return Finding("git", "data versions are committed by people (params.yaml: git.commit is false)")
    branch = git_sync.branch_of(config.git)
    tip = here.fetch(config.git.remote, branch)
    if tip is None:
        mend = f"git push -u {config.git.remote} HEAD:{branch}, once, by hand"
        return Finding("git", f"{config.git.remote} has no branch {branch!r}", mend)
    code = [
        name
        for name in here.run("diff", "--name-only", "--relative", f"HEAD...{tip}").splitlines()
        if name not in ("data.dvc", "dvc.lock")
    ]
    if code:
        mend = "git pull --rebase, then restart the worker: all workers run one code"
        return Finding("git", f"{config.git.remote} has other code: {listed(code, 3)}", mend)
    return Finding("git", f"{config.git.remote} answers, and has the code that is here")


def _remote() -> Finding:
    address = dvc_store.remote_address()
    if address is None:
        mend = "dvc remote add -d storage s3://…: without one, no other machine gets the data"
        return Finding("dvc remote", "none is configured", mend)
    return _folder("dvc remote", address)


def _folder(part: str, address: str) -> Finding:
    """Whether a shared folder or bucket can be listed, written to, read and tidied."""
    place = Location.of(address)
    if place.local is not None and not place.exists():
        return Finding(part, f"{place.shown} is not there yet: it is made when it is needed")
    probe = place / f".doctor-{uuid.uuid4().hex}.tmp"
    try:
        probe.write_bytes(b"evergreen")
        was_read = probe.read() == b"evergreen"
        is_listed = any(name.endswith(probe.path.rpartition("/")[2]) for name in place.names())
    finally:
        probe.remove()
    if not (was_read and is_listed):
        return Finding(
            part, f"{place.shown}: what was written is not read or listed", "give the rights to list and to read"
        )
    return Finding(part, f"{place.shown} can be listed, written, read and tidied")
