"""`make up`: the platform on this machine, in the foreground until Ctrl-C. `make down`, `make status` for one behind.

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
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks import settings

settings.apply()

from deployments import logs, marked  # noqa: E402 - settings first: what is imported here reads its environment once
from deployments.services import Service, environment, services  # noqa: E402
from deployments.story import Story  # noqa: E402
from tasks import files, params, priority  # noqa: E402
from tasks.errors import EvergreenError, Mistake, WorldError  # noqa: E402

READY_SECONDS = 180
"""How long the services may take until all answer, on a machine that does other things too."""

LISTENING = "EVERGREEN_LISTENING_FD"
"""The variable that tells a service the socket on which the stack listens for it."""

DEATHS, WITHIN = 5, 60.0
"""A service that dies this often within so many seconds is not restarted any more."""


def main(arguments: list[str]) -> int:
    """`up`, `up --detach`, `down` or `status`. Returns the exit code."""
    commands = {
        ("up",): up,
        ("up", "--detach"): detach,
        ("down",): down,
        ("status",): status,
    }
    command = commands.get(tuple(arguments))
    if command is None:
        print("usage: python -m deployments.stack up [--detach] | down | status", file=sys.stderr)
        return 2
    try:
        return command()
    except EvergreenError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


# ── what a person asks ────────────────────────────────────────────────────────────────────────────


def up() -> int:
    """Start the platform and keep it running until it is told to end."""
    from filelock import FileLock, Timeout

    params.load()  # a mistake in it is told before anything is started
    _run().mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(_run() / "stack.lock", blocking=False):
            story = Story()
            _end_leftovers(story)
            wanted = services()
            _refuse_taken_ports(wanted)
            return asyncio.run(Stack(wanted, story).run())
    except Timeout:
        raise Mistake(
            f"the platform of {settings.ROOT} is up already. `make status` shows it, `make down` ends it"
        ) from None


def detach() -> int:
    """Start the platform behind, and wait until it is ready."""
    if pid := _holder():
        raise Mistake(f"the platform of {settings.ROOT} is up already (process {pid}). `make down` ends it")
    log = settings.VAR / "log" / "stack.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    with log.open("ab") as out:  # appended to, so that it can be turned over
        command = [sys.executable, "-m", "deployments.stack", "up"]
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
        left = marked.end(_mark())
        print(f"the platform of {settings.ROOT} is not up" + (f"; {left} processes it left were ended" if left else ""))
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while _holder() == pid:
        if time.monotonic() > deadline:
            raise WorldError(f"process {pid} does not end. See {settings.VAR / 'log'}")
        time.sleep(0.1)
    print("the platform is down")
    return 0


def status() -> int:
    """Show each service; the exit code says whether all is well."""
    from deployments.report import report

    pid = _holder()
    return report(pid, (_note() or {}).get("services", {}), marked.alive(_mark()))


def _refuse_taken_ports(wanted: list[Service]) -> None:
    for service in wanted:
        for setting, port in service.ports.items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    who = marked.listener(port)
                    raise Mistake(
                        f"{service.name} cannot have port {port}: {who or error.strerror}. "
                        f"End that, or take another port: {setting}={port + 1000} make up"
                    ) from None


def _end_leftovers(story: Story) -> None:
    """A stack that was killed has left its services behind."""
    if left := marked.end(_mark()):
        story.tell("stack", f"{left} processes of a platform that was killed were still there, and were ended")


def _mark() -> str:
    return str(settings.ROOT)


def _run() -> Path:
    return settings.VAR / "run"


def _note() -> dict[str, Any] | None:
    try:
        said: dict[str, Any] = files.read_json(_run() / "stack.json")
    except (FileNotFoundError, ValueError):
        return None
    return said


def _holder() -> int | None:
    """The process that keeps the platform of this checkout up."""
    from filelock import FileLock, Timeout

    if not (_run() / "stack.lock").exists():
        return None
    try:
        with FileLock(_run() / "stack.lock", blocking=False):
            return None
    except Timeout:
        pid = (_note() or {}).get("pid")
        return int(pid) if pid else None


# ── keeping it up ─────────────────────────────────────────────────────────────────────────────────


@dataclass
class Stack:
    """The services under circus, and what is told about them."""

    wanted: list[Service]
    story: Story
    begun: float = field(default_factory=time.monotonic)
    pids: dict[str, int] = field(default_factory=dict)
    since: dict[str, datetime] = field(default_factory=dict)
    answering: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    deaths: dict[str, deque[float]] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    code: int = 0
    ready: bool = False
    listening: dict[str, socket.socket] = field(default_factory=dict)

    async def run(self) -> int:
        """Start what may be started, look after it, end it. Gives the exit code."""
        from circus.arbiter import Arbiter
        from tornado.ioloop import IOLoop

        logging.getLogger("circus").setLevel(logging.ERROR)
        os.environ.update(environment())
        os.environ[marked.NAME] = _mark()
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
            if self.arbiter._stopping:
                self.fail("circus has stopped: a service could not be started at all")
            await asyncio.gather(*(self._attend(service) for service in self.wanted))
            if not self.ready and len(self.answering) == len(self.wanted):
                self._tell_ready()
            if not self.ready and time.monotonic() - self.begun > READY_SECONDS:
                late = ", ".join(one.name for one in self.wanted if one.name not in self.answering)
                self.fail(f"after {READY_SECONDS} s there was no answer from {late}. Logs: {settings.VAR / 'log'}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), 0.2 if len(self.answering) < len(self.wanted) else 1)

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
            logs.turn_over_all(settings.VAR / "log")

    async def _attend(self, service: Service) -> None:
        """Start a service when those it needs answer; say when it answers."""
        if service.name not in self.arbiter._watchers_names:
            if set(service.after) <= self.answering:
                await self._start(service)
        elif service.name not in self.answering and await asyncio.to_thread(service.answers, self.since[service.name]):
            self.answering.add(service.name)
            self.story.tell(service.name, "answers" + (f"   {service.says}" if not self.ready else " again"))

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
            args=["-c", f"exec {shlex.join(service.command)} >>{shlex.quote(str(self.story.log(service.name)))} 2>&1"],
            working_dir=str(settings.ROOT),
            copy_env=True,
            env={marked.SERVICE: service.name, **held},
            use_sockets=bool(held),  # it inherits what is inheritable, and no other service does
            graceful_timeout=service.shutdown_seconds,
            hooks={
                "before_spawn": (lambda **_: self._before_spawn(service), False),
                "after_spawn": (lambda pid, **_: self._spawned(service, pid), False),
                "after_reap": (lambda exit_code, **_: self._died(service, exit_code), True),
            },
        )
        await watcher._start()

    def _before_spawn(self, service: Service) -> bool:
        if service.name in self.pids:
            if service.name not in self.dead:  # circus may find a process gone without reaping it
                self._died(service, None)
            if not service.starts_flows:
                marked.kill_service(_mark(), service.name)
        return True

    def _spawned(self, service: Service, pid: int) -> bool:
        self.dead.discard(service.name)
        self.pids[service.name], self.since[service.name] = pid, datetime.now(UTC)
        if not service.serves:
            priority.give_way(pid)
            if not service.starts_flows:
                priority.leave_a_processor(pid)
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
            self.fail(f"{service.name} was {how}, {DEATHS} times within {WITHIN:.0f} s: given up.{last}")
        else:
            self.story.tell(service.name, f"{how}: restarted", bad=True)

    def fail(self, why: str) -> None:
        """End everything, as a failure."""
        self.story.tell("stack", why, bad=True)
        self.code = 1
        self.ended.set()

    def _tell_ready(self) -> None:
        from deployments.automations import notify_url

        self.ready = True
        self._write_note()
        self.story.tell("stack", f"ready after {time.monotonic() - self.begun:.0f} s. Ctrl-C ends everything")
        if notify_url() is None:
            self.story.tell("stack", "nobody is told about failures: EVERGREEN_NOTIFY_URL is not set")

    def _write_note(self) -> None:
        files.write_json(_run() / "stack.json", {"pid": os.getpid(), "ready": self.ready, "services": self.pids})

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
                await asyncio.to_thread(marked.end, _mark(), keep=set(self.pids.values()) | {os.getpid()})
        await self.arbiter.stop()
        await asyncio.to_thread(marked.end, _mark(), keep={os.getpid()})
        self.story.tell("stack", "down")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
