"""What a release answers: the bodies of requests in, the bodies of answers out, without a server.

The replica that the router asks (replica.py) and the service that BentoML serves (bento_service.py)
both answer through this. It is copied into each release, so that an old release answers as it always did.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import traceback
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from tasks.runtime import fast_trees, model_file, shapley
from tasks.runtime.errors import did_you_mean
from tasks.runtime.ordinal_codes import Codes
from tasks.runtime.request_schema import example_row, request_row

MOST_FAULTS, LONGEST_NAME = 100, 100  # that one answer tells of
MOST_READ = 10_000
"""Faults of one request that are looked at: pydantic takes seconds, and a gigabyte, to tell of a million."""
LONGEST = 200
"""Characters of a key."""

AHEAD, AHEAD_S = "EVERGREEN_MAX_AHEAD_S", 300.0
"""The setting, and its default: so far may the `time` of a request be ahead of the clock here. Clocks differ by less;
what is further ahead is a mistake that monitoring would take for the newest day until that day comes."""


@dataclass(frozen=True)
class Answer:
    """What is answered to one request."""

    status: int
    body: bytes
    logged: bytes = b""
    """What the prediction log keeps of it: `"ids":[…],"keys":[…],"rows":[…],"predictions":[…]`, without the braces."""
    time: datetime | None = None
    """When the client says that it was asked, if not now."""


@dataclass(frozen=True)
class About:
    """What is known of a release without loading its model: release.json, and what that makes of a request."""

    facts: dict[str, Any]
    candidate: str
    features: dict[str, dict[str, Any]]
    rows: type[BaseModel]
    """The body of a request for predictions."""
    row: type[BaseModel]
    """The body of a request for an explanation."""

    @classmethod
    def read(cls, folder: Path) -> About:
        """Read it from a release's folder."""
        facts = json.loads((folder / "release.json").read_text(encoding="utf-8"))
        candidate = json.loads((folder / "candidate.json").read_text(encoding="utf-8"))["candidate"]
        features = {name: facts["features"][name] for name in facts["columns"]}
        one, example = request_row(features), example_row(features)
        several: Any = Annotated[list[one], Field(min_length=1, max_length=facts["max_rows"])]  # type: ignore[valid-type]
        called: Any = Annotated[list[_Key], Field(max_length=facts["max_rows"])] | None
        return cls(
            facts,
            candidate,
            features,
            create_model(
                "PredictRequest",
                __config__=_only({"rows": [example]}),
                rows=(several, ...),
                keys=(
                    called,
                    Field(None, description="what you call each of the rows: its label is found by it later"),
                ),
                time=(_Time, Field(None, description="when it was asked, if that was not now: buffered, or replayed")),
            ),
            create_model("ExplainRequest", __config__=_only({"row": example}), row=(one, ...)),
        )

    @property
    def name(self) -> str:
        """The model's name."""
        name: str = self.facts["name"]
        return name

    @property
    def tag(self) -> str:
        """The release's name."""
        return f"{self.name}:{self.candidate}"

    def described(self) -> dict[str, Any]:
        """Where it comes from: what `GET …/release` answers."""
        return {"candidate": self.candidate, "release": self.tag, **self.facts}

    def schemas(self) -> dict[str, Any]:
        """Kind of request → the JSON schemas of what is asked and what is answered."""
        kinds: dict[str, list[Any]] = {"predict": [self.rows, Predictions], "explain": [self.row, Explained]}
        return {kind: [TypeAdapter(model).json_schema() for model in both] for kind, both in kinds.items()}


_Key = Annotated[str, Field(min_length=1, max_length=LONGEST)]
_Time = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(2262, 1, 1, tzinfo=UTC))] | None
"""As far as a table counts nanoseconds; and no further than UTC can say what another zone calls the year 1 or 9999."""


def _only(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, json_schema_extra={"example": example})


