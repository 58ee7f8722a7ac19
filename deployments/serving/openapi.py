"""The router's OpenAPI document: what each model that is live takes and gives."""

from __future__ import annotations

import json
from typing import Any

WHAT = {
    "predict": "One prediction per row",
    "explain": "Which features moved the prediction of one row, and by how much",
}
KNOWN = {"live": "What is live, since when", "schema": "What it takes and gives", "release": "Where it comes from"}


def document(models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The document, version 3.1.

    Args:
        models: name → what its live release said of itself.
    """
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"Error": _ERROR}
    for name, about in models.items():
        for verb, both in about["schemas"].items():
            asked, answered = (_moved(schema, name, schemas) for schema in both)
            paths[f"/{name}/{verb}"] = {"post": _operation(name, verb, about["about"], asked, answered)}
        for what, said in KNOWN.items():
            answers = {"200": {"description": said, "content": _json({"type": "object"})}, **_errors("401", "503")}
            paths[f"/{name}/{what}"] = {
                "get": {"operationId": f"{name}_{what}", "summary": said, "tags": [name], "responses": answers}
            }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Evergreen", "version": "1", "description": "Models that are kept current"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{}, {"key": []}, {"header": []}],
    }


def _operation(name: str, verb: str, about: str, asked: Any, answered: Any) -> dict[str, Any]:
    key = {"name": "evergreen-key", "in": "header", "required": False, "schema": {"type": "string"}}
    key["description"] = "requests of one key go to the same release while a canary runs; its first 200 bytes count"
    return {
        "operationId": f"{name}_{verb}",
        "summary": f"{WHAT[verb]}. {about}",
        "tags": [name],
        "parameters": [key],
        "requestBody": {"required": True, "content": _json(asked)},
        "responses": {
            "200": {"description": WHAT[verb], "content": _json(answered)},
            **_errors("400", "401", "408", "413", "415", "500", "503"),
        },
    }


def _errors(*codes: str) -> dict[str, Any]:
    return {code: {"description": _WHY[code], "content": _json(_ref("Error"))} for code in codes}


_WHY = {
    "400": "refused; says which row and field is wrong, and how",
    "401": "an API key is needed",
    "408": "the body did not come in time",
    "413": "the body is too large",
    "415": "the body is compressed in a way that cannot be read; gzip can",
    "500": "the model fails on this request",
    "503": "too much waits already, or no release is ready; try again after Retry-After seconds",
}
_ERROR = {
    "title": "Error",
    "type": "object",
    "properties": {"error": {"type": "string"}, "detail": {"type": "array", "items": {"type": "object"}}},
    "required": ["error"],
}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _moved(schema: dict[str, Any], model: str, schemas: dict[str, Any]) -> dict[str, str]:
    """Put a schema with its definitions among the components, under names that begin with the model's."""
    text = json.dumps(schema).replace("#/$defs/", f"#/components/schemas/{model}.")
    schema = json.loads(text)
    for name, definition in schema.pop("$defs", {}).items():
        schemas[f"{model}.{name}"] = definition
    schemas[f"{model}.{schema['title']}"] = schema
    return _ref(f"{model}.{schema['title']}")
