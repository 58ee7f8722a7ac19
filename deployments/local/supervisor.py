"""`make up`: the platform on this machine, in the foreground until Ctrl-C; `make down` ends one that runs behind.

circus (it comes with BentoML) starts the services, keeps each one's log in var/log/ and restarts what dies. What is
ended is known by a mark in its environment, which a process inherits from whoever started it: so flow runs are ended
too, also those whose worker died, and nothing else is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.local.console import Story
from deployments.local.services import Service, environment, services
from deployments.watching import crash_recovery
from tasks.ground import files, http, log_rotation, params, paths, priority, process_tags, settings
from tasks.ground.errors import EvergreenError, Mistake, WorldError

if TYPE_CHECKING:
    import psutil
    from filelock import FileLock

READY_SECONDS, TELL_SECONDS = 600, 60
"""How long the services may take until all answer, on a machine that does other things too; and how often it is said
which of them are waited for."""

LISTENING = "EVERGREEN_LISTENING_FD"
"""The variable that tells a service the socket on which the stack listens for it."""

DEATHS, WITHIN = 5, 60.0
"""A service that dies this often within so many seconds ends a platform that is not ready yet."""

REST_SECONDS = 60
"""So long it is not restarted in one that is: the others go on, above all what serves."""

HEARTBEAT_SECONDS = 60.0
"""How long ago the worker and the watcher may have been heard last."""

PROBE_SECONDS = 10.0
"""How often a service that answers is asked whether it still does."""

LOCK_SECONDS = 1.0
"""So long it may be held by one that only looks, as `evergreen status` does."""

NOTE_SECONDS = 5.0
"""So long a platform that begins may take to say which process it is."""


# ── what a person asks ────────────────────────────────────────────────────────────────────────────


def up() -> int:
    """Start the platform and keep it running until it is told to end."""
    params.load()  # a mistake in it is told before anything is started
    lock = take_lock(LOCK_SECONDS)
    if lock is None or process_tags.find_supervisor(_mark()):
        raise Mistake(
            f"the platform of {settings.ROOT} is up already. `evergreen status` shows it, `make down` ends it"
        )
    _write_note()
    story = Story()
    _end_leftovers(story)
    wanted = services()
    _refuse_taken_ports(wanted)
    return asyncio.run(Stack(wanted, story, lock).run())


def detach() -> int:
    """Start the platform behind, and wait until it is ready."""
    if pid := _holder():
        raise Mistake(f"the platform of {settings.ROOT} is up already (process {pid}). `make down` ends it")
    log = _log()
    log.write_bytes(b"")
    with log.open("ab") as out:  # appended to, so that it can be turned over
        command = [sys.executable, "-m", "deployments.cli", "up"]
        started = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=settings.ROOT, start_new_session=True
        )
    shown = 0
    while True:
        text = log.read_text(encoding="utf-8", errors="replace")
        whole = text.rfind("\n") + 1
        print(text[shown:whole], end="", flush=True)
        shown = whole
        if started.poll() is not None:
            raise WorldError(f"the platform did not come up. Its log: {log}")
        if (_note() or {}).get("ready") and _holder() == started.pid:
            print(f"it goes on behind; what happens is told in {log}. `make down` ends it")
            return 0
        time.sleep(0.2)


def down() -> int:
    """End the platform of this checkout, if it is up."""
    pid = _holder()
    if pid is None:
        left = process_tags.end_all(_mark())
        print(f"the platform of {settings.ROOT} is not up" + (f"; {left} processes it left were ended" if left else ""))
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while _holder() == pid:
        if time.monotonic() > deadline:
            raise WorldError(f"process {pid} does not end. See {paths.logs()}")
        time.sleep(0.1)
    print("the platform is down")
    return 0


def running() -> tuple[int | None, dict[str, int], list[psutil.Process]]:
    """The process that keeps the platform up, the process id of each service, and every process of the platform."""
    return _holder(), (_note() or {}).get("services", {}), process_tags.tagged(_mark())


def _refuse_taken_ports(wanted: list[Service]) -> None:
    ports = [(service.name, setting, port) for service in wanted for setting, port in service.ports.items()]
    taken = {
        setting: f"{name} cannot have port {port}: {who}" for name, setting, port in ports if (who := _taken(port))
    }
    if taken:
        free = " ".join(f"{setting}={http.free_port()}" for setting in taken)
        raise Mistake(f"{'; '.join(taken.values())}. End that, or take other ports: {free} make up")


def _taken(port: int) -> str | None:
    """Who has a port, and for which checkout."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            checkout = process_tags.checkout_on(port)
            of = f", of the platform of {checkout}" if checkout else ""
            return f"{process_tags.listener(port) or error.strerror}{of}"
    return None


