"""The page "Queue": photos that are served next, and why."""

import streamlit as st

from backend.dashboard.cached import get_shared_services
from backend.dashboard.notes import escaped
from backend.dashboard.photo_cards import PhotoCard, show_cards
from backend.dashboard.pin import show_pin
from backend.label_studio.way_in import browser_base, numbered_steps, project_url
from backend.project.queue import QueuedPhoto, queued_photos
from carcond.errors import EncoderError
from carcond.taxonomy import TASK_BY_KEY


def show(project: int) -> None:
    """Show it."""
    st.title("Queue")
    services = get_shared_services()
    show_pin(services.registry(project))
    try:
        photos = queued_photos(services, project, services.settings.queue_size)
    except EncoderError as error:
        st.info(f"There is no queue yet: {escaped(error)}")
        return
    if not photos:
        st.info(
            "The queue is empty: all photos are labelled, or the worker has not embedded them yet. The page Jobs "
            "shows whether it is at work."
        )
        return
    st.write(
        "The photos that Label Studio serves next: its slots in turn, and in each slot the least sure first. Slot 0 "
        "holds the hold-out, sampled at random, the others hold those that the model is least sure of."
    )
    url = project_url(browser_base(services.settings), project)
    st.markdown(f"[Label these photos]({url})\n\n{numbered_steps()}")
    show_cards(project, [_card(place, photo) for place, photo in enumerate(photos, start=1)])


def _card(place: int, photo: QueuedPhoto) -> PhotoCard:
    slot = "exploration slot" if photo.slot == 0 else f"slot {photo.slot}"
    answers = [(TASK_BY_KEY[task], key, p) for task, (key, p) in photo.answers.items()]
    lines = [f"{task.en}: {task.condition(key).en} {p:.0%}" for task, key, p in answers]
    if not answers:
        lines.append("Opens with no answer chosen")
    if photo.confidence is not None:
        lines.append(f"All right together: {photo.confidence:.0%}")
    return PhotoCard(photo.task_id, photo.url, f"{place}. Photo {photo.task_id}, {slot}", [*lines, photo.reason])
