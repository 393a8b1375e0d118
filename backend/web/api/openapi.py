"""The OpenAPI document of the JSON API. Its schemas come from the typed models of requests and answers."""

from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from backend.project.condition_schema import (
    PROBLEM_TYPE,
    ConditionAnswer,
    ConditionRequest,
    Problem,
    ShortAnswer,
    ShortRequest,
)

MAX_IMAGES = 10
"""Maximum number of photos of one request."""

_REF = "#/components/schemas/{model}"
_FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
_RETRY_AFTER = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}}}
# `/predict` is Label Studio's too, whose errors are one sentence under `error`.
_NO_PHOTO = {
    "400": {
        "description": "The body is neither multipart/form-data nor what Label Studio sends.",
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
            }
        },
    }
}
_PROBLEMS = {
    401: "The token is missing or wrong.",
    404: "The project is not served by this backend.",
    413: "The photos are too large.",
    415: "The body is not multipart/form-data.",
    422: "A part or a field is missing, malformed, or no photo.",
    429: "The caller has sent too many photos in a minute.",
    503: "There is no model version yet, or the backend is busy.",
}


@cache
def openapi_document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    models = (ConditionAnswer, ConditionRequest, Problem, ShortAnswer, ShortRequest)
    _, schemas = models_json_schema([(model, "serialization") for model in models], ref_template=_REF)
    components = schemas["$defs"]
    fields, short_fields = (components.pop(name)["properties"] for name in ("ConditionRequest", "ShortRequest"))
    short = _operation("predict", "The condition that one photo shows.", {"image": _FILE, **short_fields}, ShortAnswer)
    short["responses"] |= _NO_PHOTO
    several = {"type": "array", "items": _FILE, "minItems": 1, "maxItems": MAX_IMAGES}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "carcond",
            "version": version("carcond"),
            "description": "The condition of a car, from photos of it.",
        },
        "paths": {
            "/predict": {"post": short},
            "/api/v1/condition": {
                "post": _operation(
                    "condition",
                    "The condition of a car, from one photo of it or several.",
                    {"image": several, **fields},
                    ConditionAnswer,
                )
            },
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # A token, or none where everybody may call.
        "security": [{"token": []}, {}],
    }


def _operation(name: str, summary: str, properties: dict[str, Any], answer: type) -> dict[str, Any]:
    body = {"type": "object", "properties": properties, "required": ["image"], "additionalProperties": False}
    refusals = {
        str(status): {
            "description": words,
            "content": {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
            **({"headers": _RETRY_AFTER} if status in (429, 503) else {}),
        }
        for status, words in _PROBLEMS.items()
    }
    schema = {"$ref": _REF.format(model=answer.__name__)}
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": body}}},
        "responses": {
            "200": {"description": "The condition.", "content": {"application/json": {"schema": schema}}},
            **refusals,
        },
    }
