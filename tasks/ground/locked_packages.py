"""Locked packages: the exact versions that the lock names, what a package requires, and whether that is installed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tasks.ground import settings
from tasks.ground.errors import EnvironmentDiffers

# Where a marker may hold; so that the files are the same, whichever of these machines writes them.
MACHINES: list[Mapping[str, str]] = [
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


def lock(*paths: Path) -> dict[str, list[Pin]]:
    """What some files of the lock pin; without any: all that is locked."""
    return read_lock("\n".join(path.read_text(encoding="utf-8") for path in paths or lock_files()))


def lock_files() -> list[Path]:
    """The files of the lock: requirements.lock, and what the optional groups add to it."""
    return [settings.ROOT / "requirements.lock", *sorted((settings.ROOT / "locks").glob("*.*"))]


def group_of(name: str) -> str | None:
    """The optional group that brings a distribution, or has this name; None: no group does."""
    name = canonicalize_name(name)
    for path in lock_files()[1:]:
        if name == path.stem or name in read_lock(path.read_text(encoding="utf-8")):
            return path.stem
    return None


def read_lock(text: str) -> dict[str, list[Pin]]:
    """Normalised name → its pins; more than one where markers divide the machines."""
    lock: dict[str, list[Pin]] = {}
    for line in text.splitlines():
        if "==" in line and (match := re.match(r"([A-Za-z0-9][\w.-]*)==([^\s;\\]+)\s*(?:;\s*(.*?))?\s*\\?$", line)):
            name = canonicalize_name(match[1])
            lock.setdefault(name, []).append(Pin(name, match[2], match[3] or None))
    return lock


def closure(roots: Sequence[str], everywhere: bool = False) -> set[str]:
    """The normalised names of the roots and of all that they require, as the installed distributions say it.

    Args:
        roots: names of distributions.
        everywhere: what is required on any of MACHINES counts, not only on this one.
    """
    closed: set[tuple[str, str]] = set()
    waiting: set[tuple[str, str]] = {(canonicalize_name(root), "") for root in roots}
    while waiting:
        name, extra = node = waiting.pop()
        closed.add(node)
        waiting |= _required(name, extra, everywhere) - closed
    return {name for name, _ in closed}


@cache
def _required(name: str, extra: str, everywhere: bool) -> frozenset[tuple[str, str]]:
    """The distributions, each with an extra or none, that a distribution with an extra requires."""
    required = set()
    for requirement in _requirements(name):
        marker = requirement.marker
        machines = MACHINES if everywhere else ({},)
        if marker is None or any(marker.evaluate({**machine, "extra": extra}) for machine in machines):
            required |= {(canonicalize_name(requirement.name), wanted) for wanted in ("", *requirement.extras)}
    return frozenset(required)


def refuse_difference(names: set[str], lock: Mapping[str, Sequence[Pin]]) -> None:
    """Compare what is installed with what the lock names for this machine.

    Raises:
        EnvironmentDiffers: with a line per difference.
    """
    differences = []
    for name in sorted(names):
        pins = [pin for pin in lock.get(name, []) if pin.is_for_here()]
        installed = _installed(name)
        if not pins:
            differences.append(f"{name} is needed, but the lock has no line for it")
        elif installed is None:
            differences.append(f"{name} is not installed; the lock names {pins[0].version}")
        elif Version(installed) != Version(pins[0].version):
            differences.append(f"{name} {installed} is installed; the lock names {pins[0].version}")
    if differences:
        groups = sorted({group for name in names if _installed(name) is None and (group := group_of(name))})
        setup = f'make setup WITH="{" ".join(groups)}"' if groups else "make setup"
        advice = f"What is installed is not what is locked: `{setup}` installs the lock."
        raise EnvironmentDiffers("\n".join([*differences, advice]))


@cache
def that_bring(package: str) -> tuple[str, ...]:
    """The installed distributions of a package that can be imported, by their normalised names; `yaml`: pyyaml."""
    name = "scikit-learn" if package == "sklearn" else package  # so that not all are looked through for every model
    with suppress(metadata.PackageNotFoundError):
        if _brings(metadata.distribution(name), package):
            return (canonicalize_name(name),)
    return tuple(sorted({canonicalize_name(each.name) for each in metadata.distributions() if _brings(each, package)}))


def _brings(distribution: metadata.Distribution, package: str) -> bool:
    """By the list of its files, as text: of some there are ten thousand."""
    record = distribution.read_text("RECORD") or ""
    return bool(re.search(rf"^{re.escape(package)}(/[^,]*|(\.[\w-]+)*)\.(py|so|pyd),", record, re.MULTILINE))


def _requirements(name: str) -> list[Requirement]:
    try:
        return [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []  # meant for another machine, or missing: refuse_difference says which


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
