"""Tensors of a request by the Open Inference Protocol: read from JSON or bytes, and refused where they are not as said.

Binary data is little-endian, row by row, without gaps; a text has its length before it, in 4 bytes. A value that is
missing is null in JSON, and NaN in numbers that have one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field

from tasks.runtime.errors import did_you_mean
from tasks.runtime.inference_body import LENGTH_HEADER, fault

DATATYPES = {"BOOL": "?", "BYTES": "O", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
DATATYPES |= {f"{sign}INT{8 * size}": f"<{'u' if sign else 'i'}{size}" for sign in ("", "U") for size in (1, 2, 4, 8)}
"""Name of the protocol → of NumPy."""

NUMBERS = frozenset(DATATYPES) - {"BOOL", "BYTES"}

PANDAS_JSON = "pd_json"
"""MLServer's pandas codec, where a column holds missing texts or lists: each of its elements is JSON as text."""

CONTENT_TYPES = {None, "", "np", "pd", "str", PANDAS_JSON}

ELEMENT = struct.Struct("<I")
"""The length before a text."""

STRICT = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=())
Parameters = dict[str, Any] | None


class RequestInput(BaseModel):
    """A tensor of a request."""

    model_config = STRICT
    name: str = Field(description="of a feature, `keys`, or any where all features come as one tensor")
    shape: list[int] = Field(description="[rows], [rows, 1], or [rows, numbers]")
    datatype: str = Field(description=", ".join(DATATYPES))
    data: list[Any] | None = Field(None, description="row by row, flat or nested; null: missing")
    parameters: Parameters = Field(None, description="binary_data_size: so many bytes behind the JSON, instead of data")


# ── which bytes are whose ─────────────────────────────────────────────────────────────────────────


def read(inputs: list[RequestInput], binary: memoryview) -> list[Tensor]:
    """All tensors, each with its part of the bytes that follow the JSON.

    Raises:
        Refused: contents, shape, datatype and sizes do not match.
    """
    tensors, at = [], 0
    for given in inputs:
        size = _binary_size(given)
        if size is not None and at + size > len(binary):
            problem = f"has {size} bytes by its binary_data_size, but {len(binary) - at} are left of the body"
            raise fault(None, given.name, f"{problem}. Is the header {LENGTH_HEADER} right?")
        tensors.append(_checked(given, None if size is None else binary[at : at + size]))
        at += size or 0
    if left := len(binary) - at:
        problem = f"the last {left} bytes of the body belong to no tensor: each has a parameter binary_data_size"
        raise fault(None, None, problem)
    return tensors


def _binary_size(tensor: RequestInput) -> int | None:
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is None:
        if tensor.data is None:
            problem = "has no data: send `data`, or its bytes behind the JSON and their number as binary_data_size"
            raise fault(None, tensor.name, problem)
        return None
    if type(size) is not int or size < 0:
        raise fault(None, tensor.name, "its binary_data_size is no number of bytes")
    if tensor.data is not None:
        raise fault(None, tensor.name, "has both data and a binary_data_size: send one of them")
    return size


def _checked(given: RequestInput, binary: memoryview | None) -> Tensor:
    """A tensor whose datatype is known, and whose contents match its shape, as far as their number goes."""
    if given.datatype not in DATATYPES:
        hint = did_you_mean(given.datatype[:20], list(DATATYPES))
        raise fault(None, given.name, f"has a datatype that is not known{hint}")
    content_type = (given.parameters or {}).get("content_type")
    if not isinstance(content_type, str | None) or content_type not in CONTENT_TYPES:
        raise fault(None, given.name, f"has a content type that is not read: leave it out, or send {PANDAS_JSON}")
    if any(size < 0 for size in given.shape):
        raise fault(None, given.name, f"has a negative number in its shape {given.shape}: say how many rows there are")
    tensor = Tensor(given.name, given.shape, given.datatype, [], content_type)
    if binary is None:
        content = _flat(given)
        if len(content) != tensor.count:
            problem = f"has {len(content)} values, but its shape {given.shape} means {tensor.count}"
            raise fault(None, given.name, problem)
        return replace(tensor, content=content)
    size = tensor.count * np.dtype(DATATYPES[given.datatype]).itemsize
    if given.datatype != "BYTES" and len(binary) != size:
        problem = f"has {len(binary)} bytes, but {given.datatype} of shape {given.shape} is {size} bytes"
        raise fault(None, given.name, problem)
    return replace(tensor, content=binary)


def _flat(given: RequestInput) -> list[Any]:
    """The values of a tensor in JSON, row by row: as they are, or nested as its shape says."""
    values: list[Any] = given.data or []
    for size in given.shape[1:]:
        if not any(isinstance(part, list) for part in values):
            break
        if not all(isinstance(part, list) and len(part) == size for part in values):
            raise fault(None, given.name, f"is not nested as its shape {given.shape} says; flat data will do")
        values = [value for part in values for value in part]
    return values


