"""The service of one release: what a Bento runs. It reads release.json, candidate.json and model.skops beside itself.

Everything it imports of this repository is copied into the Bento with it (tasks/release/package.py).
"""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import bentoml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tasks.errors import did_you_mean
from tasks.schema import example_row, request_row

if TYPE_CHECKING:
    import pandas as pd
    from pydantic_core import ErrorDetails

# OpenMP's threads spin while they wait: one per process answers sooner than two that share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).resolve().parent
RELEASE: dict[str, Any] = json.loads((HERE / "release.json").read_text(encoding="utf-8"))
CANDIDATE: str = json.loads((HERE / "candidate.json").read_text(encoding="utf-8"))["candidate"]
NAME: str = RELEASE["name"]
FEATURES: dict[str, dict[str, Any]] = RELEASE["features"]
KNOWN: dict[str, frozenset[str]] = {name: frozenset(values) for name, values in RELEASE["categories"].items()}
MOST_FAULTS = 100  # that one answer tells of


# ── what is asked ─────────────────────────────────────────────────────────────────────────────────


class _Rows(bentoml.IODescriptor):
    """The body of a request. A body that is refused becomes a Refusal, so that BentoML does not log what it held."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"rows": [example_row(FEATURES)]}})
    rows: Any

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> _Rows:
        try:
            return cls.model_validate_json(await request.body())
        except ValidationError as error:
            return cls.model_construct(rows=Refusal(error))

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super().model_json_schema(*args, **{"schema_generator": _OpenApi3, **kwargs})


class _OpenApi3(GenerateJsonSchema):
    """`nullable: true`, as OpenAPI 3.0 has it, which knows no type null."""

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        return {**self.generate_inner(schema["schema"]), "nullable": True}


class Refusal:
    """What is wrong with a body, by row (counted from 0) and field; nothing of what it held."""

    def __init__(self, error: ValidationError) -> None:
        faults = error.errors(include_url=False, include_input=False)
        self.said = {
            "error": f"refused: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}; nothing was predicted",
            "detail": [self._fault(fault) for fault in faults[:MOST_FAULTS]],
        }

    @staticmethod
    def _fault(fault: ErrorDetails) -> dict[str, Any]:
        _, row, field = (*fault["loc"], None, None, None)[:3] if fault["loc"][:1] == ("rows",) else (None, None, None)
        if row is None and fault["loc"]:
            field = fault["loc"][0]
        known = ["rows"] if row is None else list(FEATURES)
        problem = {
            "missing": "is missing",
            "extra_forbidden": f"is not known here{did_you_mean(str(field)[:LONGEST_NAME], known)}",
            "json_invalid": f"the body is {fault['msg'][0].lower()}{fault['msg'][1:]}",
        }.get(fault["type"], fault["msg"])
        return {"row": row, "field": field if field is None else str(field)[:LONGEST_NAME], "problem": problem}


LONGEST_NAME = 100

Rows = create_model(
    "Rows",
    __base__=_Rows,
    rows=(Annotated[list[request_row(FEATURES)], Field(min_length=1, max_length=RELEASE["max_rows"])], ...),  # type: ignore[misc]
)


# ── what is answered ──────────────────────────────────────────────────────────────────────────────


class Prediction(BaseModel):
    """The answer to one row."""

    id: str = Field(description="names this prediction for ever; ids made later sort later")
    prediction: Any = Field(description="the most probable class, or the expected value")
    probability: float | None = Field(None, description="two classes: that of the second one, 'yes'")
    probabilities: dict[str, float] | None = Field(None, description="classification: of every class")
    low: float | None = Field(None, description="regression with quantiles: one in ten is below")
    high: float | None = Field(None, description="regression with quantiles: one in ten is above")
    unseen: list[str] | None = Field(None, description="the features whose category the model was never trained on")


class Answer(BaseModel):
    """The answers to all rows, in their order."""

    model: str
    version: str
    release: str
    predictions: list[Prediction]


async def release(_: Request) -> Response:
    """Where this release comes from."""
    return JSONResponse({"candidate": CANDIDATE, "release": f"{NAME}:{CANDIDATE}", **RELEASE})


@bentoml.service(
    name=NAME,
    workers=1,
    threads=4,  # a large request must not hold up the small ones behind it
    traffic={"timeout": 30},
    http={"host": "127.0.0.1", "port": 3000},
)
@bentoml.asgi_app(Starlette(routes=[Route("/release", release, methods=["GET"])]))
class Service:
    """Answers rows with predictions; see /release for where the model comes from."""

    def __init__(self) -> None:
        from prometheus_client import Counter  # not before a worker has said where its counts go

        from tasks import model_file

        self.pipeline = model_file.load(HERE / "model.skops", RELEASE["model_sha256"], own=f"models.{NAME}")
        self.unseen = Counter(
            "evergreen_unseen_categories_total", "Categories that the model was never trained on", ["feature"]
        )
        self._predict([request_row(FEATURES)(**example_row(FEATURES))])  # the first request finds everything imported

    @bentoml.api(input_spec=Rows, output_spec=Answer)
    def predict(self, rows: Any) -> Response:
        """One prediction per row."""
        if isinstance(rows, Refusal):
            return JSONResponse(rows.said, status_code=400)
        head = {"model": NAME, "version": CANDIDATE, "release": f"{NAME}:{CANDIDATE}"}
        return JSONResponse({**head, "predictions": self._predict(rows)})

    def _predict(self, rows: list[BaseModel]) -> list[dict[str, Any]]:
        from tasks import model_file

        table = model_file.predict(self.pipeline, frame(rows), RELEASE["task"])
        answers = [{"id": new_id(), **said(list(values))} for values in table.to_numpy().tolist()]
        for row, answer in zip(rows, answers, strict=True):
            if unseen := [name for name, known in KNOWN.items() if (getattr(row, name) or "") not in known | {""}]:
                answer["unseen"] = unseen
                for name in unseen:
                    self.unseen.labels(feature=name).inc()
        return answers


def frame(rows: list[BaseModel]) -> pd.DataFrame:
    """The rows as the pipeline was fitted on them: categories are str, integers and numbers float64, null is missing."""
    import pandas as pd

    kinds = {name: "str" if feature["type"] == "category" else "float64" for name, feature in FEATURES.items()}
    return pd.DataFrame(
        {name: pd.Series([getattr(row, name) for row in rows], dtype=kind) for name, kind in kinds.items()}
    )


def said(values: list[float]) -> dict[str, Any]:
    """One row's prediction columns (tasks.model_file.predict) as the answer tells them."""
    if RELEASE["task"] == "regression":
        return dict(zip(("prediction", "low", "high"), values, strict=False))
    classes = RELEASE["classes"]
    answer = {"prediction": classes[max(range(len(values)), key=values.__getitem__)]}
    if len(classes) == 2:
        answer["probability"] = values[1]
    return {**answer, "probabilities": dict(zip(map(str, classes), values, strict=True))}


def new_id() -> str:
    """A UUID of version 7 (RFC 9562) in hex: 48 bits of milliseconds, then chance."""
    chance = secrets.randbits(74)
    head = (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | (chance >> 62) << 64
    return f"{head | 0b10 << 62 | chance & (1 << 62) - 1:032x}"
