"""A warm parent for bento_trial.py: `python -I trials.py <socket> <trial.py>`; see acts.Interpreter."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any


def serve(path: str, script: str) -> None:
    """Import what the script imports, then fork for whoever asks; until the standard input is closed."""
    spec = spec_from_file_location("trial", script)
    assert spec
    assert spec.loader
    trial = module_from_spec(spec)
    spec.loader.exec_module(trial)
    for name in (*trial.AHEAD["ask"], "sklearn.linear_model", "sklearn.compose", "sklearn.impute", "bentoml.bentos"):
        import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        while True:
            readable, _, _ = select.select([listening, sys.stdin], [], [])
            if sys.stdin in readable:
                return
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _act(connection, trial)
            connection.close()


def _act(connection: socket.socket, trial: Any) -> None:
    try:
        head = b""
        while not head.endswith(b"\n"):
            if (more := connection.recv(1)) == b"":
                os._exit(1)
            head += more
        asked = json.loads(head)
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 2)
        os.dup2(connection.fileno(), 0)
        os.dup2(connection.fileno(), 1)
        connection.close()
        os.environ.update(asked["environment"])
        sys.argv = ["trial.py", asked["command"]]
        trial.main()
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    serve(*sys.argv[1:])
