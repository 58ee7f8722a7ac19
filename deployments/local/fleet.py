"""The machines of a fleet: each that is up says so by a lease, with its services and the code that it runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deployments.orchestration import work_pool
from tasks.ground import files, leases, settings
from tasks.ground.errors import EvergreenError
from tasks.ground.git import Clone

RETRY_S = 10.0
"""Between two tries to say so while the database of the leases does not answer."""

DATA = frozenset({"data.dvc", "dvc.lock"})
"""Workers commit these: machines that differ in them alone run one code."""


@dataclass(frozen=True)
class Machine:
    """A machine that is up."""

    name: str
    services: str
    code: str
    since: str


def code() -> str:
    """What tells the code that is committed here from another, with the packages that it asks for."""
    entries = Clone(settings.ROOT).attempt("ls-tree", "HEAD").stdout.splitlines()
    kept = [entry for entry in entries if entry.rpartition("\t")[2] not in DATA]
    return files.digest(kept)[:8]


def machines() -> list[Machine]:
    """Those that are up; none on one machine alone."""
    up = []
    for lease in leases.live():
        if lease.name.startswith(leases.MACHINE):
            services, _, its_code = lease.holder.partition(": ")[2].partition(", code ")
            name = lease.name.removeprefix(leases.MACHINE).rpartition("-")[0]
            up.append(Machine(name, services, its_code, lease.since))
    return up


@contextmanager
def announced(services: Iterable[str]) -> Iterator[None]:
    """Have the others of a fleet see, until the block ends, that this machine is up."""
    if not leases.is_fleet():
        yield
        return
    ended, who = threading.Event(), f"{' '.join(services)}, code {code()}"
    name = f"{work_pool.worker()}-{os.getpid()}"  # a successor need not wait until the lease of one that died runs out
    thread = threading.Thread(target=_announce, args=(name, who, ended), name="machine", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _announce(name: str, who: str, ended: threading.Event) -> None:
    """The machine works on while the database of the leases does not answer."""
    while not ended.is_set():
        try:
            with leases.up(name, who):
                ended.wait()
        except EvergreenError:
            ended.wait(RETRY_S)