class Release:
    """A release whose model is loaded and warm.

    Args:
        folder: release.json, candidate.json, background.json and model.skops are in it.
        version: the number that the registry gave it, if it is known; else it answers by its candidate.

    Raises:
        ModelFileRefused: the model file is missing, was changed, or holds what is not on the reviewed list.
    """

    def __init__(self, folder: Path, version: str | None = None) -> None:
        self.about = About.read(folder)
        self.facts, self.features = self.about.facts, self.about.features
        self.head = {"model": self.about.name, "version": version or self.about.candidate, "release": self.about.tag}
        self.categories = [name for name, feature in self.features.items() if feature["type"] == "category"]
        self.known = {
            name: frozenset([*held, None]) for name, held in self.facts["categories"].items()
        }  # null: missing
        self.ahead = float(os.environ.get(AHEAD) or AHEAD_S)
        self.edges: list[float] = self.facts["prediction_edges"]
        self.counts = [0] * (len(self.edges) + 1)
        """How many predictions lay below the first edge, between two, and above the last."""
        self.unseen: dict[str, int] = {}
        """Feature → how many rows had a category that the model was never trained on."""
        self.background = json.loads((folder / "background.json").read_text(encoding="utf-8"))
        self._asked = {"predict": TypeAdapter(self.about.rows), "explain": TypeAdapter(self.about.row)}
        self._fields = {"predict": list(self.about.rows.model_fields), "explain": list(self.about.row.model_fields)}
        own = f"models.{self.about.name}"
        self.pipeline = model_file.load(folder / "model.skops", self.facts["model_sha256"], own=own)
        usual = {name: [row[name] for row in self.background[: fast_trees.MOST_ROWS]] for name in self.features}
        fast_trees.hasten(self.pipeline, lambda: self._values(usual))
        example = self._read("predict", orjson.dumps({"rows": [example_row(self.features)]}))
        self._said(example, self._columns([example.rows])[0], counted=False)  # everything is imported

    # ── predict ───────────────────────────────────────────────────────────────────────────────────

    def predict(self, bodies: list[bytes], *, counted: bool = True) -> list[Answer]:
        """Answer requests for predictions; all their rows are scored as one batch."""
        read = [self._read("predict", body) for body in bodies]
        asked = [one.rows for one in read if not isinstance(one, Answer)]
        scored = iter(self._score(asked))
        return [one if isinstance(one, Answer) else self._said(one, next(scored), counted) for one in read]

    def _read(self, kind: str, body: bytes) -> Any:
        try:
            read: Any = self._asked[kind].validate_json(body)
        except ValidationError as error:
            return Answer(400, orjson.dumps(self._refusal(kind, error)))
        if kind == "predict" and read.keys is not None and len(read.keys) != len(read.rows):
            return _refused("keys", f"{len(read.keys)} keys for {len(read.rows)} rows")
        if kind == "predict" and read.time is not None and (read.time - datetime.now(UTC)).total_seconds() > self.ahead:
            return _refused("time", f"is more than {self.ahead:g} s ahead of the clock here ({AHEAD})")
        return read

    def _score(self, requests: list[list[BaseModel]]) -> list[list[list[float]] | Answer]:
        """The prediction columns of every row of every request; of one that the pipeline fails on, what is answered."""
        if not requests:
            return []
        try:
            return [*self._columns(requests)]
        except Exception as error:  # noqa: BLE001 - as in _score
            if len(requests) > 1:  # the others of the batch shall not suffer for it
                return [one for request in requests for one in self._score([request])]
            return [_failure(error)]

    def _columns(self, requests: list[list[BaseModel]]) -> list[list[list[float]]]:
        rows = [row.__dict__ for row in chain.from_iterable(requests)]
        values = self._values({name: [row[name] for row in rows] for name in self.features}).tolist()
        ends = np.cumsum([len(request) for request in requests]).tolist()
        return [values[end - len(request) : end] for request, end in zip(requests, ends, strict=True)]

    def _values(self, columns: dict[str, Any]) -> npt.NDArray[np.float64]:
        """Score columns: without a DataFrame where the pipeline's first step can do without."""
        if isinstance(self.pipeline[0], Codes):
            return model_file.values(self.pipeline, columns, self.facts["task"])
        import pandas as pd

        typed = {
            name: pd.array(list(column), dtype="str") if name in self.categories else np.array(column, dtype=np.float64)
            for name, column in columns.items()
        }
        return model_file.values(self.pipeline, pd.DataFrame(typed), self.facts["task"])

    def _said(self, asked: Any, values: list[list[float]] | Answer, counted: bool) -> Answer:
        if isinstance(values, Answer):
            return values
        given = [row.__dict__ for row in asked.rows]
        said = [self._tell(row, scored, counted) for row, scored in zip(given, values, strict=True)]
        ids = [new_id() for _ in said]
        answers = [{"id": name, **one} for name, one in zip(ids, said, strict=True)]
        logged = orjson.dumps({"ids": ids, "keys": asked.keys, "rows": given, "predictions": said}, option=_KEYS)[1:-1]
        return Answer(200, orjson.dumps({**self.head, "predictions": answers}, option=_KEYS), logged, asked.time)

    def _tell(self, row: dict[str, Any], values: list[float], counted: bool) -> dict[str, Any]:
        """One row's prediction columns as the answer tells them."""
        if self.facts["task"] == "regression":
            told: dict[str, Any] = dict(zip(("prediction", "low", "high"), values, strict=False))
            shown = values[0]
        else:
            classes = self.facts["classes"]
            shown = max(values)
            told = {"prediction": classes[values.index(shown)]}
            if len(classes) == 2:
                told["probability"] = shown = values[1]
            told["probabilities"] = dict(zip(map(str, classes), values, strict=True))
        unseen = [name for name, known in self.known.items() if row[name] not in known]
        if unseen:
            told["unseen"] = unseen
        if counted:
            self.counts[bisect_left(self.edges, shown)] += 1
            for name in unseen:
                self.unseen[name] = self.unseen.get(name, 0) + 1
        return told

    # ── explain ───────────────────────────────────────────────────────────────────────────────────

    def explain(self, body: bytes) -> Answer:
        """Answer a request for an explanation of one row."""
        read = self._read("explain", body)
        if isinstance(read, Answer):
            return read
        row = read.row.__dict__
        try:
            own = self._values({name: [value] for name, value in row.items()})[0].tolist()
            of, column = self._explained(own)
            found = shapley.explain(lambda columns: self._values(columns)[:, column], row, self.background)
        except Exception as error:  # noqa: BLE001 - as in _score
            return _failure(error)
        ranked = sorted(row, key=lambda name: -abs(found.contributions[name]))
        moved, errors = found.contributions, found.errors
        told = [{"feature": f, "value": row[f], "contribution": moved[f], "error": errors[f]} for f in ranked]
        said = {"of": of, "base": found.base, "value": own[column], "contributions": told}
        return Answer(200, orjson.dumps({**self.head, **said}, option=_KEYS))

    def _explained(self, values: list[float]) -> tuple[str, int]:
        """What is explained: the expected value, or the probability of the second of two classes, or of the top."""
        if self.facts["task"] == "regression":
            return "prediction", 0
        column = 1 if len(values) == 2 else values.index(max(values))
        return f"probability of {self.facts['classes'][column]}", column

    # ── refuse ────────────────────────────────────────────────────────────────────────────────────

    def _refusal(self, kind: str, error: ValidationError) -> dict[str, Any]:
        """What is wrong with a body, by row (counted from 0) and field; nothing of what it held."""
        number = error.error_count()
        said = {"error": _REFUSED.format(number, "fault" if number == 1 else "faults")}
        if number > MOST_READ:
            problem = "so many faults are not told one by one: ask with fewer rows"
            return {**said, "detail": [{"row": None, "field": None, "problem": problem}]}
        faults = error.errors(include_url=False, include_input=False)[:MOST_FAULTS]
        return {**said, "detail": [self._fault(kind, fault) for fault in faults]}

    def _fault(self, kind: str, fault: Any) -> dict[str, Any]:
        """One fault, said for a person; its place is (), (key, …), ("rows", row, field), or ("row", field)."""
        place: list[Any] = [*fault["loc"], None, None, None]
        first, deeper = place[0], place[1:]
        if first == "row" and deeper[0] is not None:
            deeper = [0, *deeper]
        row = deeper[0] if first in ("rows", "row", "keys") else None
        name = first if row is None or first == "keys" else deeper[1]
        known = list(self.features) if row is not None else [f for f in self._fields[kind] if f != first]
        said = None if name is None else str(name)[:LONGEST_NAME]
        problem = {
            "missing": "is missing",
            "too_short": "holds no row",
            "too_long": f"holds more than {self.facts['max_rows']} {'keys' if first == 'keys' else 'rows'}",
            "extra_forbidden": f"is not known{did_you_mean(said or '', known)}",
            "json_invalid": f"the body is not JSON: {fault['msg'].removeprefix('Invalid JSON: ')}",
        }.get(fault["type"], fault["msg"])
        return {"row": row, "field": said, "problem": problem}


