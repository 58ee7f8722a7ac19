"""Logs stay within limits while they are written to."""

from __future__ import annotations

import errno
import io
import logging
import os
from pathlib import Path

import pytest

from deployments.local.console import Console
from tasks.ground import log_rotation, settings


def test_a_log_turns_over_under_its_writers_hands(tmp_path: Path) -> None:
    """Its end is kept beside it, once; who appends goes on at the beginning, and nothing of it is lost."""
    path = tmp_path / "mlflow.log"
    with path.open("ab", buffering=0) as writer:
        for number in range(25):
            writer.write(b"%09d\n" % number)
            log_rotation.rotate_all(tmp_path, largest=100)
    kept = (tmp_path / "mlflow.log.1").read_bytes()
    assert len(kept) == 100
    assert b"\0" not in path.read_bytes()
    assert path.read_bytes() == b"".join(b"%09d\n" % number for number in (22, 23, 24))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.log", "mlflow.log.1"]


def test_of_a_log_that_is_far_too_large_the_end_is_kept(tmp_path: Path) -> None:
    """It may have grown before anybody looked."""
    path = tmp_path / "prefect.log"
    path.write_bytes(b"old\n" * 1000 + b"new\n" * 5)
    for _ in range(2):
        log_rotation.rotate_all(tmp_path, largest=20)
        assert (tmp_path / "prefect.log.1").read_bytes() == b"new\n" * 5
        assert path.read_bytes() == b""


def test_what_is_told_of_a_log_goes_on_after_it_turned_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The console misses no line."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    out = io.StringIO()
    console = Console(out)
    write_new = console.follow("router")
    with console.log("router").open("ab", buffering=0) as router:
        for number in range(30):
            router.write(b"line %d\n" % number)
            write_new()
            log_rotation.rotate_all(tmp_path / "log", largest=40)
    assert [line.rpartition("  ")[2] for line in out.getvalue().splitlines()] == [f"line {n}" for n in range(30)]


def test_a_terminal_that_is_gone_or_a_disk_that_is_full_ends_no_platform() -> None:
    """What cannot be told is not; what can be again, is."""

    class Terminal(io.StringIO):
        gone = True

        def flush(self) -> None:
            if self.gone:
                raise OSError(errno.EIO, "Input/output error")

    terminal = Terminal()
    console = Console(terminal)
    console.event("stack", "SIGHUP: ending everything")
    terminal.gone = False
    console.event("stack", "down")
    assert terminal.getvalue().endswith("down\n")


def test_the_logs_of_replicas_that_are_gone_go_the_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of releases that are kept running stay, however old; each is bounded."""
    monkeypatch.setattr(log_rotation, "REPLICAS", 3)
    monkeypatch.setattr(log_rotation, "LARGEST_OF_REPLICA", 10)
    for number, name in enumerate(["m-live.log", "m-live.2.log", *(f"m-{n}.log" for n in range(6))]):
        (tmp_path / name).write_bytes(b"x" * 5)
        os.utime(tmp_path / name, (number, number))
    (tmp_path / "m-live.log").write_bytes(b"x" * 50)
    log_rotation.sweep(tmp_path, {"m-live"})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "m-3.log",
        "m-4.log",
        "m-5.log",
        "m-live.2.log",
        "m-live.log",
        "m-live.log.1",
    ]
    assert (tmp_path / "m-live.log").stat().st_size == 0
    log_rotation.sweep(tmp_path / "nothing", set())


def test_what_is_said_over_and_over_is_written_seldom_and_counted() -> None:
    """Each message for itself; another one is written at once."""
    now = 0.0
    seldom = log_rotation.RepeatFilter(seconds=60, clock=lambda: now)

    def passes(said: str) -> str | None:
        record = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, said, (), None)
        return record.getMessage() if seldom.filter(record) else None

    assert passes("Invalid HTTP request received.") == "Invalid HTTP request received."
    assert [passes("Invalid HTTP request received.") for _ in range(500)] == [None] * 500
    assert passes("Unsupported upgrade request.") == "Unsupported upgrade request."
    now = 61.0
    assert passes("Invalid HTTP request received.") == (
        "Invalid HTTP request received. (500 more of these since the last line)"
    )
    for number in range(1000):
        passes(f"each another {number}")
        now += 1
    assert len(seldom._passed) < 100
