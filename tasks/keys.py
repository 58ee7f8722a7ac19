"""API keys of what serves: several, each with a name; kept as hashes; changed without a restart.

A key is 32 random bytes, so its plain SHA-256 cannot be searched through, and needs no salt.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path

from tasks import files, settings
from tasks.errors import Mistake, did_you_mean


def path() -> Path:
    """Where the hashes are kept."""
    return settings.VAR / "serving" / "keys.json"


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
        _write({**held, name: _hash(key)})
    return key


def remove(name: str) -> None:
    """Take a key back, at once.

    Raises:
        Mistake: there is no such key.
    """
    with files.lock("keys"):
        held = _read(path())
        if name not in held:
            raise Mistake(f"there is no key {name}{did_you_mean(name, list(held))}")
        del held[name]
        _write(held)


def names() -> list[str]:
    """Of all keys. None: whoever reaches the port may ask."""
    return sorted(_read(path()))


class Keys:
    """The keys of a file, read again when it changes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int] | None = None
        self._held: dict[str, str] = {}

    def admit(self, key: str) -> bool:
        """Whether a key is one of those, or there are none. Takes the same time for every key that is none of them.

        Raises:
            OSError, ValueError: the file cannot be read: nobody is admitted by mistake.
        """
        self._look()
        if not self._held:
            return True
        given = _hash(key)
        return sum(hmac.compare_digest(given, held) for held in self._held.values()) > 0

    def _look(self) -> None:
        try:
            there = self._file.stat()
        except FileNotFoundError:
            self._seen, self._held = None, {}
            return
        if self._seen != (there.st_mtime_ns, there.st_ino):
            self._held = _read(self._file)
            self._seen = there.st_mtime_ns, there.st_ino


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
