"""The MLflow server: first one process alone makes the store, then the server takes its place."""

from __future__ import annotations

import os
import sys

from tasks.release.registry import mlflow_store


def main() -> None:
    """Make the store if there is none, move its addresses with its folder, and become the server.

    One worker, no job runner: 2 processes rather than 15.
    """
    store, artifacts = os.environ["MLFLOW_BACKEND_STORE_URI"], mlflow_store.artifact_root()
    if store.startswith("sqlite:///"):
        os.environ["MLFLOW_TRACKING_URI"] = store
        mlflow_store.prepare()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", os.environ["MLFLOW_PORT"]]
    command += ["--workers", "1", "--default-artifact-root", artifacts, "--no-serve-artifacts"]
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
