"""Environment of a release alone: an interpreter that sees the packages which its requirements.txt names, and no other.

It is a virtual environment of links to the installed packages: nothing is fetched or copied, so it takes tenths of a
second, needs no network and no space, and is kept. What starts in it needs nothing else.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from tasks.ground import files, locked_packages


def interpreter(requirements: str) -> Path:
    """The interpreter for a text of pins, made when it is not there yet.

    Raises:
        EnvironmentDiffers: what they name is not installed.
    """
    folder = files.memos() / "alone" / files.digest([requirements, sys.prefix, sys.version])[:16]
    python = folder / "bin" / "python"
    if not python.exists():
        with files.lock(f"alone-{folder.name}"):
            if not python.exists():
                _make(folder, requirements)
    return python


def _make(folder: Path, requirements: str) -> None:
    pins = locked_packages.read_lock(requirements)
    names = {name for name, lines in pins.items() if any(pin.is_for_here() for pin in lines)}
    locked_packages.refuse_difference(names, pins)
    base = Path(sys.executable).resolve()
    with files.replacing(folder) as beside:
        packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(beside)}))
        (beside / "bin").mkdir(parents=True)
        (beside / "bin" / "python").symlink_to(base)
        (beside / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
        for name in sorted(names):
            for installed, place in _parts(metadata.distribution(name)):
                target = packages / place
                target.parent.mkdir(parents=True, exist_ok=True)
                byte_code = installed.parent / "__pycache__"  # the packages' own: none is written here, to be torn
                for link, to in ((target, installed), (target.parent / "__pycache__", byte_code)):
                    if to.exists() and not link.is_symlink():
                        link.symlink_to(to)


def _parts(distribution: metadata.Distribution) -> Iterator[tuple[Path, str]]:
    """What a distribution has installed: its packages as whole folders, and the files that are in none.

    A folder without `__init__.py` may be of several distributions (`opentelemetry`): only its own files are its.
    """
    record = distribution.read_text("RECORD") or ""
    paths = [match[1] for match in re.finditer(r'^"?(?!\.\./|/)([^",]+)', record, re.MULTILINE)]
    packages = {path.removesuffix("/__init__.py") for path in paths if path.endswith("/__init__.py")}
    parts = {_outermost(path, packages) or path for path in paths if "__pycache__" not in path}
    yield from ((Path(str(distribution.locate_file(part))), part) for part in sorted(parts))


def _outermost(path: str, packages: set[str]) -> str | None:
    """The outermost package that a file is in, or the folder of facts about the distribution."""
    folders = path.split("/")[:-1]
    outer = ("/".join(folders[:depth]) for depth in range(1, len(folders) + 1))
    return next((folder for folder in outer if folder in packages or folder.endswith(".dist-info")), None)
