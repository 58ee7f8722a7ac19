"""Prefect's server, or its background services apart, with garbage collection in a thread of its own.

Of a database in PostgreSQL one process at a time makes the tables: several that begin together would end in errors.

On SQLite the server stood still for a minute or two now and then. Python's collector runs in whichever thread happens
to ask for memory. In the event loop's thread it finalises what another thread's connection has left, and waits for that
connection; which waits, for Prefect's busy timeout of 60 s, for a lock whose holder waits for the event loop. The
thread that collects here may wait (docs/decisions/local-stack.md).
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time

YOUNG_S, FULL_EVERY = 1.0, 30
"""Seconds between two collections of young objects, and every how many of them all objects are collected."""


BACKGROUND = "background"
"""The argument for what needs no port: schedules, automations, late runs."""

DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"

MIGRATION = 0x45564752
"""The number of PostgreSQL's advisory lock that holds whoever makes the tables."""

POLL_S = 0.5


def main(arguments: list[str]) -> None:
    """Become `prefect server start` with these arguments, or `prefect server services start`."""
    collect_in_thread()
    if os.environ.get(DATABASE, "").startswith("postgresql"):
        asyncio.run(_make_tables(os.environ[DATABASE]))
        os.environ["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] = "false"
    from prefect.cli import app

    start = ["start", "--host", os.environ.get("PREFECT_SERVER_API_HOST", "127.0.0.1"), *arguments]
    sys.argv = ["prefect", "server", *(["services", "start"] if arguments == [BACKGROUND] else start)]
    app()


async def _make_tables(url: str) -> None:
    """Make Prefect's tables, or bring them to its version, while no other process does.

    Who waits asks again and again: an index that is made concurrently waits for every statement that began before it,
    and so for one that waits for this lock.
    """
    import asyncpg  # type: ignore[import-untyped]
    from anyio import to_thread
    from prefect.server.database.alembic_commands import alembic_upgrade

    lock = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        while not await lock.fetchval("SELECT pg_try_advisory_lock($1)", MIGRATION):
            await asyncio.sleep(POLL_S)
        await to_thread.run_sync(alembic_upgrade)
    finally:
        await lock.close()


def collect_in_thread() -> None:
    """From now on, only a new thread collects this process' garbage."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    rounds = 0
    while True:
        time.sleep(YOUNG_S)
        rounds += 1
        gc.collect(2 if rounds % FULL_EVERY == 0 else 1)
        if rounds == FULL_EVERY:  # what was imported stays, and need not be looked at again: that takes 0.2 s
            gc.freeze()


if __name__ == "__main__":
    main(sys.argv[1:])
