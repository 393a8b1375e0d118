"""The page "Quality": labels to review, and faults of the photos."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from backend.dashboard.cached import get_shared_services, quality, review_tab
from backend.dashboard.notes import escaped, show_note
from backend.dashboard.photo_cards import PhotoCard, show_cards
from backend.project.quality_view import anchoring_cells, is_early, pair_name
from carcond.taxonomy import TASK_BY_KEY, TASKS

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
    _show_agreement(facts["agreement"], facts["annotators"])
    _show_anchoring(facts["anchoring"])


def _show_suspects(project: int, suspects: Sequence[Mapping[str, Any]], judged: Mapping[str, Any]) -> None:
    if not judged:
        st.info("There are no labels yet. Once there are, those that the photos contradict are shown here.")
        return
    if not suspects:
        st.success("No label is suspected.")
        return
    st.write(
        "Heads that have not seen these photos think the label wrong; the most suspicious ones come first. "
        f"`carcond review --project {project}` shows them as a tab in Label Studio, where a reviewed photo leaves it."
    )
    if any(map(is_early, judged.values())):
        show_note("Early: with so few labels, many of these are right.")
    urls = {photo.task_id: photo.url for photo in get_shared_services().store.photos(project)}
    doubts: dict[int, list[str]] = {}
    for suspect in suspects:
        doubts.setdefault(int(suspect["photo"]), []).append(_doubt(suspect))
    cards = [PhotoCard(task_id, urls[task_id], f"Photo {task_id}", lines) for task_id, lines in doubts.items()]
    show_cards(project, cards, review_tab(project))


def _doubt(suspect: Mapping[str, Any]) -> str:
    task = TASK_BY_KEY[suspect["task"]]
    given, likely = (task.condition(suspect[which]).en for which in ("given", "likely"))
    by = escaped(" and ".join(suspect["by"]))
    return f"{task.en}: labelled **{given}** by {by}, looks **{likely}**. Suspicion: {suspect['suspicion']:.2f}"


def _show_faults(facts: Mapping[str, Any]) -> None:
    counts = {words: len(facts[fault]) for fault, words in _FAULTS.items()}
    counts["near-duplicates of another"] = sum(len(same) - 1 for same in facts["copies"])
    counts["near-duplicates with different labels"] = len(facts["conflicting_copies"])
    st.write(f"{facts['photos']} photos, {facts['measured']} of them looked at, {facts['labelled']} labelled.")
    st.table([{"Photos that are": words, "Number": str(number)} for words, number in counts.items()], hide_index=True)


def _show_agreement(agreement: Mapping[str, Any], annotators: Mapping[str, str]) -> None:
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
    pairs = [
        {
            "Annotators": escaped(pair_name(pair, annotators)),
            "Task": task.en,
            "Photos": str(pair["photos"]),
            "They agree on": f"{pair['agreement']:.0%}",
            "Cohen's kappa": "–" if pair["kappa"] is None else f"{pair['kappa']:.2f}",
        }
        for task in TASKS
        for pair in agreement.get(task.key, {"pairs": []})["pairs"]
    ]
    st.table(sorted(pairs, key=lambda row: float(row["They agree on"].rstrip("%"))), hide_index=True)


def _show_anchoring(anchoring: Mapping[str, Any]) -> None:
    rows = [
        {"Task": task.en, **{heading.capitalize(): escaped(words) for heading, words in anchoring_cells(row).items()}}
        for task in TASKS
        for row in anchoring.get(task.key, [])
    ]
    if not rows:
        return
    st.subheader("Pre-labels")
    st.table(rows, hide_index=True)
    show_note(
        "Labels that equal the pre-label where it was shown, and where it was hidden at random. Of the pre-labels that "
        "a person would not have given, the last column is the share that is kept once it is shown."
    )
