"""Steps that take no time. Each call is noted in var/called; one that is told to waits, or fails."""

from __future__ import annotations

import os
import time

import yaml

from tasks.ground import files, settings
from tasks.ground.errors import DataMissing


def run(step: str, arguments: list[str]) -> None:
    """Call a step's function."""
    settings.VAR.mkdir(exist_ok=True)
    with (settings.VAR / "called").open("a") as called:
        called.write(f"{step} {arguments[0]}\n")
    {"count": count, "package": package}[step](*arguments)


def count(name: str) -> None:
    """The words of source.txt, so many times."""
    words = len((settings.ROOT / "source.txt").read_text().split())
    if not words:
        raise DataMissing("source.txt holds no words")
    with files.replacing(settings.BUILD / name / "count.txt") as beside:
        beside.write_text("half")
        wait("count")
        times = yaml.safe_load((settings.ROOT / "params.yaml").read_text())["models"][name]["times"]
        beside.write_text(f"{words * times}\n")


def package(name: str) -> None:
    """Everything that was made, in one folder."""
    build = settings.BUILD / name
    with files.replacing(build / "release") as folder:
        folder.mkdir()
        wait("package")
        for made in ("count.txt", "sorted.txt"):
            (folder / made).write_bytes((build / made).read_bytes())


def wait(step: str) -> None:
    """If TOY_WAITS names the step, say that it is at work, and wait until var/go is there."""
    if os.environ.get("TOY_WAITS") == step:
        (settings.VAR / "at-work").touch()
        while not (settings.VAR / "go").exists():
            time.sleep(0.02)
