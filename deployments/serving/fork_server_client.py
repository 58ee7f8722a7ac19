"""Client of the fork server (fork_server.py): starts it when it is first needed, and again when it has died or hung."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tasks.ground import priority

SCRIPT = Path(__file__).with_name("fork_server.py")

UP_S, FORK_S = 30.0, 3.0
"""Seconds that the server may take to come up, and after that to fork. Then a replica gets an interpreter of its own,
which is later by what it imports, and does not depend on the server."""

DETACHED: dict[str, Any] = {
    "stdin": asyncio.subprocess.DEVNULL,
    "env": {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    "start_new_session": True,
}


class ForkServerGone(Exception):
    """It ended or hung while it forked. Whether there is a process is not known, and it is not the release's fault."""


class ForkServer:
    """The server's process, and the socket to it."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._is_up = False
        self._restart: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Let it import what it needs ahead of the first fork."""
        async with self._lock:
            if self._socket is not None:
                return
            ours, theirs = socket.socketpair()
            with theirs:
                command = [sys.executable, "-I", str(SCRIPT), "--fd", str(theirs.fileno())]
                self.process = await asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()], **DETACHED)
            ours.setblocking(False)
            self._socket = ours

    async def spawn(
        self, script: Path, arguments: list[str], theirs: socket.socket, output: IO[bytes], nice: int
    ) -> int:
        """Fork a replica; gives its process number, which comes over a socket of this fork's own.

        Raises:
            ForkServerGone: the server does not come up, has ended, or hangs. It is started anew for the next fork.
        """
        await self.start()
        request = json.dumps({"script": str(script), "arguments": arguments, "nice": nice}).encode()
        async with self._lock:  # one at a time: however many replicas start at once, each has the time limit to itself
            reply, to_reply = socket.socketpair()
            reply.setblocking(False)
            try:
                with to_reply:
                    if self._socket is None:
                        raise ChildProcessError("it has just ended")
                    descriptors = [theirs.fileno(), output.fileno(), to_reply.fileno()]
                    socket.send_fds(self._socket, [request], descriptors)
                async with asyncio.timeout(FORK_S if self._is_up else UP_S):
                    pid = await asyncio.get_running_loop().sock_recv(reply, 64)
                if not pid:
                    raise ChildProcessError("it has ended")
            except OSError as error:  # it may have forked: the process that holds `theirs` must stay the only one
                self.kill()
                self._restart = asyncio.create_task(self.start())
                hangs = "hangs" if isinstance(error, TimeoutError) else f"is gone ({error})"
                raise ForkServerGone(f"the fork server {hangs}") from None
            finally:
                reply.close()
            self._is_up = True
        return int(pid)

    def kill(self) -> None:
        """End it; the next fork starts it anew."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)  # kill() may take the exit code from asyncio's watcher
        if self._socket is not None:
            self._socket.close()
        self._socket, self._is_up = None, False


async def spawn_interpreter(
    python: Path, script: Path, arguments: list[str], theirs: socket.socket, output: IO[bytes], nice: int
) -> int:
    """Start a replica without the fork server, in an interpreter of its own; gives its process number."""
    command = [str(python), "-I", str(script), "--fd", str(theirs.fileno()), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=output, stderr=output, pass_fds=[theirs.fileno()], **DETACHED
    )
    await asyncio.to_thread(priority.set_session_nice, process.pid, nice)
    return process.pid
