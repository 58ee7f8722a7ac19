"""Which interpreter a release runs in: this one where it has the very packages that the release names, else its own."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from tasks.ground import files, locked_packages, paths
from tasks.ground.errors import EnvironmentDiffers


def interpreter(release: Path) -> Path | None:
    """The interpreter of the release's environment; None: this one's packages are the ones it needs.

    Raises:
        EnvironmentDiffers: they are not, and its own has not been made.
        FileNotFoundError: there is no such release.
    """
    try:
        _refuse_difference((release / "requirements.txt").read_text(encoding="utf-8"))
    except EnvironmentDiffers as error:
        own = folder(release) / "bin" / "python"
        if own.exists():
            return own
        raise EnvironmentDiffers(
            f"{release.parent.name} needs other packages than are installed:\n"
            f"{chr(10).join(str(error).splitlines()[:-1])}\n"
            f"Make its own environment: python -m deployments.serving.release_environments {release}"
        ) from None
    return None


@cache
def _refuse_difference(requirements: str) -> None:
    """Once for each text that is found to be what is installed: that takes 30 ms, in which the router is slower."""
    pins = locked_packages.read_lock(requirements)
    locked_packages.refuse_difference(
        {name for name, lines in pins.items() if any(pin.is_for_here() for pin in lines)}, pins
    )


def folder(release: Path) -> Path:
    """Where the release's own environment is, or would be: one for all releases that need the same packages."""
    return paths.release_environments() / files.sha256(release / "requirements.txt")[:16]


def make(release: Path) -> Path:
    """Make the release's own environment, from the package index that uv is configured for; gives its interpreter."""
    import subprocess
    import sys

    own = folder(release)
    with files.lock(f"environment-{own.name}"):
        if not (own / "bin" / "python").exists():
            with files.replacing(own) as beside:
                subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(beside)], check=True)
                line = ["uv", "pip", "sync", "--quiet", "--system-certs", str(release / "requirements.txt")]
                told = {**os.environ, "VIRTUAL_ENV": str(beside), "UV_COMPILE_BYTECODE": "1"}
                subprocess.run(line, check=True, env=told)
    return own / "bin" / "python"


if __name__ == "__main__":
    import sys

    print(make(Path(sys.argv[1])))
