"""API keys of the router: several, each with a name; kept as hashes; changed without a restart.

A key is 32 random bytes, so its plain SHA-256 cannot be searched through, and needs no salt.

Before the first key all requests are answered. From then on only those with a key are: where the last key is removed,
or the files are lost, none is, until `evergreen keys open`.

    var/serving/keys.json    name → hash
    var/keys.required        keys were on once; it lies apart, so that removing var/serving opens nothing
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from tasks.ground import files, paths
from tasks.ground.errors import Mistake, did_you_mean
from tasks.journal import journal


def _marker() -> Path:
    """Says that keys are needed, also where there is none."""
    return paths.api_keys().parent.parent / "keys.required"


def add(name: str) -> str:
    """Make a key; it is given once, here, and kept nowhere."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name):
        raise Mistake(f"{name!r} is no name for a key: letters, digits, - . _ and at most 64 of them")
    with files.lock("keys"):
        hashes = _read()
        if name in hashes:
            raise Mistake(f"there is a key {name} already. Remove it first, or give the new one another name")
        key = f"eg_{secrets.token_urlsafe(32)}"
        _mark()
        _note(name, "added")
        _write({**hashes, name: _hash(key)})
    return key


def remove(name: str) -> None:
    """Take a key back, at once. Without the last one no request is answered any more."""
    with files.lock("keys"):
        hashes = _read()
        if name not in hashes:
            raise Mistake(f"there is no key {name}{did_you_mean(name, list(hashes))}")
        del hashes[name]
        _mark()
        _note(name, "removed")
        _write(hashes)


def open_to_all() -> None:
    """Answer all requests from now on; refused while there are keys."""
    with files.lock("keys"):
        if hashes := _read():
            raise Mistake(f"there are keys ({', '.join(sorted(hashes))}): remove each of them first")
        _note("*", "open to all")
        _marker().unlink(missing_ok=True)
        _write({})  # last: its change makes the router look anew


def _note(name: str, change: str) -> None:
    """Have the journal say it before it is so; no hash of a key is in it."""
    journal.append(journal.PLATFORM, "key", {"name": name, "change": change})


def names() -> list[str]:
    """Of all keys."""
    return sorted(_read())


class Keys:
    """The keys, read again when their file changes."""

    def __init__(self) -> None:
        self._file, self._marker = str(paths.api_keys()), str(_marker())
        self._version: tuple[int, int] | None = None
        self._hashes: dict[str, str] = {}
        self._had_keys = False  # whether the file ever held one

    def admit(self, key: str) -> bool:
        """Whether a key is one of those, or none is needed. Takes the same time for every key that is none of them.

        Raises:
            OSError, ValueError: the file cannot be read: no request is admitted by mistake.
        """
        if not self.are_required():
            return True
        given = _hash(key)
        return sum(hmac.compare_digest(given, own) for own in self._hashes.values()) > 0

    def are_required(self) -> bool:
        """Whether only requests with a key are admitted."""
        exists = self._refresh()
        if self._hashes or (self._had_keys and not exists):
            return True
        # all were removed, unless the router was opened since; or there never were any
        return _stat(self._marker) is not None

    def _refresh(self) -> bool:
        """Read the file if it has changed; gives whether there is one."""
        stat = _stat(self._file)
        if stat is None:
            self._version, self._hashes = None, {}
            return False
        if self._version != (stat.st_mtime_ns, stat.st_ino):
            self._hashes = _read()
            self._had_keys = bool(self._hashes)
            if self._hashes:
                _mark()
            self._version = stat.st_mtime_ns, stat.st_ino
        return True


def _stat(file: str) -> os.stat_result | None:
    """Of a file, or None where there is none; any other fault is raised, as it does not say that no key is needed."""
    try:
        return os.stat(file)  # noqa: PTH116 - for each request: pathlib takes twice as long
    except FileNotFoundError:
        return None


def _mark() -> None:
    marker = _marker()
    if not marker.exists():
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text("API keys are needed. `evergreen keys open` changes that\n", encoding="utf-8")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _read() -> dict[str, str]:
    """Name → hash.

    Raises:
        ValueError: it holds something else: an empty list, say, which must not count as «there are no keys».
    """
    file = paths.api_keys()
    if not file.exists():
        return {}
    try:
        hashes = files.read_json(file)
        if all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes.values()):
            return dict(hashes)
    except (ValueError, AttributeError, TypeError):  # not JSON, no object, no texts
        pass
    raise ValueError(f"{file} does not hold keys and their hashes: remove it, and make the keys again")


def _write(hashes: dict[str, str]) -> None:
    """Atomically, and for the owner alone: a hash is no secret, but the names of clients are private."""
    files.write_json(paths.api_keys(), hashes)
    paths.api_keys().chmod(0o600)
