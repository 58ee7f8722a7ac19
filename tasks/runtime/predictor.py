"""Predictor: bodies of requests in, bodies of answers out, without a server.

The replica that the router asks (replica.py) and the service that BentoML serves (bento_service.py) both answer through
this. It is copied into each release, so that an old release answers as it always did.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
import traceback
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter, ValidationError, create_model

from tasks.runtime import answers, fast_trees, feature_types, model_file, shapley
from tasks.runtime.conformal import Conformal
from tasks.runtime.errors import did_you_mean
from tasks.runtime.ordinal_codes import Codes
from tasks.runtime.request_schema import AHEAD, example_row, max_ahead_s, request_row, strict

MOST_FAULTS, LONGEST_NAME = 100, 100  # in one answer
MOST_READ = 10_000
"""Faults of one request that are looked at: for a million of them pydantic takes seconds, and a gigabyte."""
LONGEST_KEY = 200
"""Characters."""
LONGEST_SHOWN = 100
"""Characters of a text in its explanation."""


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    status: int
    body: bytes
    logged: bytes = b""
    """For the prediction log: `"ids":[…],"keys":[…],"rows":[…],"predictions":[…]`, without the braces."""
    time: datetime | None = None
    """When the client says that it asked, if not now."""


Key = Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)]
Time = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(2262, 1, 1, tzinfo=UTC))] | None
"""As far as a table counts nanoseconds; and no further than UTC can express another zone's year 1 or 9999."""


@dataclass(frozen=True)
class ReleaseInfo:
    """A release without its model: release.json, and the requests that follow from it."""

    facts: dict[str, Any]
    name: str
    """The model's."""
    candidate: str
    features: dict[str, dict[str, Any]]
    rows: type[BaseModel]
    """The body of a request for predictions."""
    row: type[BaseModel]
    """The body of a request for an explanation."""

    @classmethod
    def read(cls, folder: Path) -> ReleaseInfo:
        """Read it from a release's folder."""
        facts = json.loads((folder / "release.json").read_text(encoding="utf-8"))
        candidate = json.loads((folder / "candidate.json").read_text(encoding="utf-8"))["candidate"]
        features = {name: facts["features"][name] for name in facts["columns"]}
        row, example, most = request_row(features), example_row(features), facts["max_rows"]
        rows: Any = Annotated[list[row], Field(min_length=1, max_length=most)]  # type: ignore[valid-type]
        keys: Any = Annotated[list[Key], Field(max_length=most)] | None
        key_about = "what you call each of the rows: its label is found by it later"
        time_about = "when it was asked, if that was not now: buffered, or replayed"
        predict = create_model(
            "PredictRequest",
            __config__=strict({"rows": [example]}),
            rows=(rows, ...),
            keys=(keys, Field(None, description=key_about)),
            time=(Time, Field(None, description=time_about)),
        )
        outputs, asked = facts.get("outputs") or [], {"row": example}
        of_output: dict[str, Any] = {}
        if outputs:  # of several labels one is explained
            asked["output"] = outputs[0]
            of_output["output"] = (Literal[*outputs], Field(description="the label whose answer is explained"))
        explain = create_model("ExplainRequest", __config__=strict(asked), row=(row, ...), **of_output)
        return cls(facts, facts["name"], candidate, features, predict, explain)

    @property
    def tag(self) -> str:
        """The release's name."""
        return f"{self.name}:{self.candidate}"

    def described(self) -> dict[str, Any]:
        """Where it comes from: the answer to `GET …/release`."""
        return {"candidate": self.candidate, "release": self.tag, **self.facts}

    def schemas(self) -> dict[str, Any]:
        """Kind of request → the JSON schemas of the request and of the answer."""
        pairs: dict[str, list[Any]] = {"predict": [self.rows, PredictResponse], "explain": [self.row, ExplainResponse]}
        return {kind: [TypeAdapter(model).json_schema() for model in pair] for kind, pair in pairs.items()}


