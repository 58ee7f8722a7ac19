"""Signatures of the journal: Ed25519 (RFC 8032) over canonical JSON, with a key that is made at its first use.

    var/journal/key.pem       the private key, for its owner alone; EVERGREEN_JOURNAL_KEY names another place
    var/journal/public.pem    the public key that belongs to the journal's lines

cryptography is imported where something is signed or verified, and nowhere else: 15 ms.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, paths
from tasks.ground.errors import JournalDamaged, Mistake

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY = "EVERGREEN_JOURNAL_KEY"
"""Environment variable: the file of the private key. Outside var/, whoever can write var/ alone can forge nothing."""

SIGNATURE = "signature"


def canonical(value: dict[str, Any]) -> bytes:
    """The one way in which a value is written: names sorted, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def signed(value: dict[str, Any]) -> bytes:
    """A value with its signature, as it is written.

    Raises:
        JournalDamaged: the key is not the one that the journal's lines are signed with.
    """
    content = json.loads(canonical(value))  # as whoever verifies it reads it: names are texts then, and sorted as such
    return canonical({**content, SIGNATURE: _private().sign(canonical(content)).hex()})


def parse(line: bytes, key: str | None = None) -> dict[str, Any] | None:
    """What was signed; None where a byte of it differs from what was. `key`: public, in hex; by default the journal's.

    What says the same in other bytes (a space, a capital digit) is none of it either.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        value = json.loads(line)
        signature = bytes.fromhex(value.pop(SIGNATURE))
        if canonical({**value, SIGNATURE: signature.hex()}) != line:
            return None
        _public_of(key or public()).verify(signature, canonical(value))
    except (InvalidSignature, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    content: dict[str, Any] = value
    return content


def public() -> str:
    """The public key, in hex.

    Raises:
        JournalDamaged: it is not there, or no public key.
    """
    path, own = paths.journal_public_key(), key_path()
    if not path.exists() and own.exists():  # a kill came in between, or somebody removed it
        _write_public(_private_from(own, files.state_of(own)))
    try:
        return _public_from(path, files.state_of(path))
    except FileNotFoundError:
        raise JournalDamaged(f"{path} is not there: without it no line can be verified. {RESTORE}") from None


RESTORE = "Restore var/journal from a backup (docs/how-to/back-up-and-move.md)"


@lru_cache
def _public_from(path: Path, state: object) -> str:  # noqa: ARG001 - what a change changes
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise JournalDamaged(f"{path} is no public key of Ed25519. {RESTORE}")
    return key.public_bytes_raw().hex()


@lru_cache
def _public_of(key: str) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))


def _private() -> Ed25519PrivateKey:
    place = key_path()
    if not place.exists():
        _make(place)
    key = _private_from(place, files.state_of(place))
    if key.public_key().public_bytes_raw().hex() != public():
        raise JournalDamaged(
            f"the key in {place} is not the one that this journal is signed with: nothing was written. Set {KEY} to "
            f"the file that has it"
        )
    return key


def key_path() -> Path:
    """Where the private key is."""
    named = os.environ.get(KEY)
    return Path(named) if named else paths.journal_key()


def _make(place: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    with files.lock("journal.key"):  # with a dot: no chain has that lock
        if place.exists():
            return
        if paths.journal_public_key().exists():
            raise JournalDamaged(
                f"the journal's key is not at {place}: nothing was written. Set {KEY} to the file that has it. If it "
                f"is lost, move var/journal away and keep it: the next act begins a new journal"
            )
        key = Ed25519PrivateKey.generate()
        place.parent.mkdir(parents=True, exist_ok=True)
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with files.replacing(place) as beside:
            beside.touch(mode=0o600)
            beside.write_bytes(text)
        _write_public(key)


def _write_public(key: Ed25519PrivateKey) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    text = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    files.write_text(paths.journal_public_key(), text.decode())


@lru_cache
def _private_from(place: Path, state: object) -> Ed25519PrivateKey:  # noqa: ARG001 - what a change changes
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(place.read_bytes(), None)
    except (ValueError, TypeError):  # no PEM, or it wants a password
        key = None
    except OSError as error:
        raise JournalDamaged(f"the journal's key cannot be read, nothing was written: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Mistake(f"{place} holds no private key of Ed25519 without a password: {KEY} names the wrong file")
    return key
