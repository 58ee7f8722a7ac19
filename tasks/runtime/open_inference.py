"""Open Inference Protocol: requests of KServe's REST protocol v2 to rows of `/predict`, and predictions to tensors.

A request becomes the body of a request for predictions, and the answer to that becomes tensors: rows are checked,
scored and logged as all others are, and the numbers are the same. The replica and the service that BentoML serves both
answer through this; it is copied into each release. docs/reference/open-inference-protocol.md has the mapping.

https://github.com/kserve/open-inference-protocol, and the binary tensor data extension of KServe and Triton.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import orjson
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from tasks.runtime import tensors
from tasks.runtime.errors import did_you_mean
from tasks.runtime.feature_types import Features
from tasks.runtime.inference_body import Refused, entry, fault, pack, refusal, unpack, with_text
from tasks.runtime.predictor import MOST_FAULTS, Answer, Predictor
from tasks.runtime.request_schema import example_row
from tasks.runtime.tensors import ELEMENT, NUMBERS, PANDAS_JSON, STRICT, Parameters, RequestInput, Tensor

KEYS = "keys"
"""The tensor of the clients' own names for rows, unless a feature is called so."""

TAKEN = {
    "category": ("text", frozenset({"BYTES"})),
    "text": ("text", frozenset({"BYTES"})),
    "datetime": ("a time, as text", frozenset({"BYTES"})),
    "boolean": ("a truth value", NUMBERS | {"BOOL"}),
    "integer": ("a number", NUMBERS),
    "number": ("a number", NUMBERS),
    "vector": ("numbers", NUMBERS),
}
"""Type of feature → what it is in words, and the datatypes that it may come as."""

OFFERED = {"category": "BYTES", "text": "BYTES", "datetime": "BYTES", "boolean": "BOOL", "integer": "INT64"}
"""Type of feature → its datatype in the metadata; of all others FP64."""


# ── messages ──────────────────────────────────────────────────────────────────────────────────────


class RequestOutput(BaseModel):
    """A tensor that is asked for."""

    model_config = STRICT
    name: str
    parameters: Parameters = Field(None, description="binary_data: whether it comes as bytes behind the JSON")


class InferenceRequest(BaseModel):
    """A request for predictions."""

    model_config = STRICT
    inputs: list[RequestInput]
    outputs: list[RequestOutput] | None = Field(None, description="without them, all")
    id: str | None = Field(None, description="comes back in the answer")
    parameters: Parameters = Field(
        None, description="binary_data_output: all outputs as bytes; time: when it was asked, if that was not now"
    )
    model_name: str | None = Field(None, description="not looked at: the path names the model")
    model_version: str | None = Field(None, description="not looked at: the path names the version")


class ResponseOutput(BaseModel):
    """A tensor of an answer."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters = Field(None, description="binary_data_size: so many bytes behind the JSON, instead of data")
    data: list[Any] | None = Field(None, description="row by row, flat")


class InferenceResponse(BaseModel):
    """The answer to all rows, in their order."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: Parameters = Field(None, description="release: which one answered")
    outputs: list[ResponseOutput]


# ── requests to rows ──────────────────────────────────────────────────────────────────────────────


