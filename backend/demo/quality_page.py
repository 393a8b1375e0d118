"""The page "Quality": labels to look at again, and what is wrong with the photos."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from backend.demo.cached import get_shared_services, quality
from backend.demo.notes import show_note
from backend.demo.photo_cards import PhotoCard, show_cards
from backend.quality_view import is_early
from carcond.taxonomy import TASK_BY_KEY, TASKS

_SHOWN = 24
_FAULTS = {
    "unreadable": "cannot be read",
    "small": "smaller than 300 x 300 pixels",
    "blurred": "blurred",
    "dark": "too dark",
    "bright": "too bright",
}


def show(project: int) -> None:
    """Show it."""
    st.title("Quality")
    facts = quality(project)
    st.header("Look at these labels again", divider="gray")
    _show_suspects(project, facts["suspects"], facts["judged"])
    st.header("Photos", divider="gray")
    _show_faults(facts)
    st.header("Annotators", divider="gray")
    _show_agreement(facts["agreement"])


def _show_suspects(project: int, suspects: Sequence[Mapping[str, Any]], judged: Mapping[str, Any]) -> None:
    if not judged:
        st.info("There are no labels yet. Once there are, those that the photos contradict are shown here.")
        return
    if not suspects:
        st.success("No label is thought wrong.")
        return
    st.write(
        "Heads that have not seen these photos think the label wrong; the most suspicious ones come first. "
        f"`carcond review {project}` shows them as a tab in Label Studio, where a photo that was looked at leaves it."
    )
    if any(map(is_early, judged.values())):
        show_note("Early: with so few labels, many of these are right.")
    urls = {photo.task_id: photo.url for photo in get_shared_services().store.photos(project)}
    doubts: dict[int, list[str]] = {}
    for suspect in suspects:
        doubts.setdefault(int(suspect["photo"]), []).append(_doubt(suspect))
    cards = [PhotoCard(task_id, urls[task_id], f"Photo {task_id}", lines) for task_id, lines in doubts.items()]
    if len(cards) > _SHOWN:
        show_note(f"The first {_SHOWN} of {len(cards)}.")
    show_cards(project, cards[:_SHOWN])


def _doubt(suspect: Mapping[str, Any]) -> str:
    task = TASK_BY_KEY[suspect["task"]]
    given, likely = (task.condition(suspect[which]).en for which in ("given", "likely"))
    return f"{task.en}: labelled **{given}**, looks **{likely}**. Suspicion: {suspect['suspicion']:.2f}"


def _show_faults(facts: Mapping[str, Any]) -> None:
    counts = {words: len(facts[fault]) for fault, words in _FAULTS.items()}
    counts["near-duplicates of another"] = sum(len(same) - 1 for same in facts["copies"])
    counts["near-duplicates with different labels"] = len(facts["conflicting_copies"])
    st.write(f"{facts['photos']} photos, {facts['measured']} of them looked at, {facts['labelled']} labelled.")
    st.table([{"Photos that are": words, "Number": str(number)} for words, number in counts.items()], hide_index=True)


def _show_agreement(agreement: Mapping[str, Any]) -> None:
    if not agreement:
        st.write("No photo was labelled by two people: how far annotators agree is not known.")
        return
    rows = [
        {
            "Task": task.en,
            "Photos with two answers": str(found["photos"]),
            "Krippendorff's alpha": "–" if found["alpha"] is None else f"{found['alpha']:.2f}",
            "Conflicts": str(len(found["conflicts"])),
        }
        for task in TASKS
        if (found := agreement.get(task.key))
    ]
    st.table(rows, hide_index=True)
    show_note("Alpha is 1 when all agree and 0 when they agree no more than by chance.")
