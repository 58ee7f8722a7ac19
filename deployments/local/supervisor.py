"""Supervisor of the platform on this machine: `evergreen up` in the foreground until Ctrl-C, or detached until `down`.

Everything it ends is known by a tag in its environment, which processes inherit: so flow runs are ended too, also those
whose worker died, and nothing else is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.local import fleet, run_state
from deployments.local.console import Console
from deployments.local.services import LocalService, environment, local_services, refuse_silence
from deployments.local.supervised_service import SupervisedService, Supervision
from deployments.watching import crash_recovery
from flows.prefect_support import api
from tasks.ground import http, leases, log_rotation, params, paths, process_tags, settings
from tasks.ground.errors import EvergreenError, Mistake, SourceUnavailable, WorldError

if TYPE_CHECKING:
    from filelock import FileLock

READY_SECONDS = 600  # how long the services may take until all answer, on a machine that does other things too
REPORT_SECONDS = 60  # how often it is reported which of them do not yet
LOCK_SECONDS = 1.0  # how long the lock may be held by a command that only looks, as `evergreen status` does
DOWN_SECONDS = 60.0


# ── commands ──────────────────────────────────────────────────────────────────────────────────────


def up() -> int:
    """Start the platform and keep it running until it is told to end; gives the exit code."""
    params.load()  # a mistake in it is reported before anything is started
    lock = run_state.take_lock(LOCK_SECONDS)
    if lock is None or process_tags.find_supervisor():
        raise Mistake(
            f"the platform of {settings.ROOT} is up already. `evergreen status` shows it, `evergreen down` ends it"
        )
    run_state.write_note()
    console = Console()
    if count := process_tags.end_all():
        console.event("stack", f"{count} processes of a platform that was killed were still running, and were ended")
    services = local_services()
    _look_elsewhere(services, console)
    _refuse_taken_ports(services)
    return asyncio.run(Supervisor(services, console, lock).run())


def detach() -> int:
    """Start the platform in the background, and wait until it is ready; gives the exit code."""
    if pid := run_state.find_supervisor():
        raise Mistake(f"the platform of {settings.ROOT} is up already (process {pid}). `evergreen down` ends it")
    log = Console().log("stack")
    log.write_bytes(b"")
    with log.open("ab") as out:  # appended to, so that it can be turned over
        command = [sys.executable, "-m", "deployments.cli", "up"]
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=settings.ROOT, start_new_session=True
        )
    printed = 0
    while True:
        text = log.read_text(encoding="utf-8", errors="replace")
        end = text.rfind("\n") + 1
        print(text[printed:end], end="", flush=True)
        printed = end
        if process.poll() is not None:
            raise WorldError(f"the platform did not come up. Its log: {log}")
        if run_state.read_note().get("ready") and run_state.find_supervisor() == process.pid:
            print(f"it runs in the background; its log is {log}. `evergreen down` ends it")
            return 0
        time.sleep(0.2)


def down() -> int:
    """End the platform of this checkout, if it is up; gives the exit code."""
    pid = run_state.find_supervisor()
    if pid is None:
        count = process_tags.end_all()
        rest = f"; {count} processes it left were ended" if count else ""
        print(f"the platform of {settings.ROOT} is not up{rest}")
        return 0
    os.kill(pid, signal.SIGTERM)
    if not http.wait_until(lambda: run_state.find_supervisor() != pid, DOWN_SECONDS):
        raise WorldError(f"process {pid} does not end. See {paths.logs()}")
    print("the platform is down")
    return 0


def _look_elsewhere(services: list[LocalService], console: Console) -> None:
    """Servers of other machines that do not answer end a start, but for that of a machine whose router can serve."""
    try:
        refuse_silence()
    except SourceUnavailable as error:
        if not any(service.serves for service in services):
            raise
        console.event("stack", f"{error}. The router serves meanwhile", bad=True)


def _refuse_taken_ports(services: list[LocalService]) -> None:
    taken = {
        service.port: f"{service.name} cannot have port {os.environ[service.port]}: {user}"
        for service in services
        if service.port and (user := _user_of(int(os.environ[service.port])))
    }
    if taken:
        free = " ".join(f"{setting}={http.free_port()}" for setting in taken)
        raise Mistake(f"{'; '.join(taken.values())}. End that, or take other ports: {free} evergreen up")


def _user_of(port: int) -> str | None:
    """The process that listens on a port, and for which checkout; None for a free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            process, checkout = process_tags.listener(port)
            return f"{process or error.strerror}" + (f", of the platform of {checkout}" if checkout else "")
    return None


# ── supervision ───────────────────────────────────────────────────────────────────────────────────