class Translator:
    """What one release takes and gives, as tensors."""

    def __init__(self, predictor: Predictor) -> None:
        self._release, self._features = predictor.release, predictor.release.features
        self._adapter = TypeAdapter(InferenceRequest)
        self._width = _width(self._features)
        example = orjson.dumps({"rows": [example_row(self._features)]})
        sample = orjson.loads(predictor.predict([example], counted=False)[0].body)["predictions"][0]
        self._outputs = {output.name: output for output in _outputs(sample)}

    def metadata(self) -> dict[str, Any]:
        """Its tensors, for the metadata of a model."""
        return {"inputs": _inputs(self._features), "outputs": [one.described() for one in self._outputs.values()]}

    def schemas(self) -> list[dict[str, Any]]:
        """The JSON schemas of a request, with an example that works, and of the answer."""
        request, response = (TypeAdapter(kind).json_schema() for kind in (InferenceRequest, InferenceResponse))
        return [{**request, "example": {"inputs": list(_example(self._features))}}, response]

    def read(self, packed: bytes) -> Inference:
        """What a request asks for, of its packed body."""
        length, body = unpack(packed)
        try:
            return self._read(body[:length], memoryview(body)[length:])
        except Refused as error:
            return Inference(refused=error)

    def _read(self, text: bytes, binary: memoryview) -> Inference:
        try:
            request = self._adapter.validate_json(text)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)[:MOST_FAULTS]
            raise Refused(*map(_envelope_fault, faults)) from None
        wanted = self._wanted(request)
        given = tensors.read(request.inputs, binary)
        columns = self._columns(given)
        keys = None if KEYS in self._features else columns.pop(KEYS, None)
        cells = zip(*columns.values(), strict=True) if columns else [()] * given[0].shape[0]
        rows = [dict(zip(columns, row, strict=True)) for row in cells]
        asked = {"rows": rows, "keys": keys, "time": (request.parameters or {}).get("time")}
        return Inference(orjson.dumps(asked), request.id, wanted)

    def _wanted(self, request: InferenceRequest) -> list[tuple[Output, bool]]:
        """The outputs that are asked for, and whether each comes as bytes."""
        binary = _flag(request.parameters, "binary_data_output", None, default=False)
        if not request.outputs:
            return [(output, binary) for output in self._outputs.values()]
        wanted: dict[str, tuple[Output, bool]] = {}
        for asked in request.outputs:
            if asked.name not in self._outputs:
                problem = f"is no output of this model{did_you_mean(asked.name[:100], list(self._outputs))}"
                raise fault(None, asked.name, problem)
            if asked.name in wanted:
                raise fault(None, asked.name, "is asked for twice: name each output once")
            as_bytes = _flag(asked.parameters, "binary_data", asked.name, default=binary)
            wanted[asked.name] = self._outputs[asked.name], as_bytes
        return list(wanted.values())

    def _columns(self, given: list[Tensor]) -> dict[str, list[Any]]:
        """Feature, or `keys` → its values as JSON has them, None where missing."""
        matrix = self._matrix(given)
        if matrix is None and (faults := [*self._name_faults([tensor.name for tensor in given])]):
            raise Refused(*faults[:MOST_FAULTS])
        _check_rows(given, self._release.facts["max_rows"])
        columns: dict[str, list[Any]] = {}
        for tensor in given:
            columns |= self._split(tensor) if tensor is matrix else {tensor.name: self._column(tensor)}
        return columns

    def _matrix(self, given: list[Tensor]) -> Tensor | None:
        """The tensor that holds all features, where one does: of two dimensions, and called as no feature is."""
        own = [tensor for tensor in given if tensor.name != KEYS]
        is_matrix = len(own) == 1 and own[0].name not in self._features and len(own[0].shape) == 2
        return own[0] if is_matrix and own[0].datatype in NUMBERS else None

    def _name_faults(self, names: list[str]) -> Iterator[dict[str, Any]]:
        names_taken, counts = [*self._features, KEYS], Counter(names)
        for name in [name for name in counts if name not in names_taken][:MOST_FAULTS]:
            yield entry(None, name, f"is not known{did_you_mean(name[:100], names_taken)}")
        for name in names_taken:
            if counts[name] > 1:
                yield entry(None, name, "comes twice: send each tensor once")
        for name, feature in self._features.items():
            if name not in counts and not feature.get("nullable"):
                yield entry(None, name, f"is missing: send it as {_asked(feature)}")

    def _column(self, tensor: Tensor) -> list[Any]:
        """One value per row."""
        feature = self._features.get(tensor.name, {"type": "category"})  # a key is text too
        words, taken = TAKEN[feature["type"]]
        is_vector = feature["type"] == "vector" and not tensor.is_json_text
        width = feature["length"] if is_vector else 1
        if tensor.shape[1:] != [width] and (is_vector or tensor.shape[1:]):
            raise fault(None, tensor.name, f"has shape {tensor.shape}: send it as {_asked(feature)}")
        if tensor.is_json_text:
            return tensor.decoded()
        if tensor.datatype not in taken:
            raise fault(None, tensor.name, f"is {tensor.datatype}, but {words}: send it as {_asked(feature)}")
        return _cells(feature["type"], tensor.name, tensor.values(), width, is_binary=tensor.is_binary)

    def _split(self, tensor: Tensor) -> dict[str, list[Any]]:
        """The columns of a tensor of all features: in the order of params.yaml, a vector as its numbers."""
        if isinstance(self._width, str):
            problem = f"holds numbers, but {self._width} is none: send a tensor for each feature, by its name"
            raise fault(None, tensor.name, problem)
        if tensor.shape[1] != self._width:
            problem = f"has {tensor.shape[1]} columns, but a row is {self._width} numbers: {_listed(self._features)}"
            raise fault(None, tensor.name, problem)
        values, columns, at = tensor.values(), {}, 0
        for name, feature in self._features.items():
            width = _size(feature)
            starts = range(at, len(values), self._width)
            own = [value for start in starts for value in values[start : start + width]]
            columns[name] = _cells(feature["type"], name, own, width, is_binary=False)
            at += width
        return columns


