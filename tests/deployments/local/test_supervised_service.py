"""One service under supervision, and what the platform keeps on disk; without a platform."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import time
from pathlib import Path

import pytest

from deployments.local import run_state, supervised_service, supervisor
from deployments.local.console import Console
from deployments.local.services import LocalService
from deployments.local.supervised_service import SupervisedService, Supervision
from deployments.orchestration import registration
from tasks.ground import files, settings
from tasks.ground.errors import WorldError


def supervised(*services: LocalService) -> list[SupervisedService]:
    """These services, each of which answered a moment ago; the later ones depend on the first."""
    shared = Supervision(Console(io.StringIO()))
    made = [SupervisedService(service, shared, answers=True) for service in services]
    for other in made[1:]:
        other.dependencies = made[:1]
    return made


@pytest.mark.parametrize("silent", [["server", "worker"], ["worker"], []])
def test_a_service_that_hangs_is_killed(silent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """But not one that only waits for a server that hangs."""
    monkeypatch.setattr(supervised_service, "PROBE_SECONDS", 0)
    both = supervised(
        LocalService("server", ["sleep", "60"], lambda _: "server" not in silent, hang_seconds=0.2),
        LocalService("worker", ["sleep", "60"], lambda _: "worker" not in silent, hang_seconds=0.2),
    )

    async def probe() -> list[str]:
        for service in both:
            await service.start()
            service.probed_at = service.answered_at = time.monotonic()
        for _ in range(3):
            for service in both:
                await service.probe()
            await asyncio.sleep(0.15)
        killed = [service.name for service in both if service.process and service.process.returncode is not None]
        for service in both:
            await service.stop()
        return killed

    assert asyncio.run(probe()) == silent[:1]


def test_a_service_that_dies_at_once_ends_a_platform_that_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the end of its log; in one that is ready, it rests and the others go on."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    (dies,) = supervised(LocalService("router", ["sh", "-c", "echo no such port; exit 3"], lambda _: False))
    with pytest.raises(WorldError) as told:
        asyncio.run(dies.keep_running())
    assert str(told.value).startswith("router was ended with code 3, 5 times within 60 s: given up.\n    no such port")

    async def dies_again() -> None:
        running = asyncio.create_task(dies.keep_running())
        async with asyncio.timeout(60):
            while not dies.rest_seconds:
                await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()

    dies.shared.ready = True
    asyncio.run(dies_again())
    assert dies.rest_seconds == supervised_service.REST_SECONDS


def test_a_run_starts_in_whatever_folder_the_worker_stands() -> None:
    """Each machine may have its checkout elsewhere, in a folder with a space too: the command names none."""
    ingest = registration.Deployment("ingest", "ingest", "", [])
    command = registration._body(ingest)["job_variables"]["command"]
    assert command == "python -m deployments.orchestration.flow_run"


def test_a_full_disk_ends_no_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor keeps it from restarting a service: what it would note about itself is noted when there is room again."""

    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(settings, "VAR", tmp_path)
    watch = LocalService("watch", ["sleep", "60"], lambda _: True)
    lock = run_state.take_lock()
    assert lock
    up = supervisor.Supervisor([watch], Console(io.StringIO()), lock)

    async def start() -> int:
        process = await up.services[0].start()
        await up.services[0].stop()
        return process.pid

    with monkeypatch.context() as full:
        full.setattr(files, "write_json", write)
        pid = asyncio.run(start())
    with monkeypatch.context() as terminal:
        terminal.setattr(os, "fstat", lambda _: tmp_path.stat())  # what pytest has for one is a file without a name
        up._restore_run_state()
    assert files.read_json(tmp_path / "run/stack.json")["services"] == {"watch": pid}
    up.lock.release()
