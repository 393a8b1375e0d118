"""Promotion, rollback, pinning and unpinning of a version by a person."""

from dataclasses import dataclass

from backend.jobs.queue import JobQueue
from backend.services import Services
from carcond.errors import QueueUnavailableError
from carcond.model.encoder import encoder_directory
from carcond.registry.promotions import Action, Promotion
from carcond.registry.registry import Version


@dataclass(frozen=True)
class Change:
    """A change of the serving version, or of its pin.

    Attributes:
        promotion: as it was recorded.
        problem: why the predictions are not being published yet; empty when they are.
    """

    promotion: Promotion
    problem: str


def serve_version(
    services: Services, queue: JobQueue, project_id: int, version: Version, *, action: Action, who: str, why: str
) -> Change:
    """Make a version serve at once, pin it, record it, and have its predictions published.

    It is pinned, since the next label would make a candidate that takes over from it.

    Args:
        services: of the registry.
        queue: where the turn that publishes is enqueued.
        project_id: the project.
        version: one of its versions.
        action: "promote" or "rollback", see `carcond.registry.promotions.Promotion`.
        who: requests it.
        why: in their words.

    Raises:
        EncoderError: its encoder is missing; without it no new photo could be embedded.
        RegistryError: it serves already, is broken, or the disk refused.
        ModelMirrorError: the promotion cannot be mirrored to other hosts; nothing was changed.
    """
    encoder_directory(services.settings.models_dir, version.heads.encoder_id)
    promotion = services.registry(project_id).promote(version.number, who, why, action, pinned=True)
    return _publish(queue, project_id, promotion)


def pin_version(services: Services, queue: JobQueue, project_id: int, number: int, *, who: str, why: str) -> Change:
    """Make a version serve if it does not yet, and keep it until somebody unpins it.

    Raises:
        EncoderError, RegistryError, ModelMirrorError: see `serve_version`; or it is pinned already.
    """
    registry = services.registry(project_id)
    if registry.pointed() != number:
        version = registry.load(number)
        return serve_version(services, queue, project_id, version, action="promote", who=who, why=why)
    return _publish(queue, project_id, registry.pin_serving(number, who, why))


def unpin_version(services: Services, queue: JobQueue, project_id: int, *, who: str, why: str) -> Change:
    """Let candidates serve again: the newest that the gate accepted takes over in the turn that is enqueued.

    Raises:
        RegistryError: no version is pinned, or the disk refused.
        ModelMirrorError: the record cannot be mirrored to other hosts; nothing was changed.
    """
    return _publish(queue, project_id, services.registry(project_id).unpin(who, why))


def _publish(queue: JobQueue, project_id: int, promotion: Promotion) -> Change:
    try:
        queue.request_turn(project_id)
    except QueueUnavailableError as error:
        return Change(promotion, str(error))
    return Change(promotion, "")
