"""Replica: one process that answers for one release. The router starts it and speaks to it over a socket.

Whatever waits on the socket is scored as one batch, without waiting for more: alone, a request is answered at once;
under load, the batches grow by themselves. This file is copied into each release, with all that it imports.

A frame is a head and a payload. To a replica: length, kind, number, time of arrival, and the lengths of the request's
name and key, which come before its body. From it: length, status, number. Its first frame says that it is ready, and
which release it is.
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
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
"""The release: this file is tasks/runtime/replica.py in it."""

PROTOCOL = 1
"""In the first frame: a router of tomorrow must know how a release of today speaks."""

REQUEST = struct.Struct("!IBQdBB")
REPLY = struct.Struct("!IHQ")

PREDICT, TRY, EXPLAIN, INFER = 1, 2, 3, 4
"""Kinds of a request. TRY predicts too, but is no production traffic: it is neither logged nor counted. INFER predicts
by the Open Inference Protocol: its body and its answer are as open_inference.py packs them."""

PRODUCTION = (PREDICT, INFER)
"""Kinds that are logged and counted."""

STATISTICS = 0
"""The status of a frame that answers nothing: counts of predictions so far, and how the log fares."""

LARGEST_BATCH = 1_000_000
"""Bytes of bodies that are scored at once: what waits behind a large request shall not wait for others as well."""

LARGEST_LOG = 64_000_000
"""Bytes after which a log file is closed and the next one begun."""


class RequestFrame(NamedTuple):
    """One frame that was read."""

    kind: int
    number: int
    arrived: float
    name: str
    key: str | None
    body: bytes


def main() -> int:
    """Load the release around this file, say so, and answer until the router is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the socket to the router")
    parser.add_argument("--version", help="the release's number in the registry")
    parser.add_argument("--log", type=Path, required=True, help="folder of the prediction log")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the router, which lets its replicas finish
    sys.path.insert(0, str(ROOT))
    from tasks.runtime import open_inference, predictor

    # closed by the end of the process: why it failed is written down before the router hears that it is gone
    router = socket.socket(fileno=options.fd)
    begin = time.monotonic()
    loaded = predictor.Predictor(ROOT, options.version)
    translator, release = open_inference.Translator(loaded), loaded.release
    first = {"protocol": PROTOCOL, "seconds": time.monotonic() - begin, **release.described()}
    first |= {"schemas": release.schemas() | {"infer": translator.schemas()}, "edges": loaded.edges}
    first |= {"tensors": translator.metadata()}
    with suppress(ConnectionError):  # the router is gone
        _send(router, [(200, 0, json.dumps(first).encode())])
        gc.collect()
        gc.freeze()  # what was loaded stays: it need not be looked through again and again
        log = PredictionLog(options.log, release.name, release.candidate, options.version)
        _serve(router, loaded, translator.read, log)
    return 0


def _serve(router: socket.socket, predictor: Any, read: Callable[[bytes], Any], log: PredictionLog) -> None:
    """Answer what comes; `read` makes of the body of an INFER one that the predictor takes."""
    import orjson  # json takes 10 µs for the statistics of a batch

    for batch in _batches(router):
        inferences = {frame.number: read(frame.body) for frame in batch if frame.kind == INFER}
        predictions = [frame for frame in batch if frame.kind == PREDICT]
        if inferences:
            asked = [frame for frame in batch if frame.kind == INFER]
            predictions += [frame._replace(body=inferences[frame.number].rows) for frame in asked]
        tries = [frame for frame in batch if frame.kind == TRY]
        answers = _by_number(predictions, predictor.predict([frame.body for frame in predictions]))
        log.write([(frame, answers[frame.number]) for frame in predictions if answers[frame.number].logged])
        answers |= {number: one.respond(answers[number]) for number, one in inferences.items()}
        answers |= _by_number(tries, predictor.predict([frame.body for frame in tries], counted=False))
        answers |= {frame.number: predictor.explain(frame.body) for frame in batch if frame.kind == EXPLAIN}
        replies = [(answer.status, number, answer.body) for number, answer in answers.items()]
        if predictions:
            counts = {"counts": predictor.counts, "unseen": predictor.unseen, "log": log.trouble, "lost": log.lost}
            replies.append((STATISTICS, 0, orjson.dumps(counts)))
        _send(router, replies)