# ── one tensor ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Tensor:
    """A tensor of a request, whose number of values, or of bytes, is as its shape says."""

    name: str
    shape: list[int]
    datatype: str
    content: list[Any] | memoryview
    """JSON values, row by row; or bytes."""
    content_type: str | None

    @property
    def is_binary(self) -> bool:
        """Whether it came as bytes."""
        return isinstance(self.content, memoryview)

    @property
    def is_json_text(self) -> bool:
        """Whether its elements are JSON as text."""
        return self.content_type == PANDAS_JSON and self.datatype == "BYTES"

    @property
    def count(self) -> int:
        """How many elements its shape means."""
        return math.prod(self.shape)

    def values(self) -> list[Any]:
        """Its elements row by row, as JSON has them; None where missing.

        Raises:
            Refused: the first one that is not of the datatype.
        """
        if isinstance(self.content, memoryview):
            return self._of_bytes(self.content)
        return self._of_json(self.content)

    def decoded(self) -> list[Any]:
        """What its texts are as JSON, by MLServer's pandas codec."""
        decoded: list[Any] = []
        for row, text in enumerate(self.values()):
            try:
                decoded.append(None if text is None else orjson.loads(text))
            except orjson.JSONDecodeError as error:
                raise fault(row, self.name, f"its content type is {PANDAS_JSON}, but it is no JSON: {error}") from None
        return decoded

    def _of_json(self, content: list[Any]) -> list[Any]:
        if self.datatype == "BYTES":
            self._must_be(content, "text or null", str)
        elif self.datatype == "BOOL":
            self._must_be(content, "true, false or null", bool)
        elif self.datatype.startswith("FP"):
            self._must_be(content, "a number or null", float, int)
            return self._finite(self._rounded(content))
        else:
            self._must_be(content, "a whole number or null", float, int)
            limits = np.iinfo(DATATYPES[self.datatype])
            return [self._whole(place, value, limits.min, limits.max) for place, value in enumerate(content)]
        return content

    def _of_bytes(self, content: memoryview) -> list[Any]:
        if self.datatype == "BYTES":
            return list(self._texts(content))
        if self.datatype == "BOOL" and set(content) - {0, 1}:
            raise fault(None, self.name, "holds a byte that is neither 0 nor 1, as BOOL must be")
        array = np.frombuffer(content, DATATYPES[self.datatype])
        if self.datatype.startswith("FP"):
            return self._finite(array)
        values: list[Any] = array.tolist()
        return values

    def _texts(self, content: memoryview) -> Iterator[str]:
        """Each with its length before it."""
        at = 0
        for row in range(self.count):
            start = at + ELEMENT.size
            size = ELEMENT.unpack_from(content, at)[0] if start <= len(content) else 0
            at = start + size
            if at > len(content):
                raise fault(row, self.name, "ends beyond its bytes: before each text comes its length, in 4 bytes")
            try:
                yield str(content[start:at], "utf-8")
            except UnicodeDecodeError as error:
                raise fault(row, self.name, f"is no UTF-8 at its byte {error.start}") from None
        if at != len(content):
            raise fault(None, self.name, f"{len(content) - at} bytes follow its last text: its shape is {self.shape}")

    def _rounded(self, content: list[Any]) -> npt.NDArray[Any]:
        """Numbers of JSON as the datatype has them: null is NaN, and a number in FP32 is the nearest of 32 bits."""
        try:
            with np.errstate(over="ignore"):  # it becomes infinite, and is refused as that
                return np.array(content, dtype=np.float64).astype(DATATYPES[self.datatype])
        except OverflowError:
            raise fault(None, self.name, f"holds a whole number that is too large for {self.datatype}") from None

    def _finite(self, array: npt.NDArray[Any]) -> list[float | None]:
        if np.isinf(array).any():
            row = self._row(int(np.isinf(array).argmax()))
            problem = f"is infinite, or too large for {self.datatype}: send a finite number, or NaN where it is missing"
            raise fault(row, self.name, problem)
        values: list[float | None] = array.tolist()
        for place in np.flatnonzero(np.isnan(array)).tolist():
            values[place] = None
        return values

    def _whole(self, place: int, value: Any, least: int, most: int) -> int | None:
        if value is None:
            return None
        if isinstance(value, float) and not value.is_integer():  # NaN is none either
            problem = f"is no whole number, as {self.datatype} must be: send FP64, or null where it is missing"
            raise fault(self._row(place), self.name, problem)
        if not least <= value <= most:
            raise fault(self._row(place), self.name, f"is not between {least} and {most}, as {self.datatype} must be")
        return int(value)

    def _must_be(self, content: list[Any], words: str, *types: type) -> None:
        allowed = {*types, type(None)}
        if not allowed.issuperset(map(type, content)):
            place = next(at for at, value in enumerate(content) if type(value) not in allowed)
            raise fault(self._row(place), self.name, f"is not {words}, as {self.datatype} in JSON must be")

    def _row(self, place: int) -> int:
        return place // max(1, math.prod(self.shape[1:]))
