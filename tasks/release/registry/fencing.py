"""Fencing within MLflow's own transactions, where its store is the database of the leases.

`leases.fenced()` locks the leases' rows in a session beside MLflow's. The server gives that session up when its process
is stopped for long, and the process, awake again, would write to MLflow all the same. Here each transaction of MLflow
looks at the tokens itself, and keeps their rows until it ends: one that was stopped and given up cannot be committed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks.ground import leases

if TYPE_CHECKING:
    from sqlalchemy import Connection

IDLE_SECONDS = 20
"""So long may a process be silent within a transaction of MLflow; then the server ends it, and another takes over."""


def sees_leases(store: str) -> bool:
    """Whether MLflow's store is the database of the leases, whatever the driver, user and options."""
    return leases.is_fleet() and _database(store) == _database(os.environ[leases.ADDRESS])


def _database(address: str) -> tuple[str, str | None, int, str]:
    url = urlsplit(address)
    return url.scheme.partition("+")[0].replace("postgresql", "postgres"), url.hostname, url.port or 5432, url.path


@contextmanager
def transactions() -> Iterator[None]:
    """Within the block, each transaction of MLflow begins with a look at the leases of this process.

    Raises:
        LeaseLost: another one holds a lease that this process has taken: nothing is written.
    """
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    event.listen(Session, "after_begin", _look)
    try:
        yield
    except Exception as error:
        lost: BaseException | None = error
        while lost is not None and not isinstance(lost, leases.LeaseLost):
            lost = lost.__cause__ or lost.__context__  # MLflow wraps it
        if lost is not None:
            raise lost from None
        raise
    finally:
        event.remove(Session, "after_begin", _look)


def _look(_session: object, _transaction: object, connection: Connection) -> None:
    from sqlalchemy import text

    connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'"))
    row = text("SELECT token, holder FROM evergreen_leases WHERE name = :name FOR SHARE")
    for lease in leases.taken():
        token, holder = connection.execute(row, {"name": lease.name}).one_or_none() or (None, "nobody")
        if token != lease.token:
            raise leases.LeaseLost(
                f"{lease.title} was taken over by {holder} (token {token}): this process was stopped or cut off for "
                f"more than {leases.seconds():g} s, and what it was about to write to MLflow is refused"
            )