class Predictor:
    """A release whose model is loaded and warm.

    Args:
        folder: holds release.json, candidate.json, background.json and model.skops.
        version: the release's number in the registry; without it, it answers by its candidate.

    Raises:
        ModelFileRefused: the model file is missing, was changed, or holds a type that was not reviewed.
    """

    def __init__(self, folder: Path, version: str | None = None) -> None:
        self.release = ReleaseInfo.read(folder)
        facts, self.features = self.release.facts, self.release.features
        self._head = {"model": self.release.name, "version": version or self.release.candidate}
        self._head["release"] = self.release.tag
        self._players = feature_types.players(self.features)
        self._hashed = feature_types.hashed_texts(self.features)
        self._texts = {name for name, feature in self.features.items() if feature["type"] == "text"}
        self._seen = {name: frozenset([*values, None]) for name, values in facts["categories"].items()}  # null: missing
        self._ahead_s = max_ahead_s()
        self.edges: list[float] = facts["prediction_edges"]
        self.counts = [0] * (len(self.edges) + 1)
        """How many predictions lay below the first edge, between two, and above the last."""
        self.unseen: dict[str, int] = {}
        """Feature → how many rows had a category that the model was never trained on."""
        self.background = json.loads((folder / "background.json").read_text(encoding="utf-8"))
        self._requests = {"predict": TypeAdapter(self.release.rows), "explain": TypeAdapter(self.release.row)}
        package = f"models.{self.release.name}"
        self.pipeline = model_file.load(folder / "model.skops", facts["model_sha256"], own=package)
        self._answers = answers.of(facts["task"], self.pipeline, facts["decision"], facts.get("classes"))
        plain = {feature["type"] for feature in self.features.values()} <= {"category", "integer", "number", "boolean"}
        first = self.pipeline[0]
        is_encoder = isinstance(first.pipeline[0] if isinstance(first, Conformal) else first, Codes)
        self._takes_columns = plain and is_encoder  # it can do without a DataFrame
        usual = {name: [row[name] for row in self.background[: fast_trees.MOST_ROWS]] for name in self.features}
        fast_trees.accelerate(self.pipeline, lambda: self._score(usual))
        example = self._parse("predict", orjson.dumps({"rows": [example_row(self.features)]}))
        self._respond(example, self._score_requests([example.rows])[0], counted=False)  # imports everything

    # ── predict ───────────────────────────────────────────────────────────────────────────────────

    def predict(self, bodies: list[bytes], *, counted: bool = True) -> list[Answer]:
        """Answer requests for predictions; all their rows are scored as one batch."""
        requests = [self._parse("predict", body) for body in bodies]
        scores = iter(self._score_or_fail([request.rows for request in requests if not isinstance(request, Answer)]))
        return [
            request if isinstance(request, Answer) else self._respond(request, next(scores), counted)
            for request in requests
        ]

    def _parse(self, kind: str, body: bytes) -> Any:
        """The request, or the answer that refuses it."""
        try:
            request: Any = self._requests[kind].validate_json(body)
        except ValidationError as error:
            return _refuse(*self._faults(kind, error))
        if kind == "explain":
            return request
        if request.keys is not None and len(request.keys) != len(request.rows):
            return _refuse(1, [_fault(None, "keys", f"{len(request.keys)} keys for {len(request.rows)} rows")])
        if request.time is not None and (request.time - datetime.now(UTC)).total_seconds() > self._ahead_s:
            problem = f"is more than {self._ahead_s:g} s ahead of the clock here ({AHEAD})"
            return _refuse(1, [_fault(None, "time", problem)])
        return request

    def _score_or_fail(self, requests: list[list[BaseModel]]) -> list[list[list[float]] | Answer]:
        """The scores of each row of each request; for a request that the pipeline fails on, its answer."""
        if not requests:
            return []
        try:
            return [*self._score_requests(requests)]
        except Exception as error:  # noqa: BLE001 - a team's own code may raise anything
            if len(requests) > 1:  # the others of the batch shall not suffer for it
                return [scores for request in requests for scores in self._score_or_fail([request])]
            return [_failure(error)]

    def _score_requests(self, requests: list[list[BaseModel]]) -> list[list[list[float]]]:
        rows = [row.__dict__ for row in chain.from_iterable(requests)]
        scores = self._decided({name: [row[name] for row in rows] for name in self.features}).tolist()
        ends = np.cumsum([len(request) for request in requests]).tolist()
        return [scores[end - len(request) : end] for request, end in zip(requests, ends, strict=True)]

    def _decided(self, columns: dict[str, Any]) -> npt.NDArray[np.float64]:
        """The scores of a column of values per feature, and what is decided for, where scores do not tell it."""
        return self._answers.decided(self.pipeline, self._taken(columns))

    def _score(self, columns: dict[str, Any]) -> npt.NDArray[np.float64]:
        """Score a column of values per feature."""
        return self._answers.values(self.pipeline, self._taken(columns))

    def _score_table(self, columns: dict[str, Any]) -> npt.NDArray[np.float64]:
        """As `_score`, by the columns of the table."""
        taken = columns if self._takes_columns else feature_types.table(columns, self.features)
        return self._answers.values(self.pipeline, taken)

    def _taken(self, columns: dict[str, Any]) -> Any:
        """Columns as the pipeline takes them: without a DataFrame where its first step can do without."""
        return columns if self._takes_columns else feature_types.frame(columns, self.features)

    def _respond(self, request: Any, scores: list[list[float]] | Answer, counted: bool) -> Answer:
        if isinstance(scores, Answer):
            return scores
        rows = [row.__dict__ for row in request.rows]
        try:
            predictions = [self._prediction(row, own, counted) for row, own in zip(rows, scores, strict=True)]
        except FloatingPointError as error:
            return _failure(error)
        ids = [new_id() for _ in predictions]
        named = [{"id": name, **prediction} for name, prediction in zip(ids, predictions, strict=True)]
        kept = [feature_types.for_log(row, self._hashed) for row in rows] if self._hashed else rows
        logged = {"ids": ids, "keys": request.keys, "rows": kept, "predictions": predictions}
        body = orjson.dumps({**self._head, "predictions": named}, option=_KEYS)
        return Answer(200, body, orjson.dumps(logged, option=_KEYS)[1:-1], request.time)

    def _prediction(self, row: dict[str, Any], scores: list[float], counted: bool) -> dict[str, Any]:
        """One row's prediction."""
        prediction, main = self._answers.answer(scores)
        if main - main:  # of NaN and of infinity this is NaN, which is true
            raise FloatingPointError("the model answers NaN or infinity")
        if unseen := [name for name, seen in self._seen.items() if row[name] not in seen]:
            prediction["unseen"] = unseen
        if counted:
            self.counts[bisect_left(self.edges, main)] += 1
            for name in unseen:
                self.unseen[name] = self.unseen.get(name, 0) + 1
        return prediction

    # ── explain ───────────────────────────────────────────────────────────────────────────────────

    def explain(self, body: bytes) -> Answer:
        """Answer a request for an explanation of one row."""
        request = self._parse("explain", body)
        if isinstance(request, Answer):
            return request
        row = request.row.__dict__
        try:
            scores = self._decided({name: [value] for name, value in row.items()})[0].tolist()
            target, column = self._answers.explained(scores, getattr(request, "output", None))
            explanation = shapley.explain(
                lambda columns: self._score_table(columns)[:, column],
                feature_types.flat(row, self.features),
                [feature_types.flat(usual, self.features) for usual in self.background],
                players=self._players,
            )
        except Exception as error:  # noqa: BLE001 - as in _score_or_fail
            return _failure(error)
        moved, errors = explanation.contributions, explanation.errors
        contributions = [
            {"feature": name, "value": self._shown(row, name), "contribution": moved[name], "error": errors[name]}
            for name in sorted(moved, key=lambda name: -abs(moved[name]))
        ]
        result = {"of": target, "base": explanation.base, "value": scores[column], "contributions": contributions}
        return Answer(200, orjson.dumps({**self._head, **result}, option=_KEYS))

    def _shown(self, row: dict[str, Any], name: str) -> Any:
        """The value that contributes: of a long text its beginning, of a vector or several features null."""
        value = row.get(name)
        if name in self._texts and isinstance(value, str) and len(value) > LONGEST_SHOWN:
            return f"{value[:LONGEST_SHOWN]}…"
        return None if isinstance(value, list) else value

    # ── refuse ────────────────────────────────────────────────────────────────────────────────────

    def _faults(self, kind: str, error: ValidationError) -> tuple[int, list[dict[str, Any]]]:
        """How many faults a body has, and each by row (counted from 0) and field; nothing of what it held."""
        number = error.error_count()
        if number > MOST_READ:
            return number, [_fault(None, None, "so many faults are not listed one by one: ask with fewer rows")]
        faults = error.errors(include_url=False, include_input=False)[:MOST_FAULTS]
        return number, [self._described(kind, fault) for fault in faults]

    def _described(self, kind: str, fault: Any) -> dict[str, Any]:
        """One fault, for a person; its place is (), (key, …), ("rows", row, field), or ("row", field)."""
        place: list[Any] = [*fault["loc"], None, None, None]
        first, deeper = place[0], place[1:]
        if first == "row" and deeper[0] is not None:
            deeper = [0, *deeper]
        row = deeper[0] if first in ("rows", "row", "keys") else None
        name = first if row is None or first == "keys" else deeper[1]
        field = None if name is None else str(name)[:LONGEST_NAME]
        in_vector = row is not None and first != "keys" and name in self.features
        body = self.release.rows if kind == "predict" else self.release.row
        alternatives = list(self.features) if row is not None else [f for f in body.model_fields if f != first]
        problem = {
            "missing": "is missing",
            **({} if in_vector else self._of_lists(first)),
            "extra_forbidden": f"is not known{did_you_mean(field or '', alternatives)}",
            "json_invalid": f"the body is not JSON: {fault['msg'].removeprefix('Invalid JSON: ')}",
        }.get(fault["type"], fault["msg"])
        if in_vector and isinstance(number := deeper[2] if len(deeper) > 2 else None, int):
            problem = f"its number {number}: {problem}"
        return _fault(row, field, problem)

    def _of_lists(self, first: Any) -> dict[str, str]:
        """Faults of the lists of rows and of keys."""
        what = "keys" if first == "keys" else "rows"
        return {"too_short": "holds no row", "too_long": f"holds more than {self.release.facts['max_rows']} {what}"}


