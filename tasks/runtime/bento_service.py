"""BentoML service of one release: reads release.json, candidate.json and model.skops of the release that it is part of.

What it imports of this repository is the folder that it is in, which each release has a copy of.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

# OpenMP's threads spin while they wait: one per process answers sooner than two that share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tasks.runtime import inference_body, open_inference, predictor

ROOT = Path(__file__).resolve().parents[2]
"""The release: this file is tasks/runtime/bento_service.py in it."""
RELEASE = predictor.ReleaseInfo.read(ROOT)


class _OpenApi3(GenerateJsonSchema):
    """`nullable: true`, as OpenAPI 3.0 has it, which knows no type null; and fields in the order of params.yaml."""

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:  # noqa: ARG002
        return value

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        return {**self.generate_inner(schema["schema"]), "nullable": True}


class _Body(bentoml.IODescriptor):  # type: ignore[misc]  # BentoML ships no types
    """A request or an answer, described for OpenAPI. A request is handed on as its bytes."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> Any:
        return super().model_json_schema(*args, **{"schema_generator": _OpenApi3, **kwargs})

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> Any:  # noqa: ARG003  # it is always JSON
        body = await request.body()
        return cls.model_construct(**dict.fromkeys(cls.model_fields, body))


class PredictRequest(_Body, RELEASE.rows):  # type: ignore[misc,name-defined]
    """A request for predictions."""


class ExplainRequest(_Body, RELEASE.row):  # type: ignore[misc,name-defined]
    """A request for an explanation."""


class PredictAnswer(_Body, predictor.PredictResponse):
    """The answers to all rows, in their order."""


class ExplainAnswer(_Body, predictor.ExplainResponse):
    """What one prediction is made of."""


class InferRequest(_Body, open_inference.InferenceRequest):
    """A request by the Open Inference Protocol: JSON, and the bytes of binary tensors behind it."""

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> Any:  # noqa: ARG003
        """The body as it is, with how much of it is JSON; or why that cannot be."""
        body, header = await request.body(), request.headers.get(inference_body.LENGTH_HEADER, "")
        try:
            packed: Any = inference_body.pack(inference_body.json_length(header, len(body)), body)
        except inference_body.Refused as error:
            packed = error
        return cls.model_construct(**dict.fromkeys(cls.model_fields, packed))


class InferAnswer(_Body, open_inference.InferenceResponse):
    """The answers to all rows, as tensors."""


async def release(_: Request) -> Response:
    """Where this release comes from."""
    return JSONResponse(RELEASE.described())


# ── pages of the Open Inference Protocol ──────────────────────────────────────────────────────────

MODEL = f"/v2/models/{RELEASE.name}"
VERSION = f"{MODEL}/versions/{RELEASE.candidate}"


async def server(_: Request) -> Response:
    """What is spoken here."""
    return JSONResponse({"name": "evergreen", "version": "1", "extensions": inference_body.EXTENSIONS})


async def is_live(_: Request) -> Response:
    """That the process answers."""
    return JSONResponse({"live": True})


async def is_ready(request: Request) -> Response:
    """Whether the model is loaded."""
    named = {"name": RELEASE.name} if request.url.path.startswith(MODEL) else {}
    ready = hasattr(request.app.state, "translator")
    return JSONResponse({**named, "ready": ready}, 200 if ready else 503)


async def metadata(request: Request) -> Response:
    """What the model takes and gives."""
    head = {"name": RELEASE.name, "versions": [RELEASE.candidate], "platform": inference_body.PLATFORM}
    return JSONResponse({**head, **request.app.state.translator.metadata()})


async def unknown(_: Request) -> Response:
    """Another model, or another version."""
    return JSONResponse({"error": f"there is {VERSION} here, and nothing else: or leave the version out"}, 404)


PAGES = Starlette(
    routes=[
        Route("/release", release),
        Route("/v2", server),
        Route("/v2/health/live", is_live),
        *(Route(path, is_ready) for path in ("/v2/health/ready", f"{MODEL}/ready", f"{VERSION}/ready")),
        *(Route(path, metadata) for path in (MODEL, VERSION)),
        Route("/v2/{rest:path}", unknown, methods=["GET", "POST"]),
    ]
)


@bentoml.service(
    name=RELEASE.name,
    workers=1,
    threads=4,  # a large request must not hold up the small ones behind it
    traffic={"timeout": 30},
    http={"host": "127.0.0.1", "port": 3000},
)
@bentoml.asgi_app(PAGES)
class Service:
    """Answers rows with predictions; see /release for where the model comes from."""

    def __init__(self) -> None:
        from prometheus_client import Counter  # not before a worker has said where its counts go

        self._predictor = predictor.Predictor(ROOT)
        self._translator = PAGES.state.translator = open_inference.Translator(self._predictor)
        about = "Categories that the model was never trained on"
        self._unseen = Counter("evergreen_unseen_categories_total", about, ["feature"])
        self._counted: dict[str, int] = {}

    @bentoml.api(input_spec=PredictRequest, output_spec=PredictAnswer)  # type: ignore[untyped-decorator]
    def predict(self, rows: Any, **_: Any) -> Response:  # each field of the body is given as all of its bytes
        """One prediction per row."""
        return _response(self._predict(rows))

    @bentoml.api(route=f"{MODEL}/infer", input_spec=InferRequest, output_spec=InferAnswer)  # type: ignore[untyped-decorator]
    def infer(self, inputs: Any, **_: Any) -> Response:
        """One prediction per row, as tensors of the Open Inference Protocol."""
        return self._infer(inputs)

    @bentoml.api(route=f"{VERSION}/infer", input_spec=InferRequest, output_spec=InferAnswer)  # type: ignore[untyped-decorator]
    def infer_version(self, inputs: Any, **_: Any) -> Response:
        """As without the version."""
        return self._infer(inputs)

    @bentoml.api(input_spec=ExplainRequest, output_spec=ExplainAnswer)  # type: ignore[untyped-decorator]
    def explain(self, row: Any) -> Response:
        """Which features moved the prediction of one row, and by how much."""
        return _response(self._predictor.explain(row))

    def _predict(self, body: bytes) -> predictor.Answer:
        answer = self._predictor.predict([body])[0]
        for feature, count in self._predictor.unseen.items():
            self._unseen.labels(feature=feature).inc(count - self._counted.get(feature, 0))
            self._counted[feature] = count
        return answer

    def _infer(self, packed: bytes | inference_body.Refused) -> Response:
        if isinstance(packed, inference_body.Refused):
            return _response(predictor.Answer(400, inference_body.refusal(packed)))
        inference = self._translator.read(packed)
        answer = inference.respond(self._predict(inference.rows))
        length, body = inference_body.unpack(answer.body)
        if length == len(body):
            return _response(predictor.Answer(answer.status, body))
        headers = {inference_body.LENGTH_HEADER: str(length)}
        return Response(body, answer.status, headers, media_type="application/octet-stream")


def _response(answer: predictor.Answer) -> Response:
    return Response(answer.body, answer.status, media_type="application/json")
