"""Reconciler: brings what is served in line with the desired state on disk, var/serving/<model>.json."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from zoneinfo import ZoneInfo

from deployments.serving.fork_server_client import ForkServer
from deployments.serving.replica_pool import ReplicaPool
from deployments.serving.served_model import ServedModel
from tasks.ground import files, params, settings
from tasks.ground.errors import EvergreenError
from tasks.release.registry import desired_state
from tasks.release.registry.desired_state import DesiredState

GONE_S = 10.0
"""A model whose file is gone is served for so long: where a person has removed it by mistake, it is written again."""

DRAIN_S = 30.0  # how long a release that is no longer desired may take to answer its requests

LOG = logging.getLogger("evergreen.router")

FileVersion = tuple[int, int, int]


class Reconciler:
    """All served models, and what was read for them."""

    def __init__(self) -> None:
        self.models: dict[str, ServedModel] = {}
        self._fork_server = ForkServer()
        self._read_versions: dict[str, FileVersion] = {}  # model → the version of its file that is followed
        self._gone_since: dict[str, float] = {}  # model without a file → since when
        self._params: params.Params | None = None
        self._params_version: FileVersion | None = None
        """Of the last reading, also of a broken file: to read it takes as long as some requests."""
        self._draining: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Start what is desired now."""
        await self._fork_server.start()
        self.reconcile()

    async def end(self) -> None:
        """Drain everything."""
        pools = [pool for model in self.models.values() for pool in model.pools.values()]
        await asyncio.gather(*(pool.drain(DRAIN_S) for pool in pools), *self._draining)

    def reconcile(self) -> None:
        """One look: at params.yaml, at each model's file, at each replica."""
        states = desired_state.written()
        current, now = self._current_params(), time.monotonic()
        self._gone_since = {name: self._gone_since.get(name, now) for name in self.models if name not in states}
        for name in [*states, *self._gone_since]:
            model = self.models.setdefault(name, ServedModel(name, self._fork_server))
            limits = params.Serving()
            if current and name in current.models:
                limits, model.zone = current.models[name].serving, ZoneInfo(current.models[name].timezone)
            model.follow(self._desired(model, states.get(name), now), limits, self._drain)
            if name not in states and not model.pools:
                del self.models[name]

    def _desired(self, model: ServedModel, path: Path | None, now: float) -> DesiredState:
        """The model's desired state; the last one that could be read, where that cannot be."""
        if path is None:
            if now - self._gone_since[model.name] <= GONE_S:
                return model.desired
            self._read_versions.pop(model.name, None)  # the file may come back as it was
            return DesiredState()
        version = _version(path)
        if self._read_versions.get(model.name) == version:
            return model.desired
        try:
            desired = desired_state.parse(files.read_json(path))
        except (OSError, ValueError, LookupError, TypeError) as error:  # a person is writing it: it is read again
            LOG.warning(f"{path} cannot be read, so nothing changes: {error}")
            is_new = not model.pools and model.desired == DesiredState()  # torn by a power cut: restored by the journal
            return desired_state.read(model.name) if is_new else model.desired
        self._read_versions[model.name] = version
        return desired

    def _current_params(self) -> params.Params | None:
        """params.yaml, or what it was when it could last be read; None: never."""
        path = settings.ROOT / "params.yaml"
        try:
            if (version := _version(path)) != self._params_version:
                self._params_version = version
                self._params = params.load()
        except (OSError, EvergreenError) as error:
            if isinstance(error, OSError):
                self._params_version = None
            LOG.warning(f"{path} cannot be read, so its numbers stay as they are: {error}")
        return self._params

    def _drain(self, pool: ReplicaPool) -> None:
        task = asyncio.create_task(pool.drain(DRAIN_S))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)


def _version(path: Path) -> FileVersion:
    """Changes when a file does."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
