"""A person makes another version serve."""

from dataclasses import dataclass

from backend.jobs import JobQueue
from backend.services import Services
from carcond.encoder import encoder_directory
from carcond.errors import QueueUnavailableError
from carcond.promotions import Action, Promotion
from carcond.registry import Version


@dataclass(frozen=True)
class Change:
    """A change of the serving version.

    Attributes:
        promotion: as it was recorded.
        problem: why its predictions are not being published yet; empty when they are.
    """

    promotion: Promotion
    problem: str


def serve_version(
    services: Services, queue: JobQueue, project_id: int, version: Version, *, action: Action, who: str, why: str
) -> Change:
    """Make a version serve at once, record it, and have its predictions published.

    Args:
        services: of the registry.
        queue: where the turn that publishes is enqueued.
        project_id: the project.
        version: one of its versions.
        action: see `carcond.promotions.Promotion`.
        who: asks for it.
        why: in their words.

    Raises:
        EncoderError: its encoder is missing; without it no new photo could be seen.
        RegistryError: it serves already, is broken, or the disk refused.
        ModelMirrorError: other hosts cannot be told, or serve another one by now; nothing was changed.
    """
    encoder_directory(services.settings.models_dir, version.heads.encoder_id)
    promotion = services.registry(project_id).promote(version.number, who, why, action)
    try:
        queue.nudge(project_id)
    except QueueUnavailableError as error:
        return Change(promotion, str(error))
    return Change(promotion, "")
