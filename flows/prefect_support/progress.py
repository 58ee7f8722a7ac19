"""Progress of what takes long: a bar in Prefect's UI, renewed every few seconds, as each is a call to the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from tasks.engine import engine

EVERY_S = 3.0
"""Seconds between two calls."""


class ProgressBar:
    """A bar of the run, from 0 to 1."""

    def __init__(self, key: str, description: str, log: Callable[[str], object] = lambda _: None) -> None:
        artifact = create_progress_artifact(0.0, key=key.replace("_", "-"), description=description)
        assert isinstance(artifact, UUID)  # it is a coroutine only where there is a loop
        self.artifact, self.log, self.updated = artifact, log, time.monotonic()

    def show(self, share: float, text: str) -> None:
        """Say how far it is, unless that was said a moment ago."""
        now = time.monotonic()
        if share >= 1 or now - self.updated >= EVERY_S:
            self.updated = now
            update_progress_artifact(self.artifact, min(share, 1.0) * 100, description=text)
            self.log(text)


@contextmanager
def of_engine() -> Iterator[None]:
    """While this lasts, what the engine does for longer than a moment has a bar."""
    began, bars = time.monotonic(), dict[str, ProgressBar]()

    def tell(progress: engine.EngineProgress) -> None:
        if progress.what not in bars and (progress.done == progress.of or time.monotonic() - began < EVERY_S):
            return
        try:
            if progress.what not in bars:
                key = f"progress-{progress.what.replace(' ', '-')}"
                bars[progress.what] = ProgressBar(key, progress.what, get_run_logger().info)
            bars[progress.what].show(progress.done / progress.of, str(progress))
        except (httpx.HTTPError, PrefectException) as error:  # the work that it tells of goes on
            get_run_logger().warning(f"{progress}; the bar cannot be renewed: {type(error).__name__}")

    token = engine.telling.set(tell)
    try:
        yield
    finally:
        engine.telling.reset(token)
