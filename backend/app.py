"""The Flask application: the routes that Label Studio 1.23 calls, the metrics, and the JSON API of `backend.rest`."""

import hashlib
import logging
import time
from typing import Any

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from backend.metrics import Metrics
from backend.mirroring import ModelFollower
from backend.model import CarConditionModel, parse_project_id
from backend.rest.problems import problem_response
from backend.rest.routes import RestApi, is_rest
from backend.security import is_allowed
from backend.services import Services, get_services
from carcond.errors import CarcondError, QueueUnavailableError
from carcond.registry import COLD_START_VERSION, version_name

logger = logging.getLogger(__name__)

# What changes labels or photos. PROJECT_UPDATED is looked at apart: it comes with every change of
# any setting, our own of `model_version` included.
_NEWS = {
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "START_TRAINING",
}
_MAX_BODY = 200_000_000  # Label Studio sends all selected tasks in one request


def create_app(services: Services | None = None) -> Flask:
    """Make the application."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    services = services or get_services()
    if services.settings.models_url:
        ModelFollower(services).start()
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY
    rest = RestApi(services)
    routes = _Routes(services, rest)
    app.before_request(routes.begin)
    app.after_request(routes.count)
    app.before_request(routes.check_caller)
    app.add_url_rule("/", view_func=routes.health)
    app.add_url_rule("/health", view_func=routes.health)
    app.add_url_rule("/setup", view_func=routes.setup, methods=["POST"])
    app.add_url_rule("/predict", view_func=routes.predict, methods=["POST"])
    app.add_url_rule("/versions", view_func=routes.versions)
    app.add_url_rule("/webhook", view_func=routes.webhook, methods=["POST"])
    app.add_url_rule("/metrics", view_func=routes.metrics)
    app.register_blueprint(rest.blueprint())
    app.register_error_handler(Exception, _answer_error)
    return app


class _Routes:
    def __init__(self, services: Services, rest: RestApi) -> None:
        self._services = services
        self._rest = rest
        self._configs: dict[int, str] = {}
        self._metrics = Metrics(services)

    @staticmethod
    def begin() -> None:
        g.began = time.monotonic()

    def count(self, response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        self._metrics.count_request(route, response.status_code, time.monotonic() - g.began)
        return response

    def check_caller(self) -> Response | None:
        if request.path in ("/", "/health") or is_rest(request) or is_allowed(request, self._services.settings):
            return None
        response = jsonify(error="expected the backend's user and password (basic authentication)")
        response.status_code = 401
        response.headers["WWW-Authenticate"] = 'Basic realm="carcond"'
        return response

    def health(self) -> Response:
        """Alive. Looks at nothing else: Label Studio waits for at most one second."""
        return jsonify(status="UP", model_class=CarConditionModel.__name__)

    def setup(self) -> Response:
        """Tell the version that serves a project. A project that is new here gets its first turn."""
        body = _json_object()
        model = self._model(body.get("project"))
        if model.project_id and self._services.store.add_project(model.project_id):
            self._greet(model)
        return jsonify(model_version=model.version_name)

    def _greet(self, model: CarConditionModel) -> None:
        """A new project may have photos and labels already, of which no event will tell."""
        try:
            model.fit(event="SETUP")
        except QueueUnavailableError as error:
            logger.warning("project %d: the first turn has to wait for the reconcile: %s", model.project_id, error)

    def predict(self) -> Response:
        """Pre-label the tasks that Label Studio sends, one answer for each, in their order.

        Applications send one photo instead (multipart/form-data, part `image`): see docs/api.md.
        """
        if is_rest(request):
            return self._rest.predict()
        body = _json_object()
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise _BadRequestError(f"expected 'tasks' to be a list of objects, got {type(tasks).__name__}")
        model = self._model(body.get("project"), body.get("label_config"))
        results = model.predict(tasks)
        return jsonify(results=results, model_version=model.version_name)

    def versions(self) -> Response:
        """All versions; of one project when `?project=` names it, which Label Studio does not."""
        project = parse_project_id(request.args.get("project"))
        projects = [project] if project else self._services.store.project_ids()
        numbers = {number for p in projects for number in self._services.registry(p).numbers()}
        return jsonify(versions=[version_name(number) for number in sorted(numbers)] or [COLD_START_VERSION])

    def metrics(self) -> Response:
        """What Prometheus is told."""
        text, content_type = self._metrics.expose(request.headers.get("Accept", ""))
        return Response(text, content_type=content_type)

    def webhook(self) -> tuple[Response, int]:
        """Nudge the loop. Label Studio waits at most a second, inside the annotator's own request."""
        body = _json_object()
        action = str(body.get("action") or "")
        project = body.get("project")
        model = self._model(project.get("id") if isinstance(project, dict) else project)
        if not model.project_id:
            raise _BadRequestError("expected 'project' with an id")
        if action not in _NEWS and not (
            action == "PROJECT_UPDATED" and self._has_new_config(model.project_id, project)
        ):
            return jsonify(status="ignored", action=action), 200
        return jsonify(status="ok", action=action, **model.fit(event=action, data=body)), 201

    def _has_new_config(self, project_id: int, project: Any) -> bool:
        """Whether a project's label config differs from the one this process saw last."""
        config = str(project.get("label_config") or "") if isinstance(project, dict) else ""
        digest = hashlib.sha256(config.encode("utf-8", "surrogatepass")).hexdigest()
        known = self._configs.get(project_id)
        self._configs[project_id] = digest
        return known != digest

    def _model(self, project: Any, label_config: Any = None) -> CarConditionModel:
        config = label_config if isinstance(label_config, str) else None
        return CarConditionModel(project, config, services=self._services)


class _BadRequestError(CarcondError):
    """The request's body is not what the route expects."""


def _json_object() -> dict[str, Any]:
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # brackets nested thousands deep
        body = None
    if not isinstance(body, dict):
        raise _BadRequestError("expected a JSON object as the request's body")
    return body


def _answer_error(error: Exception) -> Response | tuple[Response, int]:
    """Every error is JSON with one sentence; what went wrong inside stays in the log."""
    if is_rest(request):
        return problem_response(error)
    if isinstance(error, HTTPException):
        return jsonify(error=error.description), error.code or 500
    if isinstance(error, _BadRequestError):
        return jsonify(error=str(error)), 400
    if isinstance(error, QueueUnavailableError):
        logger.error("%s: %s", request.path, error)
        return jsonify(error=str(error)), 503
    logger.error("%s failed", request.path, exc_info=error)
    message = str(error) if isinstance(error, CarcondError) else "an unexpected error; see the backend's log"
    return jsonify(error=message), 500