_KEYS = orjson.OPT_NON_STR_KEYS


def _fault(row: int | None, field: str | None, problem: str) -> dict[str, Any]:
    return {"row": row, "field": field, "problem": problem}


def _refuse(number: int, detail: list[dict[str, Any]]) -> Answer:
    message = f"refused, nothing was predicted: {number} {'fault' if number == 1 else 'faults'}"
    return Answer(400, orjson.dumps({"error": message, "detail": detail}))


def _failure(error: Exception) -> Answer:
    """The model fails on a request. The operator learns where, from the log; neither learns what the request held."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    kind = type(error).__name__ + (f": {error.name}" if isinstance(error, ModuleNotFoundError) else "")
    print(f"the model fails on a request: {kind} in {frame.filename}:{frame.lineno}", file=sys.stderr, flush=True)
    return Answer(500, orjson.dumps({"error": f"the model fails on this request ({kind}); nothing was predicted"}))


class Prediction(BaseModel):
    """The answer to one row."""

    id: str = Field(description="names this prediction for ever; ids made later sort later")
    prediction: Any = Field(
        description="the class that is decided for, the expected value, or 1: an anomaly; of several labels, each"
    )
    probability: float | None = Field(None, description="two classes: that of the second one, 'yes'")
    probabilities: dict[str, float] | dict[str, dict[str, float]] | None = Field(
        None, description="classification: of every class; of several labels, of each by its name"
    )
    low: float | None = Field(None, description="regression with quantiles: one in ten is below")
    high: float | None = Field(None, description="regression with quantiles: one in ten is above")
    score: float | None = Field(None, description="anomaly: higher is stranger, above 0 is an alert")
    unseen: list[str] | None = Field(None, description="the features whose category the model was never trained on")


class ResponseHead(BaseModel):
    """Which release answered."""

    model: str
    version: str = Field(description="the number in the registry; of a release that is served alone, its candidate")
    release: str


class PredictResponse(ResponseHead):
    """The answers to all rows, in their order."""

    predictions: list[Prediction]


class Contribution(BaseModel):
    """How far one feature moved the prediction."""

    feature: str = Field(description="or several, where there are more than 64: `pixel_0 … pixel_12`, or their group")
    value: Any = Field(description="of a vector, and of several features, null")
    contribution: float
    error: float | None = Field(description="standard error of the contribution, which is sampled")


class ExplainResponse(ResponseHead):
    """What one prediction is made of: `base` and all contributions add up to `value`."""

    of: str = Field(description="which number is explained")
    base: float = Field(description="its mean over the background rows, which were drawn from the training rows")
    value: float
    contributions: list[Contribution] = Field(description="largest first")


def new_id() -> str:
    """A UUID of version 7 (RFC 9562) in hex: 48 bits of milliseconds, then chance."""
    chance = secrets.randbits(74)
    head = (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | (chance >> 62) << 64
    return f"{head | 0b10 << 62 | chance & (1 << 62) - 1:032x}"