def _by_number(frames: list[RequestFrame], answers: list[Any]) -> dict[int, Any]:
    return {frame.number: answer for frame, answer in zip(frames, answers, strict=True)}


def _batches(router: socket.socket) -> Iterator[list[RequestFrame]]:
    """The frames that have come, each time some have; until the router has closed its end."""
    # one buffer for all: malloc would map one of this size anew each time, which is a fifth of a one-row request
    arriving, received = memoryview(bytearray(LARGEST_BATCH)), bytearray()
    while size := router.recv_into(arriving):
        received += arriving[:size]
        batch, at = [], 0
        while (parsed := _parse(received, at)) is not None:
            frame, at = parsed
            batch.append(frame)
        if batch:
            del received[:at]
            yield batch


def _parse(received: bytearray, at: int) -> tuple[RequestFrame, int] | None:
    """The frame that begins at a place, and where the next one does; None while it is not complete."""
    if len(received) - at < REQUEST.size:
        return None
    length, kind, number, arrived, name_length, key_length = REQUEST.unpack_from(received, at)
    start = at + REQUEST.size
    if len(received) - start < length:
        return None
    payload = bytes(received[start : start + length])
    key_end = name_length + key_length
    name, key = payload[:name_length].decode(), payload[name_length:key_end].decode()
    return RequestFrame(kind, number, arrived, name, key or None, payload[key_end:]), start + length


def _send(router: socket.socket, replies: list[tuple[int, int, bytes]]) -> None:
    router.sendall(b"".join(REPLY.pack(len(body), status, number) + body for status, number, body in replies))


class PredictionLog:
    """Write-ahead prediction log: `<folder>/<day>/<candidate>.….jsonl`, a line a request, before it is answered.

    A batch is one write, so that a killed process leaves no half line. A full disk costs lines and no answers:
    `trouble` says why, `lost` counts them, and each further batch is tried again.
    """

    def __init__(self, folder: Path, model: str, candidate: str, version: str | None) -> None:
        self.folder, self.candidate = folder, candidate
        self._origin = f'"model":{json.dumps(model)},"version":{json.dumps(version)},"release":{json.dumps(candidate)}'
        self._day, self._number, self._size, self._file = "", 0, 0, -1
        self._path = folder
        self.trouble: str | None = None
        self.lost = 0

    def write(self, answered: list[tuple[RequestFrame, Any]]) -> None:
        """Keep requests with their answers."""
        if not answered:
            return
        now = time.time()
        lines = b"".join(self._line(frame, answer, now) for frame, answer in answered)
        try:
            file = self._open(datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d"))
            if os.write(file, lines) < len(lines):  # the disk is full: half a line must not meet the next one
                os.ftruncate(file, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301
            self._size += len(lines)
            self.trouble = None
        except OSError as error:
            self.lost += len(answered)
            if self.trouble is None:
                with suppress(OSError):  # this may go to the same disk
                    print(f"the prediction log cannot be written: {error}", file=sys.stderr, flush=True)
            self.trouble = str(error)
            self._close()

    def _line(self, frame: RequestFrame, answer: Any, now: float) -> bytes:
        arrived = answer.time.astimezone(UTC) if answer.time else datetime.fromtimestamp(frame.arrived, UTC)
        at = arrived.isoformat(timespec="microseconds").replace("+00:00", "Z")
        ms = (now - frame.arrived) * 1000
        head = f'{{"request":{json.dumps(frame.name)},"time":"{at}","ms":{ms:.3f},{self._origin},'
        line: bytes = f'{head}"key":{json.dumps(frame.key)},'.encode() + answer.logged + b"}\n"
        return line

    def _open(self, day: str) -> int:
        exists = self._file >= 0 and os.fstat(self._file).st_nlink > 0  # it may have been removed
        if not exists or day != self._day or self._size > LARGEST_LOG:
            self._close()
            self._day, self._number, self._size = day, self._number + 1, 0
            (self.folder / day).mkdir(parents=True, exist_ok=True)
            self._path = self.folder / day / f"{self.candidate}.{os.getpid()}.{time.time_ns()}.{self._number}.jsonl"
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_SH)  # until this process ends: compaction leaves it alone
        return self._file

    def _close(self) -> None:
        if self._file < 0:
            return
        with suppress(OSError):  # of a disk that fails: what could not be kept is counted already
            file, self._file = self._file, -1
            os.close(file)
            if not self._size:  # each batch that a full disk refuses would leave an empty file
                self._path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
