"""Bodies of the Open Inference Protocol: JSON, and the bytes of binary tensors behind it; and how one is refused.

The router imports this, and nothing that a model needs.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Any

EXTENSIONS = ["binary_tensor_data"]
PLATFORM = "evergreen_release"

LENGTH_HEADER = "Inference-Header-Content-Length"
"""Of a request or an answer with binary tensors: how many bytes of its body are JSON. They follow behind it."""

MOST_TOLD = 5  # faults that the text of an error names: clients of the protocol show the text alone
LONGEST_NAME = 100  # characters of what a fault is about

_LENGTH = struct.Struct("!I")


class Refused(Exception):
    """A request that cannot be read; its faults by row and field, as `/predict` has them."""

    def __init__(self, *faults: dict[str, Any]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = list(faults)


def entry(row: int | None, name: str | None, problem: str) -> dict[str, Any]:
    """A fault, as an answer lists it."""
    return {"row": row, "field": None if name is None else name[:LONGEST_NAME], "problem": problem}


def fault(row: int | None, name: str | None, problem: str) -> Refused:
    """One fault, to be raised."""
    return Refused(entry(row, name, problem))


def json_length(header: str, size: int) -> int:
    """How many bytes of a body of this size are JSON, as the header says; without one, all.

    Raises:
        Refused: the header holds no such number.
    """
    if not header:
        return size
    if not re.fullmatch(r"[0-9]{1,18}", header) or int(header) > size:
        raise fault(None, None, f"the header {LENGTH_HEADER} must be a number of bytes, at most {size}: the body's")
    return int(header)


def pack(length: int, body: bytes) -> bytes:
    """A body as one string of bytes, as the socket to a replica takes it: before it, how many bytes of it are JSON."""
    return _LENGTH.pack(length) + body


def unpack(packed: bytes) -> tuple[int, bytes]:
    """Back from `pack`."""
    return _LENGTH.unpack_from(packed)[0], packed[_LENGTH.size :]


def refusal(error: Refused) -> bytes:
    """The answer, of status 400, to a request that could not be read."""
    number = len(error.faults)
    message = f"refused, nothing was predicted: {number} {'fault' if number == 1 else 'faults'}"
    return with_text(json.dumps({"error": message, "detail": error.faults}).encode())


def with_text(body: bytes) -> bytes:
    """An answer without predictions, whose text names its first faults."""
    content = json.loads(body)
    faults = content.get("detail", [])
    if not faults:
        return body
    more = "; …" if len(faults) > MOST_TOLD else ""
    error = f"{content['error']}: {'; '.join(map(_in_words, faults[:MOST_TOLD]))}{more}"
    return json.dumps({**content, "error": error}).encode()


def _in_words(listed: dict[str, Any]) -> str:
    row = "" if listed["row"] is None else f"row {listed['row']}"
    place = ", ".join(filter(None, (row, listed["field"])))
    return f"{place}: {listed['problem']}" if place else str(listed["problem"])