def _cells(kind: str, name: str, values: list[Any], width: int, *, is_binary: bool) -> list[Any]:
    """The values of a feature, one per row, as a client would post them."""
    if kind == "vector":
        lists = [values[at : at + width] for at in range(0, len(values), width)]
        return [None if all(number is None for number in numbers) else numbers for numbers in lists]
    if kind == "boolean":
        return [_truth(name, row, value) for row, value in enumerate(values)]
    if is_binary and kind in ("category", "datetime"):
        return [value or None for value in values]  # bytes have no null, and neither of these may be an empty text
    return values


def _truth(name: str, row: int, value: Any) -> bool | None:
    if value is None:
        return None
    if value in (0, 1):
        return bool(value)
    raise fault(row, name, "is no truth value: send BOOL, or 0 and 1")


def _check_rows(given: list[Tensor], most: int) -> None:
    """All tensors have as many rows, not none and not too many."""
    if not given:
        raise fault(None, "inputs", "holds no tensor: send one for each feature, by its name")
    if not all(tensor.shape for tensor in given):
        name = next(tensor.name for tensor in given if not tensor.shape)
        raise fault(None, name, "has no dimension: send shape [rows]")
    number = given[0].shape[0]
    for tensor in given:
        if tensor.shape[0] != number:
            problem = f"has {tensor.shape[0]} rows, but {given[0].name} has {number}: send as many in each tensor"
            raise fault(None, tensor.name, problem)
    if not 0 < number <= most:
        raise fault(None, "rows", f"holds more than {most} rows" if number else "holds no row")


def _width(features: Features) -> int | str:
    """How many numbers a row is; or a feature that is none."""
    other = (name for name, feature in features.items() if feature["type"] in ("category", "text", "datetime"))
    return next(other, None) or sum(map(_size, features.values()))


def _size(feature: Mapping[str, Any]) -> int:
    return int(feature["length"]) if feature["type"] == "vector" else 1


def _asked(feature: Mapping[str, Any]) -> str:
    shape = f"[rows, {feature['length']}]" if feature["type"] == "vector" else "[rows]"
    return f"{OFFERED.get(feature['type'], 'FP64')} of shape {shape}"


def _listed(names: Iterable[str], most: int = 12) -> str:
    """Names, of many the first."""
    names = list(names)
    return ", ".join(names[:most]) + (f", … {len(names) - most} more" if len(names) > most else "")


def _flag(parameters: Parameters, name: str, tensor: str | None, *, default: bool) -> bool:
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise fault(None, tensor, f"the parameter {name} must be true or false")
    return value


def _inputs(features: Features) -> list[dict[str, Any]]:
    """The tensors that a model takes, as its metadata has them."""
    return [
        {
            "name": name,
            "datatype": OFFERED.get(feature["type"], "FP64"),
            "shape": [-1, feature["length"]] if feature["type"] == "vector" else [-1],
            "parameters": {"type": feature["type"], "nullable": bool(feature.get("nullable"))},
        }
        for name, feature in features.items()
    ]


def _example(features: Features) -> Iterator[dict[str, Any]]:
    """The tensors of one valid row."""
    for tensor, value in zip(_inputs(features), example_row(features).values(), strict=True):
        yield {
            "name": tensor["name"],
            "shape": [1, *tensor["shape"][1:]],
            "datatype": tensor["datatype"],
            "data": value if isinstance(value, list) else [value],
        }


