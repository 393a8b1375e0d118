"""A grid of photos with a few words each."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from backend.dashboard.cached import get_shared_services, get_thumbnails
from backend.dashboard.notes import escaped, show_note
from backend.label_studio.way_in import browser_base, task_url

# Four side by side on a wide page; on a phone one, its photo beside its words (see `backend.dashboard.layout`).
_WIDTH = 268
# Of one page: two rows on a wide screen, two screens of a phone.
_SHOWN = 8


@dataclass(frozen=True)
class PhotoCard:
    """One photo.

    Attributes:
        task_id: its id in Label Studio.
        url: address of the photo.
        heading: a line in bold.
        lines: further lines.
    """

    task_id: int
    url: str
    heading: str
    lines: Sequence[str]


def show_cards(project: int, cards: Sequence[PhotoCard], tab: int | None = None) -> None:
    """Show cards page by page, as many in a row as fit, each with a link into Label Studio.

    Args:
        project: whose photos.
        cards: one for each photo.
        tab: of Label Studio's list, in which the photos are opened; None for the first one.
    """
    pages = -(-len(cards) // _SHOWN)
    page = 1
    if pages > 1:
        page = st.pagination(pages, key="page-of-cards")
        first = (page - 1) * _SHOWN + 1
        show_note(f"Photos {first} to {min(page * _SHOWN, len(cards))} of {len(cards)}.")
    cards = cards[(page - 1) * _SHOWN : page * _SHOWN]
    with st.spinner("Fetching photos …"):
        pictures = get_thumbnails().of({card.task_id: card.url for card in cards})
    problems = {picture.problem for picture in pictures.values() if picture.problem}
    if problems:
        st.warning(f"Some photos cannot be shown: {escaped(sorted(problems)[0])}")
    with st.container(horizontal=True, key="photo-cards"):
        for card in cards:
            with st.container(border=True, width=_WIDTH, key=f"photo-card-{card.task_id}"):
                picture = pictures[card.task_id]
                if picture.jpeg:
                    st.image(picture.jpeg, alt=f"Photo {card.task_id}", width="stretch")
                # Two spaces end a line in Markdown.
                st.markdown("  \n".join([f"**{card.heading}**", *card.lines]))
                in_tab = f"&tab={tab}" if tab else ""
                link = task_link(project, card.task_id) + in_tab
                st.link_button("Open in Label Studio", link, icon=":material/open_in_new:")


def task_link(project: int, task_id: int) -> str:
    """Address of a task in browsers."""
    return task_url(browser_base(get_shared_services().settings), project, task_id)
