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

# OpenMP's threads spin while they wait: one per process answers sooner than two that share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).resolve().parent
RELEASE: dict[str, Any] = json.loads((HERE / "release.json").read_text(encoding="utf-8"))
CANDIDATE: str = json.loads((HERE / "candidate.json").read_text(encoding="utf-8"))["candidate"]
NAME: str = RELEASE["name"]
FEATURES: dict[str, dict[str, Any]] = {name: RELEASE["features"][name] for name in RELEASE["columns"]}
KNOWN = {name: frozenset([*values, None]) for name, values in RELEASE["categories"].items()}  # null is missing, not new
MAX_ROWS: int = RELEASE["max_rows"]
MOST_FAULTS, LONGEST_NAME = 100, 100  # that one answer tells of


# ── what is asked ─────────────────────────────────────────────────────────────────────────────────


class _OpenApi3(GenerateJsonSchema):
    """`nullable: true`, as OpenAPI 3.0 has it, which knows no type null; and fields in the order of params.yaml."""

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:  # noqa: ARG002
        return value

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        return {**self.generate_inner(schema["schema"]), "nullable": True}


class _Body(bentoml.IODescriptor):  # type: ignore[misc]  # BentoML ships no types
    """What a request or an answer holds, described for OpenAPI."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> Any:
        return super().model_json_schema(*args, **{"schema_generator": _OpenApi3, **kwargs})


class _Rows(_Body):
    """A body that is refused becomes a Refusal: BentoML would log what it held."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"rows": [example_row(FEATURES)]}})
    rows: Any

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> Any:  # noqa: ARG003  # it is always JSON
        try:
            return cls.model_validate_json(await request.body())
        except ValidationError as error:
            return cls.model_construct(rows=Refusal(error))


class Refusal:
    """What is wrong with a body, by row (counted from 0) and field; nothing of what it held."""

    def __init__(self, error: ValidationError) -> None:
        faults = error.errors(include_url=False, include_input=False)
        self.said = {
            "error": f"refused, nothing was predicted: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}",
            "detail": [_fault(*fault["loc"], fault=fault) for fault in faults[:MOST_FAULTS]],
        }


def _fault(
    place: int | str = "", row: int | str | None = None, field: int | str | None = None, *_: Any, fault: Any
) -> Any:
    """One fault, said for a person; its place is () for the body, (key,) or ("rows", row, field)."""
    known = ["rows"] if row is None else list(FEATURES)
    name = str((place or None) if row is None else field)[:LONGEST_NAME]
    problem = {
        "missing": "is missing",
        "too_short": "holds no row",
        "too_long": f"holds more than {MAX_ROWS} rows",
        "extra_forbidden": f"is not known{did_you_mean(name, known)}",
        "json_invalid": f"the body is not JSON: {fault['msg'].removeprefix('Invalid JSON: ')}",
    }.get(fault["type"], fault["msg"])
    return {"row": row, "field": None if name == "None" else name, "problem": problem}


Row: Any = request_row(FEATURES)
_List: Any = Annotated[list[Row], Field(min_length=1, max_length=MAX_ROWS)]
Rows = create_model("Rows", __base__=_Rows, rows=(_List, ...))


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


class Answer(_Body):
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
        self._predict([Row(**example_row(FEATURES))])  # the first request finds everything imported

    @bentoml.api(input_spec=Rows, output_spec=Answer)  # type: ignore[untyped-decorator]
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
            unseen = [name for name, known in KNOWN.items() if getattr(row, name) not in known]
            if unseen:
                answer["unseen"] = unseen
            for name in unseen:
                self.unseen.labels(feature=name).inc()
        return answers


def frame(rows: list[BaseModel]) -> pd.DataFrame:
    """The rows as the pipeline was fitted on them: categories str, integers and numbers float64, null is missing."""
    import numpy as np
    import pandas as pd

    columns: dict[str, Any] = {}
    for name, feature in FEATURES.items():
        values = [getattr(row, name) for row in rows]
        is_category = feature["type"] == "category"
        columns[name] = pd.array(values, dtype="str") if is_category else np.array(values, dtype="float64")
    return pd.DataFrame(columns)


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
