"""The interpreter that tries a release: what it starts does not outlive whoever wants its answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.deployments.conftest import until

TRIAL = """
import os, pathlib, sys, time
from tasks.release.package import bento_trial
bento_trial.AHEAD = {"ask": ()}

def hang(task):
    pathlib.Path(task["pids"]).write_text(f"{os.getppid()} {os.getpid()}")
    time.sleep(300)

bento_trial.ask = hang
bento_trial.main()
"""

PACKAGE = """
import json, subprocess, sys, time
trial = subprocess.Popen([sys.executable, "-c", sys.argv[1], "ask"], stdin=subprocess.PIPE, text=True)
trial.stdin.write(json.dumps({"do": "ask", "pids": sys.argv[2]}) + chr(10))
trial.stdin.flush()
time.sleep(300)
"""


def test_a_trial_that_hangs_ends_with_a_package_that_is_killed(tmp_path: Path) -> None:
    """The interpreter, and its fork that never returns from the release's code."""
    pids = tmp_path / "pids"
    package = subprocess.Popen([sys.executable, "-c", PACKAGE, TRIAL, str(pids)], cwd=REPOSITORY)
    until(lambda: pids.exists() and pids.read_text().count(" "), 30, "a fork")
    package.send_signal(signal.SIGKILL)
    package.wait()
    begin = time.monotonic()
    until(lambda: not any(map(_runs, map(int, pids.read_text().split()))), 15, "their end")
    assert time.monotonic() - begin < 10


def _runs(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return (Path("/proc") / str(pid) / "stat").read_text().split()[2] != "Z"
    return False
