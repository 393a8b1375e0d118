"""The JSON API for other programs: photos of a car in, its condition out.

- `POST /predict` with one part `image` (multipart/form-data): cleanliness, damage and the confidence of each.
  Label Studio posts JSON to the same path, see `backend.web.app`.
- `POST /api/v1/condition` with one part `image` or several of one car: probabilities, version, the form for mobile
  applications, and on request the class activation map.
- `GET /api/v1/openapi.json`: the OpenAPI document.
"""

import base64
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TypeVar

from flask import Blueprint, Request, Response, jsonify, request
from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from backend.project.condition_schema import ConditionAnswer, ConditionRequest, PhotoAnswer, ShortAnswer, ShortRequest
from backend.services import Services
from backend.web.api.auth_and_rate_limit import ApiClients
from backend.web.api.concurrency_limit import ConcurrencyLimiter
from backend.web.api.openapi import MAX_IMAGES, openapi_document
from backend.web.api.problems import ProblemError
from backend.web.authorization import read_authorization
from carcond.errors import EncoderError, UnreadableImageError
from carcond.model.encoder import Encoder
from carcond.model.explain import explain
from carcond.model.inference import PhotoCondition, combine, read_condition
from carcond.registry.registry import Version, serving_projects

logger = logging.getLogger(__name__)

# Maximum number of concurrent API requests; gunicorn has 8 threads more, which stay free for Label Studio.
SLOTS = 24
# One photo is being decoded while the network runs on another, which uses all cores by itself.
_AT_A_TIME = 2
_RETRY_LATER = {"Retry-After": "30"}

_Fields = TypeVar("_Fields", bound=BaseModel)


def is_rest(asked: Request) -> bool:
    """True if a request is for the JSON API, which has tokens and errors of its own.

    Label Studio posts JSON to `/predict`. Other content with a token gets the API's error, which says what to send.
    """
    if asked.path != "/predict":
        return asked.path.startswith("/api/")
    given = read_authorization(asked)
    has_token = given is not None and given.type == "bearer"
    return asked.mimetype == "multipart/form-data" or (has_token and not asked.is_json)


class RestApi:
    """Routes, and their shared state."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._callers = ApiClients(services.settings)
        self._room = ConcurrencyLimiter(SLOTS, _AT_A_TIME)

    def blueprint(self) -> Blueprint:
        """The routes below `/api/v1`."""
        blueprint = Blueprint("rest", __name__, url_prefix="/api/v1")
        blueprint.add_url_rule("/condition", view_func=self.condition, methods=["POST"])
        blueprint.add_url_rule("/openapi.json", view_func=self.openapi)
        return blueprint

    def openapi(self) -> Response:
        """The description of the API."""
        return jsonify(openapi_document())

    def predict(self) -> Response:
        """The condition that one photo shows, in three fields."""
        with self._admitted() as caller:
            images = self._images(caller)
            if len(images) > 1:
                raise ProblemError(422, f"expected one part 'image', got {len(images)}: see /api/v1/condition")
            _, version = self._serving(_fields(ShortRequest).project)
            photo, _ = self._look_at(images[0], version, overlay=False)
            return jsonify(ShortAnswer.of(combine([photo])).model_dump(exclude_none=True))

    def condition(self) -> Response:
        """The condition of a car, from one photo of it or several."""
        with self._admitted() as caller:
            images = self._images(caller)
            asked = _fields(ConditionRequest)
            project, version = self._serving(asked.project)
            seen = [self._look_at(image, version, overlay=asked.overlay) for image in images]
            photos = [PhotoAnswer.of(i.filename or "", *each) for i, each in zip(images, seen, strict=True)]
            car = combine([photo for photo, _ in seen])
            return jsonify(ConditionAnswer.of(project, car, photos, asked.language).model_dump())

    @contextmanager
    def _admitted(self) -> Iterator[str]:
        """Name of the caller, once it is identified and has a slot. The body has not been read then."""
        caller = self._callers.identify(request)
        if request.mimetype != "multipart/form-data":
            raise ProblemError(415, f"expected multipart/form-data with a part 'image', got {request.mimetype!r:.80}")
        self._callers.check(caller)
        with self._room.slot():
            yield caller

    def _images(self, caller: str) -> list[FileStorage]:
        """The photos of the request, counted for the caller."""
        # All photos of a request together; a larger body is not read.
        limit = request.max_content_length = 2 * self._services.settings.max_photo_bytes
        try:
            images = request.files.getlist("image")
        except RequestEntityTooLarge as error:
            raise ProblemError(413, f"the photos are together larger than the limit of {limit} bytes") from error
        if not 1 <= len(images) <= MAX_IMAGES:
            raise ProblemError(422, f"expected 1 to {MAX_IMAGES} parts 'image' with a file, got {len(images)}")
        self._callers.count(caller, len(images))
        return images

    def _serving(self, asked: int | None) -> tuple[int, Version]:
        """The project and its serving version."""
        projects = serving_projects(self._services.settings.models_dir)
        if asked is None and len(projects) > 1:
            raise ProblemError(422, f"expected 'project', one of {', '.join(map(str, projects))}")
        project = asked or (projects[0] if projects else None)
        version = self._services.registry(project).current() if project in projects else None
        if version is None and asked is not None and not self._services.store.is_served(asked):
            raise ProblemError(404, f"there is no project {asked} that this backend serves")
        if project is None or version is None:
            where = "" if project is None else f" in project {project}"
            detail = f"there is no model version{where} yet: one is made after the first labels"
            raise ProblemError(503, detail, _RETRY_LATER)
        return project, version

    def _look_at(self, image: FileStorage, version: Version, *, overlay: bool) -> tuple[PhotoCondition, str | None]:
        try:
            encoder = self._services.encoder(version.heads.encoder_id)
        except EncoderError as error:
            logger.error("%s cannot serve: %s", version.name, error)
            raise ProblemError(503, f"the encoder of {version.name} is missing or broken", _RETRY_LATER) from error
        try:
            return self._room.work(self._see, image, encoder, version, overlay=overlay)
        except UnreadableImageError as error:
            raise ProblemError(422, f"{_name(image)}: {error}") from error

    def _see(
        self, image: FileStorage, encoder: Encoder, version: Version, *, overlay: bool
    ) -> tuple[PhotoCondition, str | None]:
        # Large uploads wait on the disk for their turn: only those being encoded are in memory.
        data, settings = image.read(), self._services.settings
        if len(data) > settings.max_photo_bytes:
            limit = settings.max_photo_bytes
            raise ProblemError(413, f"{_name(image)} has {len(data)} bytes, more than the limit of {limit}")
        photo = read_condition(data, encoder, version.heads, version.name, settings.max_photo_pixels)
        if not overlay or photo.checks.faults:
            return photo, None
        file = BytesIO()
        explain(photo.photo, photo.feature_map, version.heads).picture.save(file, "PNG", compress_level=1)
        return photo, base64.b64encode(file.getvalue()).decode()


def _fields(model: type[_Fields]) -> _Fields:
    files = {name: "a file" for name in request.files if name != "image"}
    try:
        return model.model_validate(request.form.to_dict() | files)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
        raise ProblemError(422, "; ".join(found)) from error


def _name(image: FileStorage) -> str:
    return f"the photo {image.filename!r:.80}"
