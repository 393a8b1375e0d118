"""The Flask application: routes for Label Studio, metrics, and the JSON API of `backend.web.api`."""

import hashlib
import logging
import time
from typing import Any

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from backend.jobs.queue import get_job_queue
from backend.model_follower import ModelFollower
from backend.services import Services, get_services
from backend.web.api.problems import problem_response
from backend.web.api.routes import RestApi, is_rest
from backend.web.basic_auth import is_allowed
from backend.web.metrics import Metrics
from backend.web.ml_backend import CarConditionModel, parse_project_id
from backend.web.readiness import Readiness
from carcond.errors import CarcondError, QueueUnavailableError, StoreError
from carcond.fault_points import reach
from carcond.registry.registry import COLD_START_VERSION, version_name

logger = logging.getLogger(__name__)

# Open to all: probes have no password.
_OPEN = ("/", "/health", "/ready")
# Events that change labels or photos.
_NEWS = {
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "START_TRAINING",
}
# It comes with every change of any setting, our own of `model_version` included.
_UPDATED = "PROJECT_UPDATED"
_MAX_BODY = 200_000_000  # Label Studio sends all selected tasks in one request
# Objects and lists of a body: an empty list of three bytes is one of sixty in memory.
_MAX_CONTAINERS = 2_000_000


def create_app(services: Services | None = None) -> Flask:
    """Create the application."""
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
    app.add_url_rule("/ready", view_func=routes.ready)
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
        self._known: set[int] = set()
        self._metrics = Metrics(services)
        self._readiness = Readiness(services)

    @staticmethod
    def begin() -> None:
        g.began = time.monotonic()

    def count(self, response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        self._metrics.count_request(route, response.status_code, time.monotonic() - g.began)
        return response

    def check_caller(self) -> Response | None:
        if request.path in _OPEN or is_rest(request) or is_allowed(request, self._services.settings):
            return None
        response = jsonify(error="expected the backend's user and password (basic authentication)")
        response.status_code = 401
        response.headers["WWW-Authenticate"] = 'Basic realm="carcond"'
        return response

    def health(self) -> Response:
        """Alive. Checks nothing else: Label Studio waits for at most one second."""
        return jsonify(status="UP", model_class=CarConditionModel.__name__)

    def ready(self) -> tuple[Response, int]:
        """Ready (200) or not (503): worker, Redis, store, registry, Label Studio. Problems are for the password only.

        Not for liveness, nor to take a backend out of rotation: it goes on serving without all but its registry.
        """
        problems = self._readiness.problems()
        knows = is_allowed(request, self._services.settings)
        checks = {
            name: {"ok": not problem} | ({"problem": problem} if problem and knows else {})
            for name, problem in problems.items()
        }
        is_ready = not any(problems.values())
        return jsonify(ready=is_ready, checks=checks), 200 if is_ready else 503

    def setup(self) -> Response:
        """Return the version that serves a project. A new one is served from now on, if Label Studio has it."""
        body = _json_object()
        model = self._model(body.get("project"))
        if model.project_id and not self._services.store.is_served(model.project_id):
            try:
                get_job_queue().request_admission(model.project_id)
            except QueueUnavailableError as error:
                # The first turn finds out whether Label Studio has it.
                logger.warning("project %d: served without being looked up: %s", model.project_id, error)
                self._services.store.add_project(model.project_id)
        return jsonify(model_version=model.version_name)

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
        """Metrics for Prometheus."""
        text, content_type = self._metrics.expose(request.headers.get("Accept", ""))
        return Response(text, content_type=content_type)

    def webhook(self) -> tuple[Response, int]:
        """Request a turn. Label Studio waits at most a second, inside the annotator's own request."""
        body = _json_object()
        action = str(body.get("action") or "")
        project = body.get("project")
        model = self._model(project.get("id") if isinstance(project, dict) else project)
        if not model.project_id:
            raise _BadRequestError("expected 'project' with an id")
        if action not in _NEWS and action != _UPDATED:
            return jsonify(status="ignored", action=action), 200
        if not self._is_known(model.project_id):
            return jsonify(status="ignored", action=action, reason="the project is not connected to this backend"), 200
        if action == _UPDATED and not self._has_new_config(model.project_id, project):
            return jsonify(status="ignored", action=action), 200
        reach("webhook.received")
        return jsonify(status="ok", action=action, **model.fit(event=action, data=body)), 201

    def _is_known(self, project_id: int) -> bool:
        """True if a project was connected at some time.

        Every user of Label Studio can send webhooks, of any project: a turn for each would keep others waiting.
        """
        if project_id not in self._known:
            try:
                if not self._services.store.is_known(project_id):
                    return False
            except StoreError as error:  # the turn will need the store too, and it may be back by then
                logger.warning("project %d: served as if it were connected: %s", project_id, error)
                return True
            self._known.add(project_id)
        return True

    def _has_new_config(self, project_id: int, project: Any) -> bool:
        """True if a project's label config differs from the one this process saw last."""
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
    data = request.get_data()
    if data.count(b"[") + data.count(b"{") > _MAX_CONTAINERS:
        raise _BadRequestError(f"expected at most {_MAX_CONTAINERS} objects and lists in the request's body, got more")
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # brackets nested thousands deep
        body = None
    if not isinstance(body, dict):
        raise _BadRequestError("expected a JSON object as the request's body")
    return body


def _answer_error(error: Exception) -> Response | tuple[Response, int]:
    """Every error is JSON with one sentence; details of internal errors stay in the log."""
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
