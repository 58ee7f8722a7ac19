"""Bodies that come compressed: gzip is taken, as far as what is in it is no larger than a body may be."""

from __future__ import annotations

import zlib

ACCEPTED = "gzip, identity"

GZIP = 16 + zlib.MAX_WBITS
"""Tells zlib to expect gzip's head and tail."""


def is_accepted(encoding: str) -> bool:
    """Whether a body with this content-encoding can be read."""
    return encoding in ("", "identity") or is_gzip(encoding)


def is_gzip(encoding: str) -> bool:
    """Whether it is gzip, by either of its names."""
    return encoding in ("gzip", "x-gzip")


def gunzip(body: bytes, most: int) -> bytes | None:
    """What was compressed; None if that is more than `most` bytes, of which no more than one is made.

    Raises:
        ValueError: it is no gzip, or not all of it.
    """
    parts, size = [], 0
    while body:
        member = zlib.decompressobj(GZIP)
        try:
            parts.append(member.decompress(body, most + 1 - size))
        except zlib.error as error:
            raise ValueError(f"the body is no gzip: {error}") from None
        size += len(parts[-1])
        if size > most:
            return None
        if not member.eof:
            raise ValueError("the body is gzip that was cut off")
        body = member.unused_data
    if not parts:
        raise ValueError("the body is no gzip: it is empty")
    return b"".join(parts)
