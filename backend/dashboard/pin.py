"""Choosing a version and keeping it, by a person who says why."""

import streamlit as st

from backend.dashboard.notes import escaped
from backend.jobs.queue import JobQueue
from backend.project.promotion import Change, pin_version, unpin_version
from backend.services import Services
from carcond.errors import RegistryError
from carcond.registry.registry import Registry, pin_words


def serve_and_pin(services: Services, queue: JobQueue, project_id: int, number: int, *, who: str, why: str) -> Change:
    """Make a version serve until somebody unpins it, whatever was promoted since the person chose it.

    Args:
        services: of this action alone: models are not exchanged from several threads.
        queue: where the turn that publishes is enqueued.
        project_id: the project.
        number: of the version.
        who: requests it.
        why: in their words.

    Raises:
        RegistryError: it was pruned meanwhile, is pinned already, name or reason is missing, ...
        ModelMirrorError: the promotion cannot be mirrored to other hosts; nothing was changed.
    """
    _check(who, why)
    services.pull_models(project_id)
    return pin_version(services, queue, project_id, number, who=who.strip(), why=why.strip())


def unpin(services: Services, queue: JobQueue, project_id: int, *, who: str, why: str) -> Change:
    """Let newer versions serve again; see `serve_and_pin`."""
    _check(who, why)
    services.pull_models(project_id)
    return unpin_version(services, queue, project_id, who=who.strip(), why=why.strip())


def show_pin(registry: Registry) -> None:
    """Show the pinned version, if there is one; a line for pages about the serving version."""
    pin = registry.pin()
    if pin:
        st.warning(
            f"**{escaped(pin_words(pin))}**. Newer versions are fitted and judged, and do not serve until it is "
            "unpinned on the page Versions.",
            icon=":material/keep:",
        )


def _check(who: str, why: str) -> None:
    if not who.strip() or not why.strip():
        raise RegistryError("expected your name and a reason, for those who find them in the record")