# ── predictions to tensors ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Output:
    """A tensor of an answer."""

    name: str
    datatype: str
    of: Callable[[dict[str, Any]], Any]
    """Its value, or list of values, in one prediction."""
    width: list[int] = field(default_factory=list)
    """How many values a prediction has, where that is a list."""
    parameters: dict[str, Any] = field(default_factory=dict)

    def described(self, rows: int = -1) -> dict[str, Any]:
        """As metadata and answers have it."""
        own = {"parameters": self.parameters} if self.parameters else {}
        return {"name": self.name, "datatype": self.datatype, "shape": [rows, *self.width], **own}

    def values(self, predictions: list[dict[str, Any]]) -> list[Any]:
        """Row by row."""
        cells = [self.of(prediction) for prediction in predictions]
        return [value for cell in cells for value in cell] if self.width else cells

    def as_bytes(self, values: list[Any]) -> bytes:
        """As the binary extension has them."""
        if self.datatype != "BYTES":
            return np.array(values, dtype=tensors.DATATYPES[self.datatype]).tobytes()
        return b"".join(ELEMENT.pack(len(text)) + text for text in map(str.encode, values))


def _outputs(sample: dict[str, Any]) -> Iterator[Output]:
    """What predictions are like this one: a tensor for each value, and one for the probabilities of all classes."""
    for name, value in sample.items():
        if name != "unseen":
            yield from _tensors(name, value, [name])
    unseen = Output("unseen", "BYTES", lambda one: orjson.dumps(one.get("unseen", [])).decode())
    yield replace(unseen, parameters={"content_type": PANDAS_JSON})


def _tensors(name: str, value: Any, path: list[str]) -> Iterator[Output]:
    if isinstance(value, dict) and path[0] == "probabilities" and not any(isinstance(p, dict) for p in value.values()):
        classes = orjson.dumps(list(value)).decode()
        of = partial(_numbers, path)
        yield Output(name, "FP64", of, [len(value)], {"classes": classes})
    elif isinstance(value, dict):
        for part, own in value.items():
            yield from _tensors(f"{name}.{part}", own, [*path, part])
    else:
        datatype = {bool: "BOOL", int: "INT64", float: "FP64"}.get(type(value), "BYTES")
        yield Output(name, datatype, partial(_at, path), [], {"content_type": "str"} if datatype == "BYTES" else {})


def _at(path: list[str], prediction: dict[str, Any]) -> Any:
    value: Any = prediction
    for part in path:
        value = value[part]
    return value


def _numbers(path: list[str], prediction: dict[str, Any]) -> list[float]:
    return list(_at(path, prediction).values())


@dataclass(frozen=True)
class Inference:
    """What a request asks for."""

    rows: bytes = b""
    """The body of a request for predictions; of a refused one none, which is refused there too."""
    id: str | None = None
    wanted: list[tuple[Output, bool]] = field(default_factory=list)
    """Outputs, and whether each comes as bytes."""
    refused: Refused | None = None
    """What is wrong with which tensor, and how to do better."""

    def respond(self, answer: Answer) -> Answer:
        """The answer to the request for predictions, as tensors, and packed."""
        return replace(answer, body=pack(*self._body(answer)))

    def _body(self, answer: Answer) -> tuple[int, bytes]:
        """How many bytes of the answer are JSON, and all of it."""
        if answer.status != 200:
            body = refusal(self.refused) if self.refused else with_text(answer.body)
            return len(body), body
        content = orjson.loads(answer.body)
        predictions, outputs, binary = content["predictions"], [], []
        for output, as_bytes in self.wanted:
            values, tensor = output.values(predictions), output.described(len(predictions))
            if as_bytes:
                binary.append(output.as_bytes(values))
                tensor["parameters"] = {**output.parameters, "binary_data_size": len(binary[-1])}
            else:
                tensor["data"] = values
            outputs.append(tensor)
        head = {"model_name": content["model"], "model_version": content["version"]}
        head |= {} if self.id is None else {"id": self.id}
        body = orjson.dumps({**head, "parameters": {"release": content["release"]}, "outputs": outputs})
        return len(body), b"".join([body, *binary])


# ── faults ────────────────────────────────────────────────────────────────────────────────────────


def _envelope_fault(error: Any) -> dict[str, Any]:
    """A fault of the JSON around the tensors; nothing of what it held."""
    place = [str(part) for part in error["loc"]]
    kinds: dict[str, type[BaseModel]] = {"inputs": RequestInput, "outputs": RequestOutput}
    fields = (kinds.get(place[0], InferenceRequest) if len(place) > 1 else InferenceRequest).model_fields
    problem = {
        "missing": "is missing",
        "extra_forbidden": f"is not known{did_you_mean(place[-1][:100] if place else '', list(fields))}",
        "json_invalid": f"the body is not JSON: {error['msg'].removeprefix('Invalid JSON: ')}",
    }.get(error["type"], error["msg"])
    return entry(None, ".".join(place) or None, problem)
