"""API keys of what serves: several, each with a name; kept as hashes; changed without a restart.

A key is 32 random bytes, so its plain SHA-256 cannot be searched through, and needs no salt.

Before the first key everybody is answered. From then on only who has one is: where the last key is taken back, or the
files are lost, nobody is, until somebody opens the service by that word.

    var/serving/keys.json    name → hash
    var/keys.required        keys were on once; it lies apart, so that who removes var/serving opens nothing
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from pathlib import Path

from tasks.ground import files, paths
from tasks.ground.errors import Mistake, did_you_mean

MARKED_S = 0.1
"""How long it may take until a look at a file that says nothing new is made again."""


def path() -> Path:
    """Where the hashes are kept."""
    return paths.api_keys()


def _required(file: Path) -> Path:
    """Says that keys are needed, also where there is none."""
    return file.parent.parent / "keys.required"


def add(name: str) -> str:
    """Make a key; it is given once, here, and kept nowhere.

    Raises:
        Mistake: the name is taken, or no name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name):
        raise Mistake(f"{name!r} is no name for a key: letters, digits, - . _ and at most 64 of them")
    with files.lock("keys"):
        held = _read(path())
        if name in held:
            raise Mistake(f"there is a key {name} already. Remove it first, or give the new one another name")
        key = f"eg_{secrets.token_urlsafe(32)}"
        _require(path())
        _write({**held, name: _hash(key)})
    return key


def remove(name: str) -> None:
    """Take a key back, at once. Without the last one nobody is answered any more.

    Raises:
        Mistake: there is no such key.
    """
    with files.lock("keys"):
        held = _read(path())
        if name not in held:
            raise Mistake(f"there is no key {name}{did_you_mean(name, list(held))}")
        del held[name]
        _require(path())
        _write(held)


def open_to_all() -> None:
    """Answer whoever reaches the port from now on.

    Raises:
        Mistake: there are keys.
    """
    with files.lock("keys"):
        if held := _read(path()):
            raise Mistake(f"there are keys ({', '.join(sorted(held))}): remove each of them first")
        _required(path()).unlink(missing_ok=True)
        _write({})  # last: whoever sees it looks anew


def are_required() -> bool:
    """Whether only who has a key is answered."""
    return bool(_read(path())) or _required(path()).exists()


def names() -> list[str]:
    """Of all keys."""
    return sorted(_read(path()))


class Keys:
    """The keys of a file, read again when it changes."""

    def __init__(self, file: Path) -> None:
        self._file, self._name = file, str(file)
        self._seen: tuple[int, int] | None = None
        self._held: dict[str, str] = {}
        self._were_there = False
        self._marked, self._marked_until = False, 0.0
        """Whether keys are needed though there is none, and until when that is not looked at again."""

    def admit(self, key: str) -> bool:
        """Whether a key is one of those, or none is needed. Takes the same time for every key that is none of them.

        Raises:
            OSError, ValueError: the file cannot be read: nobody is admitted by mistake.
        """
        if not self.are_required():
            return True
        given = _hash(key)
        return sum(hmac.compare_digest(given, held) for held in self._held.values()) > 0

    def are_required(self) -> bool:
        """Whether only who has a key is admitted.

        Raises:
            OSError, ValueError: as admit.
        """
        is_there = self._look()
        if not self._held and is_there:  # all were taken back, unless somebody has opened the service since
            return self._are_marked()
        return bool(self._held) or self._were_there or self._are_marked()

    def _are_marked(self) -> bool:
        """What is asked for each request is not worth a look at the disk each time; a change of the keys is."""
        if (now := time.monotonic()) >= self._marked_until:
            self._marked, self._marked_until = _required(self._file).exists(), now + MARKED_S
        return self._marked

    def _look(self) -> bool:
        try:
            there = os.stat(self._name)  # noqa: PTH116 - for each request: pathlib takes twice as long
        except FileNotFoundError:
            if self._seen is not None:
                self._seen, self._held, self._marked_until = None, {}, 0.0
            return False
        if self._seen != (there.st_mtime_ns, there.st_ino):
            self._held = _read(self._file)
            self._were_there = bool(self._held)
            if self._held:
                _require(self._file)
            self._seen, self._marked_until = (there.st_mtime_ns, there.st_ino), 0.0
        return True


def _require(file: Path) -> None:
    """Write down that keys are needed from now on."""
    marker = _required(file)
    if not marker.exists():
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text("API keys are needed. `evergreen keys open` changes that\n", encoding="utf-8")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _read(file: Path) -> dict[str, str]:
    """Name → hash.

    Raises:
        ValueError: it holds something else: an empty list, say, which must not count as «there are no keys».
    """
    if not file.exists():
        return {}
    wrong = f"{file} does not hold keys and their hashes: remove it, and make the keys again"
    try:
        held = files.read_json(file)
    except ValueError:
        raise ValueError(wrong) from None
    if not isinstance(held, dict) or not all(
        isinstance(h, str) and re.fullmatch("[0-9a-f]{64}", h) for h in held.values()
    ):
        raise ValueError(wrong)
    return held


def _write(held: dict[str, str]) -> None:
    """Atomically, and for nobody else to read: a hash is no secret, but who has a key is nobody's business."""
    path().parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path(), held)
    path().chmod(0o600)
