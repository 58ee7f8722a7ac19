"""A replica: one process that answers for one release. The router starts it and speaks to it over a socket.

Whatever waits on the socket is scored as one batch, without waiting for more: alone, a request is answered at once;
under load, the batches grow by themselves. It is copied into each release, with all that it imports.

A frame is a head and a payload. To a replica: length, kind, number, time of arrival, request's name and key (each with
its length). From it: length, status, number. The first frame from it says that it is ready, and who it is.
"""

from __future__ import annotations

import os

# before NumPy is imported: OpenMP's threads spin while they wait, and one per process answers sooner
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import errno
import fcntl
import gc
import json
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""The release: this file is tasks/runtime/replica.py in it."""

PROTOCOL = 1
"""Said in the first frame: a router of tomorrow must know how a release of today speaks."""

REQUEST = struct.Struct("!IBQdBB")
REPLY = struct.Struct("!IHQ")

PREDICT, TRY, EXPLAIN = 1, 2, 3
"""Kinds of a request. TRY predicts too, but is no production traffic: it is neither logged nor counted."""

STATISTICS = 0
"""The status of a frame that answers nothing, but says what was predicted so far, and how the log fares."""

LARGEST_BATCH = 1_000_000
"""Bytes of bodies that are scored at once: what waits behind a large request shall not wait for others as well."""

LARGEST_LOG = 64_000_000
"""Bytes after which a log file is closed and the next one begun."""


@dataclass(frozen=True)
class Request:
    """One frame that was read."""

    kind: int
    number: int
    arrived: float
    name: str
    key: str | None
    body: bytes


def main() -> int:
    """Load the release beside this file, say so, and answer until the router is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the socket to the router")
    parser.add_argument("--version", help="the release's number in the registry")
    parser.add_argument("--log", type=Path, required=True, help="folder of the prediction log")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the router, which lets its replicas finish
    sys.path.insert(0, str(ROOT))
    from tasks.runtime import predictor

    # closed by the end of the process: why it failed is written down before the router hears that it is gone
    router = socket.socket(fileno=options.fd)
    begin = time.monotonic()
    release = predictor.Release(ROOT, options.version)
    about = release.about
    said = {"protocol": PROTOCOL, "seconds": time.monotonic() - begin, **about.described()}
    said |= {"schemas": about.schemas(), "edges": release.edges}
    with suppress(ConnectionError):  # the router is gone
        _send(router, [(200, 0, json.dumps(said).encode())])
        gc.collect()
        gc.freeze()  # what was loaded stays: it need not be looked through again and again
        _answer(router, release, Log(options.log, about.name, about.candidate, options.version))
    return 0


def _answer(router: socket.socket, release: Any, log: Log) -> None:
    for batch in _batches(router):
        predictions = [one for one in batch if one.kind == PREDICT]
        tried = [one for one in batch if one.kind == TRY]
        answers = dict(zip(_numbers(predictions), release.predict([one.body for one in predictions]), strict=True))
        log.write([(one, answers[one.number]) for one in predictions if answers[one.number].logged])
        answers |= zip(_numbers(tried), release.predict([one.body for one in tried], counted=False), strict=True)
        answers |= {one.number: release.explain(one.body) for one in batch if one.kind == EXPLAIN}
        frames = [(one.status, number, one.body) for number, one in answers.items()]
        if predictions:
            said = {"counts": release.counts, "unseen": release.unseen, "log": log.trouble, "lost": log.lost}
            frames.append((STATISTICS, 0, json.dumps(said).encode()))
        _send(router, frames)


def _numbers(requests: list[Request]) -> list[int]:
    return [one.number for one in requests]


def _batches(router: socket.socket) -> Iterator[list[Request]]:
    """What has come, each time something has; until the router has closed its end."""
    waiting = bytearray()
    while True:
        came = router.recv(LARGEST_BATCH)
        if not came:
            return
        waiting += came
        batch, at = [], 0
        while (one := _read(waiting, at)) is not None:
            request, at = one
            batch.append(request)
        if at:
            del waiting[:at]
        if batch:
            yield batch


