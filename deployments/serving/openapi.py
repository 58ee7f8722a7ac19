"""OpenAPI document of the router: what each live model takes and gives."""

from __future__ import annotations

import json
from typing import Any

from tasks.runtime.inference_body import LENGTH_HEADER

VERBS = {
    "predict": "One prediction per row",
    "explain": "Which features moved the prediction of one row, and by how much",
    "infer": "One prediction per row, as tensors of the Open Inference Protocol",
}
PAGES = {"live": "What is live, since when", "schema": "What it takes and gives", "release": "Where it comes from"}

HEALTH = {"live": "Whether the router answers", "ready": "Whether all models can be asked"}
READY = "Whether the model can be asked, by the Open Inference Protocol"
METADATA = {"": "What it takes and gives, as tensors of the Open Inference Protocol", "/ready": READY}
SERVER = "What is spoken here, by the Open Inference Protocol"

ERRORS = {
    "400": "refused; says which row and field is wrong, and how",
    "401": "an API key is needed",
    "404": "no such version answers, or its release was packaged before the protocol was spoken; says what to ask",
    "408": "the body did not come in time",
    "413": "the body is too large",
    "415": "the body is compressed in a way that cannot be read; gzip can",
    "500": "the model fails on this request",
    "503": "too much waits already, or no release is ready; try again after Retry-After seconds",
}

KEY = {
    "name": "evergreen-key",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "requests of one key go to the same release while a canary runs; its first 200 bytes count",
}
LENGTH = {
    "name": LENGTH_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 0},
    "description": "how many bytes of the body are JSON; binary tensors follow",
}
VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "its number or its candidate: of the live release, or of the canary",
}
BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
ERROR = {
    "title": "Error",
    "type": "object",
    "properties": {"error": {"type": "string"}, "detail": {"type": "array", "items": {"type": "object"}}},
    "required": ["error"],
}


def document(models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The document, version 3.1, of models by name, each as the first frame of its live replica says."""
    schemas: dict[str, Any] = {"Error": ERROR}
    paths = {f"/v2/health/{what}": _page(f"v2_{what}", summary, 503) for what, summary in HEALTH.items()}
    paths["/v2"] = _page("v2", SERVER, 401)
    for name, about in models.items():
        for verb, pair in about["schemas"].items():
            request, response = (_component(schema, name, schemas) for schema in pair)
            operation = _asking(name, verb, about["about"], request, response)
            if verb == "infer":
                paths |= _tensors(name, operation)
            else:
                paths[f"/{name}/{verb}"] = {"post": operation}
        for page, summary in PAGES.items():
            paths[f"/{name}/{page}"] = _page(f"{name}_{page}", summary, 401, 503, name=name)
    keys = {
        "key": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Evergreen", "version": "1", "description": "Models that are kept current"},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": keys},
        "security": [{}, {"key": []}, {"header": []}],
    }


def _asking(name: str, verb: str, about: str, request: Any, response: Any) -> dict[str, Any]:
    """An operation that predicts or explains."""
    codes = [code for code in ERRORS if code != "404"]
    return {
        "operationId": f"{name}_{verb}",
        "summary": f"{VERBS[verb]}. {about}",
        "tags": [name],
        "parameters": [KEY],
        "requestBody": {"required": True, "content": _json(request)},
        "responses": {"200": {"description": VERBS[verb], "content": _json(response)}, **_errors(*codes)},
    }


def _tensors(name: str, infer: dict[str, Any]) -> dict[str, Any]:
    """The paths of a model by the Open Inference Protocol, with and without its version."""
    base, paths = f"/v2/models/{name}", {}
    infer["parameters"] = [KEY, LENGTH]
    infer["requestBody"]["content"] |= BINARY
    infer["responses"]["200"]["content"] |= BINARY
    infer["responses"] |= _errors("404")
    for place, own, extra in ((base, name, []), (f"{base}/versions/{{version}}", f"{name}.version", [VERSION])):
        operation = {**infer, "operationId": f"{own}_infer", "parameters": [*infer["parameters"], *extra]}
        paths[f"{place}/infer"] = {"post": operation}
        for page, summary in METADATA.items():
            described = _page(f"{own}_metadata{page.replace('/', '_')}", summary, 401, 404, 503, name=name)
            described["get"]["parameters"] = extra
            paths[f"{place}{page}"] = described
    return paths


def _page(operation: str, summary: str, *codes: int, name: str = "evergreen") -> dict[str, Any]:
    answers = {"200": {"description": summary, "content": _json({"type": "object"})}}
    answers |= _errors(*map(str, codes))
    if operation.endswith("ready"):  # not ready is no error
        answers["503"] = {"description": "not yet", "content": _json({"type": "object"})}
    return {"get": {"operationId": operation, "summary": summary, "tags": [name], "responses": answers}}


def _errors(*codes: str) -> dict[str, Any]:
    return {code: {"description": ERRORS[code], "content": _json(_ref("Error"))} for code in codes}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _component(schema: dict[str, Any], model: str, schemas: dict[str, Any]) -> dict[str, str]:
    """Put a schema with its definitions among the components, under names that begin with the model's."""
    schema = json.loads(json.dumps(schema).replace("#/$defs/", f"#/components/schemas/{model}."))
    for name, definition in {**schema.pop("$defs", {}), schema["title"]: schema}.items():
        schemas[f"{model}.{name}"] = definition
    return _ref(f"{model}.{schema['title']}")
