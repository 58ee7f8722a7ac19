"""Locked packages that can change what a step computes, so that a bump of any other redoes nothing.

What a step imports pulls in a closure of packages; their exact versions from requirements.lock are written to
build/environment/<purpose>.txt, and stages depend on the file of their purpose instead of on the whole lock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tasks.ground import arithmetic, files, settings
from tasks.ground.errors import EnvironmentDiffers

COMPUTES = ("training", "evaluation")
"""The purposes whose results depend on the arithmetic of this machine, which their file begins with."""

_LEARNING = ("scikit-learn", "pandas", "pyarrow", "numpy", "scipy", "skops", "pydantic", "ruamel.yaml")

ROOTS = {
    "training": _LEARNING,
    "evaluation": (*_LEARNING, "matplotlib"),  # it draws: a bump of pillow draws again, and trains nothing
    "serving": (
        *("bentoml", "scikit-learn", "treelite", "pandas", "skops"),
        *("pydantic", "orjson", "prometheus-client", "starlette"),
    ),
    "validation": ("great-expectations", "pandas", "pyarrow", "ruamel.yaml"),
}
"""What the code of each purpose imports. What these need is found by asking them."""

# Where a marker may hold; so that the files are the same, whichever of these machines writes them.
_MACHINES = [
    {"python_version": python.rpartition(".")[0], "python_full_version": python, **system}
    for python in ["3.11.0", "3.11.9", "3.12.9", "3.13.9", "3.14.9"]
    for system in [
        {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
        {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
        {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
    ]
]


@dataclass(frozen=True)
class Pin:
    """One line of the lock: a version, and on which machines it is the one."""

    name: str
    version: str
    marker: str | None

    def __str__(self) -> str:
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")

    def is_for_here(self) -> bool:
        """Whether this line is meant for the interpreter that runs now."""
        return self.marker is None or Marker(self.marker).evaluate()


def environment() -> None:
    """The stage: requirements.lock → build/environment/{training,evaluation,serving,validation}.txt.

    Raises:
        EnvironmentDiffers: an installed package is not the one that the lock names.
    """
    lock = _lock()
    for roots in ROOTS.values():
        refuse_difference(closure(roots), lock)
    for purpose in ROOTS:
        files.write_text(settings.BUILD / "environment" / f"{purpose}.txt", text(purpose))


def text(purpose: str) -> str:
    """What the stage writes for a purpose."""
    lock, names = _lock(), closure(ROOTS[purpose], _MACHINES)
    head = [f"# {arithmetic.in_effect()}"] if purpose in COMPUTES else []
    lines = [*head, *sorted(str(pin) for name in names for pin in lock.get(name, []))]
    return "".join(f"{line}\n" for line in lines)


def _lock() -> dict[str, list[Pin]]:
    return read_lock((settings.ROOT / "requirements.lock").read_text(encoding="utf-8"))


def read_lock(text: str) -> dict[str, list[Pin]]:
    """Normalised name → its pins; more than one where markers divide the machines."""
    lock: dict[str, list[Pin]] = {}
    for line in text.splitlines():
        if match := re.match(r"([A-Za-z0-9][\w.-]*)==([^\s;\\]+)\s*(?:;\s*(.*?))?\s*\\?$", line):
            name = canonicalize_name(match[1])
            lock.setdefault(name, []).append(Pin(name, match[2], match[3] or None))
    return lock


def closure(roots: Sequence[str], machines: Sequence[Mapping[str, str]] = ({},)) -> set[str]:
    """The normalised names of the roots and of all that they require, as the installed distributions say it.

    Args:
        roots: names of distributions.
        machines: a requirement counts where its marker holds on one of them: each is how it differs from this machine.
    """
    closed: set[tuple[str, str]] = set()
    waiting = {(canonicalize_name(root), "") for root in roots}
    while waiting:
        name, extra = node = waiting.pop()
        closed.add(node)
        for requirement in _requirements(name):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({**machine, "extra": extra}) for machine in machines):
                needed = canonicalize_name(requirement.name)
                waiting |= {(needed, wanted) for wanted in ("", *requirement.extras)} - closed
    return {name for name, _ in closed}


def refuse_difference(names: set[str], lock: dict[str, list[Pin]]) -> None:
    """Compare what is installed with what the lock names for this machine.

    Raises:
        EnvironmentDiffers: with a line per difference.
    """
    differences = []
    for name in sorted(names):
        pins = [pin for pin in lock.get(name, []) if pin.is_for_here()]
        installed = _installed(name)
        if not pins:
            differences.append(f"{name} is needed, but requirements.lock has no line for it")
        elif installed is None:
            differences.append(f"{name} is not installed; requirements.lock names {pins[0].version}")
        elif Version(installed) != Version(pins[0].version):
            differences.append(f"{name} {installed} is installed; requirements.lock names {pins[0].version}")
    if differences:
        advice = "What is installed is not what is locked: `make setup` installs the lock."
        raise EnvironmentDiffers("\n".join([*differences, advice]))


@cache
def _requirements(name: str) -> tuple[Requirement, ...]:
    try:
        return tuple(Requirement(text) for text in metadata.requires(name) or [])
    except metadata.PackageNotFoundError:
        return ()  # meant for another machine, or missing: refuse_difference says which


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
