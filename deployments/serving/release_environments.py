"""Release environments: a release runs in this interpreter if that has the packages it pins, else in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from tasks.ground import files, locked_packages, paths
from tasks.ground.errors import EnvironmentDiffers


def interpreter(release: Path) -> Path | None:
    """The interpreter of the release's own environment; None: the packages of this one are those that it needs.

    Raises:
        EnvironmentDiffers: they are not, and its own has not been made.
        FileNotFoundError: there is no such release.
    """
    try:
        _refuse_difference((release / "requirements.txt").read_text(encoding="utf-8"))
    except EnvironmentDiffers as error:
        python = folder(release) / "bin" / "python"
        if python.exists():
            return python
        differences = "\n".join(str(error).splitlines()[:-1])
        model, candidate = release.parts[-3:-1]
        raise EnvironmentDiffers(
            f"{candidate} needs other packages than are installed:\n{differences}\n"
            f"Make its own environment: evergreen release-environment {model} {candidate}"
        ) from None
    return None


@cache
def _refuse_difference(requirements: str) -> None:
    """Once for each text that agrees with what is installed: it takes 30 ms, in which the router is slower."""
    pins = locked_packages.read_lock(requirements)
    locked_packages.refuse_difference(
        {name for name, lines in pins.items() if any(pin.is_for_here() for pin in lines)}, pins
    )


def folder(release: Path) -> Path:
    """Where the release's own environment is, or would be: one for all releases that need the same packages."""
    return paths.release_environments() / files.sha256(release / "requirements.txt")[:16]


def make(release: Path) -> Path:
    """Make the release's own environment, from the package index that uv is configured for; gives its interpreter."""
    environment = folder(release)
    with files.lock(f"environment-{environment.name}"):
        if not (environment / "bin" / "python").exists():
            with files.replacing(environment) as beside:
                subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(beside)], check=True)
                command = ["uv", "pip", "sync", "--quiet", "--system-certs", str(release / "requirements.txt")]
                variables = {**os.environ, "VIRTUAL_ENV": str(beside), "UV_COMPILE_BYTECODE": "1"}
                subprocess.run(command, check=True, env=variables)
    return environment / "bin" / "python"
