"""A warm parent that forks a process for each request: a flow so starts in milliseconds instead of six seconds.

It is a real process with an id of its own, and can be killed by kill -9. The parent has imported what the flows import,
and forks before Prefect or MLflow have made a client or a thread: `python -m tests.loop.zygote <socket> <project>`.
Each request is a connection with one line of JSON; the answer is the exit code as subprocess gives it (-9: killed).
"""

from __future__ import annotations

import gc
import json
import os
import random
import select
import signal
import socket
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

IMPORTS = (
    "flows.ingest flows.train pandas pyarrow.parquet sklearn.linear_model great_expectations mlflow.sklearn "
    "skops.io matplotlib.pyplot dvc.repo.add dvc.repo.push dvc.stage.run dvc_data.index tasks.data.validate "
    "tasks.training.prepare tasks.training.train tasks.training.evaluate tasks.release.package.package "
    "tasks.release.comparison tasks.release.registry.registry tasks.release.registry.alias_repair "
    "tasks.ground.model_environment mlflow.store.tracking.sqlalchemy_store "
    "mlflow.store.model_registry.sqlalchemy_store fsspec.core sklearn.compose sklearn.impute "
    "tasks.training.plots tasks.training.explain prefect.flow_engine prefect.task_engine "
    "prefect.client.orchestration prefect.events.clients prefect.events.worker networkx dvc.repo.plots "
    "scmrepo.git dvc.cli dvc.commands.add dvc.commands.repro dvc.repo.reproduce dvc.repo.checkout "
    "dvc.repo.commit dvc.fs mlflow.models mlflow.pyfunc.scoring_server mlflow.types.responses alembic.command "
    "alembic.config dvc.cachemgr dvc.data_cloud dvc.lock dvc.rwlock dvc.repo.index dvc.repo.graph "
    "dvc.repo.metrics dvc.repo.params dvc.repo.artifacts dvc.utils.strictyaml dvc_data.hashfile.status "
    "dulwich.worktree git git.repo graphviz filelock zc.lockfile flufl.lock mlflow.tracing.export "
    "mlflow.tracing.processor opentelemetry.sdk.metrics anyio._backends._asyncio deployments.cli "
    "flows.prefect_support.run_local prefect.utilities.visualization "
    "mlflow.utils.search_logged_model_utils fsspec.implementations.memory"
)


def serve(path: str, project: str) -> None:
    """Import, warm up, then fork for whoever asks; until the standard input is closed."""
    for name in IMPORTS.split():
        import_module(name)
    _warm_up(Path(project))
    gc.freeze()  # what is shared with the children stays shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(128)
        while True:
            readable, _, _ = select.select([listening, sys.stdin], [], [])
            if sys.stdin in readable:
                return
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _watch(connection)
            connection.close()


def _warm_up(project: Path) -> None:
    """Do the steps once that use no service: much is imported or built at the first use only."""
    from mlflow.utils import requirements_utils
    from tqdm import tqdm

    import models
    from tasks import steps
    from tasks.ground import settings

    tqdm.monitor_interval = 0  # no thread that watches progress bars: it would not be in the children
    requirements_utils._init_modules_to_packages_map()
    requirements_utils._init_packages_to_modules_map()
    before, path = (settings.ROOT, settings.BUILD, settings.VAR), models.__path__
    _enter(project)
    for step in ("environment", "validate", "prepare", "train", "evaluate"):
        steps.run(step, ["tiny"])
    for name in [name for name in sys.modules if name.startswith("models.")]:
        del sys.modules[name]
    (settings.ROOT, settings.BUILD, settings.VAR), models.__path__ = before, path
    assert threading.active_count() == 1, threading.enumerate()


def _watch(connection: socket.socket) -> None:
    """Fork the process that was asked for, kill it when it is due, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked = json.loads(connection.makefile().readline())
    heard, say = os.pipe()
    child = os.fork()
    if child == 0:
        connection.close()
        os.close(heard)
        _act(asked, say)
    os.close(say)
    try:
        if (due := os.read(heard, 32)) != b"":  # the child came to where it is to be killed
            time.sleep(float(due))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    finally:
        os._exit(0)


def _act(asked: dict[str, Any], say: int) -> None:
    """Be the process: point everything at the project, and do what was asked."""
    code = 99
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        random.seed()
        gc.disable()  # it does not live long
        _enter(Path(asked["root"]))
        from tests.loop import acts, kills

        kills.arm(asked.get("kill"), say, Path(asked["root"]), asked.get("counts"))
        code = acts.act(asked["act"], asked.get("arguments", []), asked.get("trials"), drawn=asked.get("drawn", False))
        kills.report()
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # what Prefect would still send of logs and events is told to nobody: as after a kill


def _enter(root: Path) -> None:
    import models
    from tasks.ground import settings

    settings.ROOT, settings.BUILD, settings.VAR = root, root / "build", root / "var"
    kept = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_")}
    os.environ.update(settings.environment() | kept)
    models.__path__ = [str(root / "models")]
    os.chdir(root)


if __name__ == "__main__":
    serve(*sys.argv[1:])
