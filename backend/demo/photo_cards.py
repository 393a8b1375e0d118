"""A grid of photos with a few words each."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from backend.demo.cached import get_shared_services, get_thumbnails
from backend.demo.notes import escaped

# Four side by side on a wide page, one on a phone.
_WIDTH = 268


@dataclass(frozen=True)
class PhotoCard:
    """One photo.

    Attributes:
        task_id: its id in Label Studio.
        url: where the photo is.
        heading: a line in bold.
        lines: further lines.
    """

    task_id: int
    url: str
    heading: str
    lines: Sequence[str]


def show_cards(project: int, cards: Sequence[PhotoCard]) -> None:
    """Show them side by side, as many as the page is wide, each with a link into Label Studio."""
    with st.spinner("Fetching photos …"):
        pictures = get_thumbnails().of({card.task_id: card.url for card in cards})
    problems = {picture.problem for picture in pictures.values() if picture.problem}
    if problems:
        st.warning(f"Some photos cannot be shown: {escaped(sorted(problems)[0])}")
    with st.container(horizontal=True):
        for card in cards:
            with st.container(border=True, width=_WIDTH):
                picture = pictures[card.task_id]
                if picture.jpeg:
                    st.image(picture.jpeg, alt=f"Photo {card.task_id}", width="stretch")
                # Two spaces end a line in Markdown.
                st.markdown("  \n".join([f"**{card.heading}**", *card.lines]))
                st.link_button("Open in Label Studio", task_link(project, card.task_id), icon=":material/open_in_new:")


def task_link(project: int, task_id: int) -> str:
    """Where browsers find a task."""
    settings = get_shared_services().settings
    base = settings.label_studio_host or settings.label_studio_url
    return f"{base.rstrip('/')}/projects/{project}/data?task={task_id}"
