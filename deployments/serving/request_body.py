"""Bodies of requests: refused as soon as they are known to be too large, too slow, or too much beside the others."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

from deployments.serving.http_error import HttpError
from deployments.serving.served_model import ServedModel

BODY_S = 30.0  # how long a client may take to send a body

ENCODINGS = "gzip, identity"

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def header(scope: Scope, name: bytes) -> str:
    """The first header of this name; "" where there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


async def read(scope: Scope, receive: Receive, model: ServedModel) -> bytes:
    """The body of a request, decompressed."""
    encoding, most = header(scope, b"content-encoding").strip().lower(), model.limits.max_bytes
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        message = f"a body in {encoding!r} cannot be read, but {ENCODINGS} can"
        raise HttpError(415, message, **{"accept-encoding": ENCODINGS})
    body = await _receive_all(scope, receive, model)
    if encoding in ("", "identity"):
        return body
    plain = await asyncio.to_thread(_gunzip, body, most + 1)
    if len(plain) > most:
        raise _too_large(most)
    return plain


async def _receive_all(scope: Scope, receive: Receive, model: ServedModel) -> bytes:
    most, announced = model.limits.max_bytes, header(scope, b"content-length")
    expected, size, parts = int(announced) if announced.isdigit() else 0, 0, []
    try:
        async with asyncio.timeout(BODY_S):
            while max(expected, size) <= most:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HttpError(400, "the client left before its request was complete")
                parts.append(message["body"])
                size += len(parts[-1])
                model.take(len(parts[-1]))
                if size <= most and not message["more_body"]:
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise HttpError(408, f"the body did not come within {BODY_S:g} s", connection="close") from None
    finally:
        model.give_back(size)
    raise _too_large(most)


def _too_large(most: int) -> HttpError:
    return HttpError(413, f"the body is larger than {most} bytes (serving.max_bytes)")


def _gunzip(body: bytes, most: int) -> bytes:
    """As much of what was compressed: a small body that holds a very large one is not unpacked."""
    if not body:
        raise HttpError(400, "the body is no gzip: it is empty")
    try:
        with gzip.GzipFile(fileobj=BytesIO(body)) as stream:
            return stream.read(most)
    except EOFError:
        raise HttpError(400, "the body is gzip that was cut off") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise HttpError(400, f"the body is no gzip: {error}") from None
