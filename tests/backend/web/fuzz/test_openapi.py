"""Schemathesis makes right and wrong requests from our OpenAPI document, and holds the answers against it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import BaseSchema, Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from backend.services import get_services
from backend.web.api.openapi import openapi_document
from backend.web.app import create_app
from tests.backend.conftest import MakeSettings
from tests.backend.drawings import draw_photo
from tests.backend.versions import write_version

pytestmark = pytest.mark.slow

TOKEN = "token-of-the-shop"
PHOTO = draw_photo(0)
# Not those that ask whether a form was rightly refused: in one every value is a text, and any bytes may be a photo.
# Of errors of the server, the document has 503 alone, for a project without a version.
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = {"long": 2_000}.get(settings.get_current_profile_name(), 20)


@pytest.fixture
def api_schema(make_settings: MakeSettings, models_dir: Path) -> BaseSchema:
    """The document as the application serves it. There is a version, and no Redis."""
    write_version(models_dir)
    make_settings(
        CARCOND_API_TOKENS=f"shop:{hashlib.sha256(TOKEN.encode()).hexdigest()}",
        CARCOND_API_PHOTOS_PER_MINUTE="1000000",
    )
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", create_app(get_services()))


def with_photos(case: Case[Any]) -> Case[Any]:
    """The request with real photos: no schema can say what a photo is."""
    body: Any = case.body
    body["image"] = [PHOTO] * len(body["image"]) if isinstance(body["image"], list) else PHOTO
    return case


@pytest.mark.parametrize("path", openapi_document()["paths"])
def test_answers_are_as_the_document_says(path: str, api_schema: BaseSchema, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")  # else all the lines of all requests are kept
    operation = api_schema[path]["POST"]
    right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE).map(with_photos)
    wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(right | wrong)
    def answers(case: Case[Any]) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, checks=CHECKS)

    answers()
