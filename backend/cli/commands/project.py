"""First check of commands about one project."""

from backend.services import Services
from carcond.errors import StoreError


def check_project(services: Services, project_id: int) -> None:
    """Make sure that the loop serves a project.

    Raises:
        StoreError: it does not, or not with these settings.
    """
    known = services.store.project_ids()
    if project_id not in known:
        others = f"known: {', '.join(map(str, known))}" if known else "none is"
        raise StoreError(
            f"project {project_id} is not known here ({others}). For a stack that scripts/up started, load its "
            "settings first: set -a; . .carcond/environment; set +a"
        )