def _end_leftovers(story: Story) -> None:
    """A stack that was killed has left its services behind."""
    if left := process_tags.end_all(_mark()):
        story.tell("stack", f"{left} processes of a platform that was killed were still there, and were ended")


def _mark() -> str:
    return str(settings.ROOT)


def _log() -> Path:
    """Where a platform behind tells."""
    log = paths.log("stack")
    log.parent.mkdir(parents=True, exist_ok=True)
    return log


def _run() -> Path:
    return paths.run_folder()


def _note() -> dict[str, Any] | None:
    try:
        said: dict[str, Any] = files.read_json(_run() / "stack.json")
    except (FileNotFoundError, ValueError):
        return None
    return said


def _write_note(ready: bool = False, services: Mapping[str, int] | None = None) -> None:
    said = {"pid": os.getpid(), "ready": ready, "services": services or {}}
    if _note() != said:
        files.write_json(_run() / "stack.json", said)


def take_lock(seconds: float = 0) -> FileLock | None:
    """The lock of whoever keeps this platform up; None while somebody else holds it."""
    from filelock import FileLock, Timeout

    _run().mkdir(parents=True, exist_ok=True)
    lock = FileLock(_run() / "stack.lock")
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return None
    return lock


def _holder() -> int | None:
    """The process that keeps the platform of this checkout up: whoever holds the lock, or is seen to, without one."""
    deadline = time.monotonic() + NOTE_SECONDS
    while (_run() / "stack.lock").exists():
        lock = take_lock()
        if lock is not None:
            lock.release()
            break
        pid = (_note() or {}).get("pid")
        if pid and process_tags.is_supervisor(pid):
            return int(pid)
        if time.monotonic() > deadline:
            raise WorldError(f"somebody holds {_run() / 'stack.lock'}, and does not say who it is")
        time.sleep(0.1)
    return process_tags.find_supervisor(_mark())


# ── keeping it up ─────────────────────────────────────────────────────────────────────────────────