def _read(waiting: bytearray, at: int) -> tuple[Request, int] | None:
    """The frame that begins at a place, and where the next one does; None while it is not all there."""
    if len(waiting) - at < REQUEST.size:
        return None
    length, kind, number, arrived, named, keyed = REQUEST.unpack_from(waiting, at)
    start = at + REQUEST.size
    if len(waiting) - start < length:
        return None
    held = bytes(waiting[start : start + length])
    name, key, body = held[:named].decode(), held[named : named + keyed].decode(), held[named + keyed :]
    return Request(kind, number, arrived, name, key or None, body), start + length


def _send(router: socket.socket, frames: list[tuple[int, int, bytes]]) -> None:
    router.sendall(b"".join(REPLY.pack(len(body), status, number) + body for status, number, body in frames))


# ── the prediction log ────────────────────────────────────────────────────────────────────────────


class Log:
    """Writes what is answered, before it is answered: `<folder>/<day>/<candidate>.….jsonl`, a line a request.

    A batch is one write, in which a killed process leaves no half line. A disk that is full costs the log and not the
    answers: `trouble` says it, `lost` counts, and each further batch is tried again.
    """

    def __init__(self, folder: Path, model: str, candidate: str, version: str | None) -> None:
        self.folder, self.candidate = folder, candidate
        self.told = f'"model":{json.dumps(model)},"version":{json.dumps(version)},"release":{json.dumps(candidate)}'
        self.day, self.number, self.size, self.file = "", 0, 0, -1
        self.path = folder
        self.trouble: str | None = None
        self.lost = 0

    def write(self, answered: list[tuple[Request, Any]]) -> None:
        """Keep requests with their answers."""
        if not answered:
            return
        now = time.time()
        lines = b"".join(self._line(request, answer, now) for request, answer in answered)
        try:
            file = self._open(datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d"))
            if os.write(file, lines) < len(lines):  # the disk is full: half a line must not meet the next one
                os.ftruncate(file, self.size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301
            self.size += len(lines)
            self.trouble = None
        except OSError as error:
            self.lost += len(answered)
            if self.trouble is None:
                with suppress(OSError):  # these words may go to the same disk
                    print(f"the prediction log cannot be written: {error}", file=sys.stderr, flush=True)
            self.trouble = str(error)
            self._close()

    def _line(self, request: Request, answer: Any, now: float) -> bytes:
        arrived = answer.time.astimezone(UTC) if answer.time else datetime.fromtimestamp(request.arrived, UTC)
        at = arrived.isoformat(timespec="microseconds").replace("+00:00", "Z")
        took = (now - request.arrived) * 1000
        head = f'{{"request":{json.dumps(request.name)},"time":"{at}","ms":{took:.3f},{self.told},'
        line: bytes = f'{head}"key":{json.dumps(request.key)},'.encode() + answer.logged + b"}\n"
        return line

    def _open(self, day: str) -> int:
        is_there = self.file >= 0 and os.fstat(self.file).st_nlink > 0  # nobody has removed it
        if not is_there or day != self.day or self.size > LARGEST_LOG:
            self._close()
            self.day, self.number, self.size = day, self.number + 1, 0
            (self.folder / day).mkdir(parents=True, exist_ok=True)
            self.path = self.folder / day / f"{self.candidate}.{os.getpid()}.{time.time_ns()}.{self.number}.jsonl"
            self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(self.file, fcntl.LOCK_SH)  # until this process ends: nobody compacts what is still written to
        return self.file

    def _close(self) -> None:
        if self.file < 0:
            return
        with suppress(OSError):  # of a disk that fails: what could not be kept is counted already
            file, self.file = self.file, -1
            os.close(file)
            if not self.size:  # each batch that a full disk refuses would leave an empty file
                self.path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
