"""OpenAPI document of the router: what each live model takes and gives."""

from __future__ import annotations

import json
from typing import Any

VERBS = {
    "predict": "One prediction per row",
    "explain": "Which features moved the prediction of one row, and by how much",
}
PAGES = {"live": "What is live, since when", "schema": "What it takes and gives", "release": "Where it comes from"}

ERRORS = {
    "400": "refused; says which row and field is wrong, and how",
    "401": "an API key is needed",
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
ERROR = {
    "title": "Error",
    "type": "object",
    "properties": {"error": {"type": "string"}, "detail": {"type": "array", "items": {"type": "object"}}},
    "required": ["error"],
}


def document(models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The document, version 3.1, of models by name, each as the first frame of its live replica says."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"Error": ERROR}
    for name, about in models.items():
        for verb, pair in about["schemas"].items():
            request, response = (_component(schema, name, schemas) for schema in pair)
            paths[f"/{name}/{verb}"] = {
                "post": {
                    "operationId": f"{name}_{verb}",
                    "summary": f"{VERBS[verb]}. {about['about']}",
                    "tags": [name],
                    "parameters": [KEY],
                    "requestBody": {"required": True, "content": _json(request)},
                    "responses": {"200": {"description": VERBS[verb], "content": _json(response)}, **_errors(*ERRORS)},
                }
            }
        for page, summary in PAGES.items():
            answers = {"200": {"description": summary, "content": _json({"type": "object"})}, **_errors("401", "503")}
            operation = {"operationId": f"{name}_{page}", "summary": summary, "tags": [name], "responses": answers}
            paths[f"/{name}/{page}"] = {"get": operation}
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
