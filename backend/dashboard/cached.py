"""Caches shared by all visits, so that nothing is computed or fetched twice."""

import hashlib
from typing import Any

import streamlit as st

from backend.dashboard.thumbnails import Thumbnails
from backend.label_studio.data_manager import read_tabs
from backend.model_follower import ModelFollower
from backend.project.label_review import TAB, project_facts
from backend.project.learning_progress import learning_facts
from backend.services import Services, get_services
from carcond.errors import CarcondError

_TITLE_SECONDS = 60


@st.cache_resource(show_spinner=False)
def get_shared_services() -> Services:
    """Services of this process; with an object store, they follow the versions of other hosts."""
    services = get_services()
    if services.settings.models_url:
        ModelFollower(services).start()
    return services


@st.cache_resource(show_spinner=False)
def get_thumbnails() -> Thumbnails:
    """The thumbnails of this process."""
    return Thumbnails(get_shared_services())


@st.cache_data(ttl=_TITLE_SECONDS, show_spinner=False)
def project_title(project_id: int) -> str:
    """A project's title in Label Studio, or only its number while Label Studio is unreachable."""
    try:
        return f"{get_shared_services().api.project(project_id).title} ({project_id})"
    except CarcondError:
        return f"Project {project_id}"


@st.cache_data(ttl=_TITLE_SECONDS, show_spinner=False)
def review_tab(project_id: int) -> int | None:
    """Id of the tab of `carcond review` in Label Studio; None without one, or while Label Studio is unreachable."""
    try:
        tabs = read_tabs(get_shared_services().api, project_id)
    except CarcondError:
        return None
    return next((tab.id for tab in tabs if tab.title == TAB), None)


def learning(project_id: int) -> dict[str, Any]:
    """See `backend.project.learning_progress`; measured again when labels, split or encoder have changed."""
    return _learning(project_id, _state(project_id))


@st.cache_data(max_entries=20, show_spinner="Measuring what has been learnt …")
def _learning(project_id: int, state: str) -> dict[str, Any]:
    return learning_facts(get_shared_services(), project_id)


def quality(project_id: int) -> dict[str, Any]:
    """See `backend.project.label_review.project_facts`; computed again when labels, split or encoder have changed."""
    return _quality(project_id, _state(project_id))


@st.cache_data(max_entries=20, show_spinner="Looking for doubtful labels …")
def _quality(project_id: int, state: str) -> dict[str, Any]:
    return project_facts(get_shared_services(), project_id)


def _state(project_id: int) -> str:
    """Digest of the measured data."""
    services = get_shared_services()
    version = services.registry(project_id).current()
    encoder = version.heads.encoder_id if version else ""
    photos = [(p.task_id, p.side, p.group, p.drawn, p.problem, p.phash) for p in services.store.photos(project_id)]
    labels = [(a.annotation_id, a.updated_at, a.cancelled) for a in services.store.annotations(project_id)]
    return hashlib.sha256(repr((encoder, photos, labels)).encode()).hexdigest()