_KEYS = orjson.OPT_NON_STR_KEYS

_REFUSED = "refused, nothing was predicted: {} {}"


def _refused(field: str, problem: str) -> Answer:
    """A request whose rows are right, and something else is not."""
    detail = [{"row": None, "field": field, "problem": problem}]
    return Answer(400, orjson.dumps({"error": _REFUSED.format(1, "fault"), "detail": detail}))


def _failure(error: Exception) -> Answer:
    """The model fails on a request. Where it did is told to who runs it; what was asked is told to nobody."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    kind = type(error).__name__
    print(f"the model fails on a request: {kind} in {frame.filename}:{frame.lineno}", file=sys.stderr, flush=True)
    return Answer(500, orjson.dumps({"error": f"the model fails on this request ({kind}); nothing was predicted"}))


class Prediction(BaseModel):
    """The answer to one row."""

    id: str = Field(description="names this prediction for ever; ids made later sort later")
    prediction: Any = Field(description="the most probable class, or the expected value")
    probability: float | None = Field(None, description="two classes: that of the second one, 'yes'")
    probabilities: dict[str, float] | None = Field(None, description="classification: of every class")
    low: float | None = Field(None, description="regression with quantiles: one in ten is below")
    high: float | None = Field(None, description="regression with quantiles: one in ten is above")
    unseen: list[str] | None = Field(None, description="the features whose category the model was never trained on")


class Head(BaseModel):
    """Who answered."""

    model: str
    version: str = Field(description="the number in the registry; of a release that is served alone, its candidate")
    release: str


class Predictions(Head):
    """The answers to all rows, in their order."""

    predictions: list[Prediction]


class Contribution(BaseModel):
    """How far one feature moved the prediction."""

    feature: str
    value: Any
    contribution: float
    error: float | None = Field(description="standard error of the contribution, which is sampled")


class Explained(Head):
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
