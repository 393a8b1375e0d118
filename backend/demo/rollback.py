"""Going back to the version that served before, by a person who says why."""

from backend.jobs import JobQueue
from backend.services import Services
from backend.serving import Change, serve_version
from carcond.errors import RegistryError
from carcond.registry import version_name


def roll_back(services: Services, queue: JobQueue, project_id: int, serving: int, *, who: str, why: str) -> Change:
    """Make the version before the serving one serve.

    Args:
        services: of the registry.
        queue: where the turn that publishes is enqueued.
        project_id: the project.
        serving: number of the version that the person saw serving.
        who: asks for it.
        why: in their words.

    Raises:
        RegistryError: another version serves by now, there is none to go back to, name or reason is missing, ...
    """
    if not who.strip() or not why.strip():
        raise RegistryError("expected your name and a reason, for those who find them in the record")
    registry = services.registry(project_id)
    now = registry.current()
    if now is None or now.number != serving:
        raise RegistryError(
            f"{version_name(serving)} does not serve any more, {now.name if now else 'no version'} does: look again"
        )
    previous = registry.previous()
    return serve_version(services, queue, project_id, previous, action="rollback", who=who.strip(), why=why.strip())
