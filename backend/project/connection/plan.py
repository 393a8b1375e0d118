"""Plan of connecting an existing project: what will change, what stays, and the obstacles.

Planning writes nothing: an address is tried by a request that Label Studio refuses in any case, and whose
refusal names everything wrong with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.label_studio.address_checks import backend_refusal, webhook_refusal
from backend.label_studio.answers import read_count, read_object
from backend.label_studio.backend_address import BackendAddress, refusal_advice
from backend.label_studio.client import LabelStudioApi, ProjectInfo
from backend.label_studio.data_manager import DEFAULT
from backend.label_studio.label_config import LabelBinding
from backend.label_studio.ml_backends import BACKEND_TITLE, auth_method, find_ours, is_connected, read_backends
from backend.label_studio.provision import WANTED_SETTINGS, check_config
from backend.label_studio.webhooks import read_webhooks, wanted_webhook, webhook_faults
from backend.project.connection.changes import (
    ALL_PHOTOS,
    ANY_VERSION,
    FIRST_TAB,
    LEAST_CERTAIN,
    MODEL_VERSION,
    Change,
    Place,
    is_as_changed,
    present_state,
    public_webhook,
)
from backend.project.connection.photo_sample import sample_photos
from backend.project.connection.warnings import connection_warnings
from backend.services import Services
from carcond.registry.registry import is_ours


@dataclass(frozen=True)
class ConnectionPlan:
    """Plan of connecting a project.

    Attributes:
        project: as it is now.
        changes: in the order in which they are made; empty when nothing has to change.
        obstacles: problems to fix before it can be connected.
        warnings: what a person should know before.
        found: facts of the project, JSON-ready.
    """

    project: ProjectInfo
    changes: tuple[Change, ...]
    obstacles: tuple[str, ...]
    warnings: tuple[str, ...]
    found: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "project": self.project.id,
            "title": self.project.title,
            "changes": [change.facts() for change in self.changes],
            "obstacles": list(self.obstacles),
            "warnings": list(self.warnings),
            **self.found,
        }


def plan_connection(services: Services, backend: BackendAddress, project_id: int) -> ConnectionPlan:
    """Inspect a project.

    Raises:
        LabelStudioError: there is no such project, or Label Studio is unreachable.
        LabelConfigError: its label config asks for neither task.
    """
    api = services.api
    project = api.project(project_id)
    binding = check_config(project.label_config, project.raw)
    backends, hooks = read_backends(api, project_id), read_webhooks(api, project_id)
    versions = read_object(api.request("GET", f"/api/projects/{project_id}/model-versions/"), "model versions")
    predictions = {name: read_count(versions, name) for name in versions}
    sample = sample_photos(services, project_id, binding.image_key, project.task_count)
    found: dict[str, Any] = {
        "tasks": _bound_words(binding),
        "unknown_words": list(binding.unknown_words),
        "photos": project.task_count,
        "labelled": read_count(project.raw, "num_tasks_with_annotations"),
        "photo_sample": sample.facts(),
        "first_look_s": None if sample.seconds_each is None else round(sample.seconds_each * project.task_count, 1),
        "other_backends": [_shown(row) for row in backends if row["title"] != BACKEND_TITLE],
        "other_webhooks": [hook["url"] for hook in hooks if hook["url"] != backend.webhook_url],
        # A backend's title is counted too, with no prediction of its own.
        "other_predictions": {name: count for name, count in predictions.items() if count and not is_ours(name)},
        "own_predictions": sum(count for name, count in predictions.items() if is_ours(name)),
    }
    state = present_state(api, project, backend.url)
    return ConnectionPlan(
        project,
        tuple(_changes(backend, backends, hooks, state)),
        tuple(dict.fromkeys(_obstacles(api, backend, backends, project_id))),
        tuple(connection_warnings(project, binding, sample, found)),
        found,
    )


def _bound_words(binding: LabelBinding) -> dict[str, Any]:
    return {
        task: {"tag": choice.from_name, "words": dict(choice.class_by_word)} for task, choice in binding.choices.items()
    }


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("title", "url", "state")}


def _changes(
    backend: BackendAddress,
    backends: list[dict[str, Any]],
    hooks: Sequence[dict[str, Any]],
    state: Mapping[Place, Any],
) -> Iterator[Change]:
    ours = find_ours(backends)
    if ours is None or not is_connected(ours, backend):
        after = {"title": BACKEND_TITLE, "auth_method": auth_method(backend)}
        yield Change("backend", backend.url, state.get(("backend", backend.url)), after)
    hook = next((hook for hook in hooks if hook["url"] == backend.webhook_url), None)
    if hook is None or webhook_faults(hook, backend):
        before = public_webhook(hook) if hook else None
        yield Change("webhook", backend.webhook_url, before, public_webhook(wanted_webhook(backend)))
    for name, value in WANTED_SETTINGS.items():
        if state["setting", name] != value:
            yield Change("setting", name, state["setting", name], value)
    if not any(kind == "tab" for kind, _ in state):
        yield Change("tab", DEFAULT, None, ALL_PHOTOS)
    if FIRST_TAB not in state:
        yield Change(*FIRST_TAB, None, LEAST_CERTAIN)
    version = Change("setting", MODEL_VERSION, state["setting", MODEL_VERSION], ANY_VERSION)
    if not is_as_changed(version, version.before):
        yield version


def _obstacles(
    api: LabelStudioApi, backend: BackendAddress, backends: list[dict[str, Any]], project_id: int
) -> Iterator[str]:
    ours = find_ours(backends)
    if ours and ours["url"] != backend.url:
        yield (
            f"a carcond at {ours['url']} is connected already, and two would write one queue: take that one away first "
            f"(carcond connect --project {project_id} --undo where it was connected, or Settings > Model)"
        )
    for refusal in (backend_refusal(api, backend, project_id), webhook_refusal(api, backend, project_id)):
        advice = refusal_advice(refusal, backend)
        if advice:
            yield advice