class Supervisor:
    """Keeps the services running until a signal, or until it gives up."""

    def __init__(self, services: list[LocalService], console: Console, lock: FileLock) -> None:
        self.console, self.lock = console, lock
        self.shared = Supervision(console, changed=self._write_note)
        self.services: list[SupervisedService] = []
        for service in services:
            dependencies = [other for other in self.services if other.name in service.after]
            self.services.append(SupervisedService(service, self.shared, dependencies))
        self._begun = time.monotonic()
        self._reported = 0.0

    async def run(self) -> int:
        """Start the services, supervise and end them. Gives the exit code."""
        os.environ.update(environment())
        os.environ[process_tags.STACK] = str(settings.ROOT)
        background = asyncio.create_task(self._follow_logs())
        jobs = (self._until_signal(), self._watch(), *(service.keep_running() for service in self.services))
        tasks = [asyncio.create_task(job) for job in jobs]
        try:
            with fleet.announced(service.name for service in self.services):
                ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        except WorldError as error:
            self.console.event("stack", str(error), bad=True)
            return 1
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._end()
            background.cancel()
        return 0

    async def _until_signal(self) -> None:
        loop, received = asyncio.get_running_loop(), asyncio.Event()

        def receive(number: signal.Signals) -> None:
            self.console.event("stack", f"{number.name}: ending everything")
            received.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, receive, number)
        await received.wait()

    async def _follow_logs(self) -> None:
        """Show the output that is for people, and that of flow runs, which outlive the worker that started them."""
        shown = [service.name for service in self.services if service.service.is_shown]
        follow = [self.console.follow(name) for name in (*shown, "flows")]
        while True:
            with suppress(OSError):  # a full disk
                for write_new in follow:
                    write_new()
                log_rotation.rotate_all(paths.logs())  # right after, so that next to no line is lost
            await asyncio.sleep(0.2)

    async def _watch(self) -> None:
        """Probe the services; an error ends the platform where they are not ready in time."""
        while True:
            with suppress(OSError):
                self._restore_run_state()
            await asyncio.gather(*(service.probe() for service in self.services))
            late = [service.name for service in self.services if not service.answers]
            if not self.shared.ready:
                self._report_start(", ".join(late))
            await asyncio.sleep(0.2 if late else 1)

    def _report_start(self, late: str) -> None:
        waited = time.monotonic() - self._begun
        if not late:
            self.shared.ready = True
            self._write_note()
            self.console.event("stack", f"ready after {waited:.0f} s. Ctrl-C ends everything")
            if not os.environ.get("EVERGREEN_NOTIFY_URL"):
                self.console.event("stack", "nobody is notified of failures: EVERGREEN_NOTIFY_URL is not set")
        elif waited > READY_SECONDS and not (self._serves() and leases.is_fleet()):
            raise WorldError(f"after {READY_SECONDS} s there was no answer from {late}. Logs: {paths.logs()}")
        elif waited > self._reported + REPORT_SECONDS:
            self._reported = waited
            reason = f"this machine is busy, or see {paths.logs()}"
            self.console.event("stack", f"waits for {late}, for {waited:.0f} s: {reason}")

    def _serves(self) -> bool:
        return any(service.service.serves and service.answers for service in self.services)

    def _restore_run_state(self) -> None:
        """Somebody may have removed var: the next `up`, `down` or `status` must find this process all the same."""
        self._write_note()
        if os.fstat(1).st_nlink == 0:  # a platform in the background writes into var/log
            with self.console.log("stack").open("ab") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
        if not self.lock.is_locked or not Path(self.lock.lock_file).exists():
            self.lock.release()
            self.lock = run_state.take_lock() or self.lock

    def _write_note(self) -> None:
        with suppress(OSError):  # where the disk is full, the next look writes it
            run_state.write_note(self.shared.ready, self._pids())

    def _pids(self) -> dict[str, int]:
        return {service.name: service.process.pid for service in self.services if service.process}

    async def _end(self) -> None:
        for service in reversed(self.services):  # the worker before the server it reports to
            await service.stop()
            if service.name == "worker":
                await asyncio.to_thread(self._interrupt)
        await asyncio.to_thread(process_tags.end_all)
        self.console.event("stack", "down")

    def _interrupt(self) -> None:
        """End the flow runs at once, each of which may be killed anywhere, and report that before the server ends."""
        here = crash_recovery.local_processes().runs
        for starter in ("worker", "forkserver"):
            process_tags.kill_service(starter, keep=self._pids().values())
        if not all(service.answers for service in self.services if service.name == "prefect"):
            return
        try:
            with api.patience(2):
                names = crash_recovery.interrupt(here if leases.is_fleet() else None)
            if names:
                self.console.event("stack", f"interrupted, to go on with the next evergreen up: {', '.join(names)}")
        except EvergreenError as error:
            self.console.event("stack", f"what was running will be taken for crashed: {error}", bad=True)
