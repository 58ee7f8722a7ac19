"""Bodies that come compressed: gzip is taken, as far as what is in it is no larger than a body may be."""

from __future__ import annotations

import gzip
import zlib
from io import BytesIO

ACCEPTED = "gzip, identity"


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
    if not body:
        raise ValueError("the body is no gzip: it is empty")
    try:
        with gzip.GzipFile(fileobj=BytesIO(body)) as stream:
            plain = stream.read(most + 1)
    except EOFError:
        raise ValueError("the body is gzip that was cut off") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"the body is no gzip: {error}") from None
    return plain if len(plain) <= most else None