@dataclass
class Stack:
    """The services under circus, and what is told about them."""

    wanted: list[Service]
    story: Story
    lock: FileLock
    begun: float = field(default_factory=time.monotonic)
    pids: dict[str, int] = field(default_factory=dict)
    since: dict[str, datetime] = field(default_factory=dict)
    answering: set[str] = field(default_factory=set)
    probed: dict[str, float] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)
    """When a service that answers was asked whether it still does, and when it did."""
    dead: set[str] = field(default_factory=set)
    deaths: dict[str, deque[float]] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    told_at: float = 0
    """Seconds after its begin."""
    code: int = 0
    ready: bool = False
    listening: dict[str, socket.socket] = field(default_factory=dict)

    async def run(self) -> int:
        """Start what may be started, look after it, end it. Gives the exit code."""
        from circus.arbiter import Arbiter
        from tornado.ioloop import IOLoop

        logging.getLogger("circus").setLevel(logging.ERROR)
        os.environ.update(environment())
        os.environ[process_tags.STACK] = _mark()
        # inproc: nobody outside this process speaks to circus
        self.arbiter = Arbiter(
            [], "inproc://evergreen-control", "inproc://evergreen-events", loop=IOLoop.current(), check_delay=0.5
        )
        await self.arbiter.start()
        self._on_signals()
        following = asyncio.create_task(self._follow())
        try:
            await self._look_after()
        finally:
            await self._end()
            following.cancel()
        return self.code

    async def _look_after(self) -> None:
        while not self.ended.is_set():
            with suppress(OSError):
                self._keep_note()
            if self.arbiter._stopping:
                self.fail("circus has stopped: a service could not be started at all")
            await asyncio.gather(*(self._attend(service) for service in self.wanted))
            if not self.ready and len(self.answering) == len(self.wanted):
                self._tell_ready()
            if not self.ready:
                self._wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), 0.2 if len(self.answering) < len(self.wanted) else 1)

    def _wait(self) -> None:
        """Say now and then for which services; give up in the end."""
        waited = time.monotonic() - self.begun
        late = ", ".join(one.name for one in self.wanted if one.name not in self.answering)
        if waited > READY_SECONDS:
            self.fail(f"after {READY_SECONDS} s there was no answer from {late}. Logs: {paths.logs()}")
        elif waited > self.told_at + TELL_SECONDS:
            self.told_at = waited
            self.story.tell(
                "stack", f"waits for {late}, for {waited:.0f} s: this machine is busy, or see {_log().parent}"
            )

    def _keep_note(self) -> None:
        """Somebody may have removed var: the next `make up`, `down` or `status` must find this one all the same."""
        self._write_note()
        if os.fstat(1).st_nlink == 0:  # a platform behind tells into var/log, which somebody removed
            with _log().open("ab") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
        if not self.lock.is_locked or not Path(self.lock.lock_file).exists():
            self.lock.release()
            self.lock = take_lock() or self.lock

    async def _follow(self) -> None:
        """Tell what the services say for people, and the flow runs, whose log outlives the worker that started them."""
        told = [self.story.follow(name) for name in (*(one.name for one in self.wanted if one.story), "flows")]
        while True:
            for tell in told:
                tell()
            self._keep_logs()
            await asyncio.sleep(0.2)

    def _keep_logs(self) -> None:
        """Right after what they say was told, so that next to nothing is lost of it. A full disk ends nobody."""
        with suppress(OSError):
            log_rotation.turn_over_all(paths.logs())

    async def _attend(self, service: Service) -> None:
        """Start a service when those it needs answer; say when it answers."""
        if service.name not in self.arbiter._watchers_names:
            if set(service.after) <= self.answering:
                await self._start(service)
        elif service.name in self.answering:
            await self._kill_if_it_hangs(service)
        elif await asyncio.to_thread(service.answers, self.since[service.name]):
            self.answering.add(service.name)
            self.heard[service.name] = self.probed[service.name] = time.monotonic()
            self.arbiter.get_watcher(service.name).args = self._shell(service)
            self.story.tell(service.name, "answers" + (f"   {service.says}" if not self.ready else " again"))

    async def _kill_if_it_hangs(self, service: Service) -> None:
        """Nobody else would notice. A service that hears of others is not to blame while these do not answer."""
        name, now = service.name, time.monotonic()
        if now - self.probed[name] < PROBE_SECONDS:
            return
        self.probed[name] = now
        since = datetime.now(UTC) - timedelta(seconds=HEARTBEAT_SECONDS)
        waits = any(self.heard.get(other, 0) < self.probed.get(other, 0) for other in service.after)
        if waits or await asyncio.to_thread(service.answers, since):
            self.heard[name] = now
        elif now - self.heard[name] > service.hang_seconds:
            self.story.tell(name, f"has not answered for {now - self.heard[name]:.0f} s: killed", bad=True)
            self.heard[name] = now
            with suppress(ProcessLookupError):
                os.kill(self.pids[name], signal.SIGKILL)

    async def _start(self, service: Service) -> None:
        held = {}
        if service.holds:
            self.listening[service.name] = socket.create_server(service.holds, backlog=2048)
            self.listening[service.name].set_inheritable(True)
            held[LISTENING] = str(self.listening[service.name].fileno())
        watcher = self.arbiter.add_watcher(
            service.name,
            # into a file rather than a pipe: circus loses count of its pipes when two services die at once, and a
            # service outlives a stack that is killed only as long as somebody reads what it says
            "/bin/sh",
            args=self._shell(service),
            working_dir=str(settings.ROOT),
            copy_env=True,
            env={process_tags.SERVICE: service.name, **held},
            use_sockets=bool(held),  # it inherits what is inheritable, and no other service does
            # asked to end, a worker and a flow run would say that it crashed
            stop_signal=signal.SIGKILL if service.starts_flows else signal.SIGTERM,
            graceful_timeout=service.shutdown_seconds,
            hooks={
                "before_spawn": (lambda **_: self._before_spawn(service), False),
                "after_spawn": (lambda pid, **_: self._spawned(service, pid), False),
                "after_reap": (lambda exit_code, **_: self._died(service, exit_code), True),
            },
        )
        await watcher._start()

    def _shell(self, service: Service, rest: int = 0) -> list[str]:
        log = shlex.quote(str(self.story.log(service.name)))
        return ["-c", f"{f'sleep {rest}; ' if rest else ''}exec {shlex.join(service.command)} >>{log} 2>&1"]

    def _before_spawn(self, service: Service) -> bool:
        self.story.log(service.name)  # somebody may have removed the folder
        if service.name in self.pids:
            if service.name not in self.dead:  # circus may find a process gone without reaping it
                self._died(service, None)
            if not service.starts_flows:
                process_tags.kill_service(_mark(), service.name)
        return True

    def _spawned(self, service: Service, pid: int) -> bool:
        self.dead.discard(service.name)
        self.pids[service.name], self.since[service.name] = pid, datetime.now(UTC)
        if not service.serves:
            priority.lower(pid)
            if not service.starts_flows:
                priority.spare_one_cpu(pid)
        self.story.tell(service.name, f"started (process {pid})")
        self._write_note()
        return True

    def _died(self, service: Service, exit_code: int | None) -> None:
        if self.ended.is_set() or service.name in self.dead:
            return
        self.answering.discard(service.name)
        self.dead.add(service.name)
        if exit_code is None:
            how = "gone"
        else:
            how = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with code {exit_code}"
        deaths = self.deaths.setdefault(service.name, deque(maxlen=DEATHS))
        deaths.append(time.monotonic())
        if len(deaths) == DEATHS and deaths[-1] - deaths[0] < WITHIN:
            last = "".join(f"\n    {line}" for line in self.story.last(service.name))
            often = f"{service.name} was {how}, {DEATHS} times within {WITHIN:.0f} s"
            if self.ready:
                self.arbiter.get_watcher(service.name).args = self._shell(service, REST_SECONDS)
                self.story.tell(service.name, f"{often}: the next try is in {REST_SECONDS} s.{last}", bad=True)
            else:
                self.fail(f"{often}: given up.{last}")
        else:
            self.story.tell(service.name, f"{how}: restarted", bad=True)

    def fail(self, why: str) -> None:
        """End everything, as a failure."""
        self.story.tell("stack", why, bad=True)
        self.code = 1
        self.ended.set()

    def _tell_ready(self) -> None:
        from deployments.orchestration.automations import notify_url

        self.ready = True
        self._write_note()
        self.story.tell("stack", f"ready after {time.monotonic() - self.begun:.0f} s. Ctrl-C ends everything")
        if notify_url() is None:
            self.story.tell("stack", "nobody is told about failures: EVERGREEN_NOTIFY_URL is not set")

    def _write_note(self) -> None:
        with suppress(OSError):  # where the disk is full, the next look writes it
            _write_note(self.ready, self.pids)

    def _on_signals(self) -> None:
        """What circus installs ends all services at once; here the worker goes before the server it reports to."""
        loop = asyncio.get_running_loop()

        def stop(number: int, _frame: object) -> None:
            self.story.tell("stack", f"{signal.Signals(number).name}: ending everything")
            loop.call_soon_threadsafe(self.ended.set)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stop)

    async def _end(self) -> None:
        self.arbiter.ctrl.caller.stop()  # else it takes a stopped service for one that failed to start
        for service in reversed(self.wanted):
            watcher = self.arbiter._watchers_names.get(service.name)
            if watcher is not None:
                await watcher._stop(close_output_streams=True)
            if service.name == "worker":
                await asyncio.to_thread(self._interrupt)
        await self.arbiter.stop()
        await asyncio.to_thread(process_tags.end_all, _mark(), keep={os.getpid()})
        self.story.tell("stack", "down")

    def _interrupt(self) -> None:
        """End the flow runs at once, each of which may be killed anywhere, and say so before the server ends."""
        for starter in ("worker", "nursery"):
            process_tags.kill_service(_mark(), starter, keep=set(self.pids.values()))
        if "prefect" not in self.answering:
            return
        try:
            if names := crash_recovery.interrupt(patience=2):
                self.story.tell("stack", f"interrupted, to go on with the next make up: {', '.join(names)}")
        except EvergreenError as error:
            self.story.tell("stack", f"what was running will be taken for crashed: {error}", bad=True)
