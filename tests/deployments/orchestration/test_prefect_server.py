"""Prefect's server: whose thread collects its garbage, and why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STANDS = """
import gc, json, sqlite3, sys, threading, time

path, aside = sys.argv[1], sys.argv[2] == "aside"
if aside:
    from deployments.orchestration import prefect_server
    prefect_server.YOUNG_S = 0.05
    prefect_server.collect_in_thread()
loops = sqlite3.connect(path, isolation_level=None)
loops.execute("PRAGMA journal_mode=WAL")
loops.execute("CREATE TABLE t (a)")
others = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=3)
left = [others.execute("PRAGMA busy_timeout")]
left.append(left)  # a cycle: only the collector finds it

loops.execute("BEGIN IMMEDIATE")
told = []
def wait():
    try:
        others.execute("INSERT INTO t VALUES (1)")
        told.append("done")
    except sqlite3.OperationalError as error:
        told.append(str(error))
waits = threading.Thread(target=wait)
waits.start()
time.sleep(0.3)

del left
begin = time.monotonic()
many = []
while time.monotonic() - begin < 1:  # the event loop works on, and allocates
    many.append([[] for _ in range(1000)])
    del many[:-100]
took = time.monotonic() - begin
loops.execute("COMMIT")
waits.join()
print(json.dumps({"took": took, "told": told, "enabled": gc.isenabled()}))
"""


@pytest.mark.parametrize("who", ["aside", "anybody"])
def test_the_event_loop_does_not_wait_for_who_waits_for_it(who: str, tmp_path: Path) -> None:
    """What a cursor has left is finalised by a thread that may wait. Python's own way is shown, too: it stands."""
    run = [sys.executable, "-c", STANDS, str(tmp_path / "db"), who]
    said = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stdout
    found = json.loads(said)
    if who == "aside":
        assert found["told"] == ["done"]
        assert found["took"] < 2
        assert not found["enabled"]
    else:
        assert found["told"] == ["database is locked"]
        assert found["took"] > 2
