"""The page "Versions": the serving version, choosing and pinning another one, milestones, and report cards."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from backend.dashboard.cached import get_shared_services
from backend.dashboard.notes import escaped, show_error
from backend.dashboard.pin import serve_and_pin, show_pin, unpin
from backend.jobs.queue import get_job_queue
from backend.label_studio.annotator_names import known_names, named_card
from backend.project.promotion import Change
from backend.project.versions import scores_text, version_facts
from backend.services import Services
from carcond.errors import CarcondError, RegistryError
from carcond.json_fields import format_timestamp, sanitize_line, text
from carcond.model.version_card import VersionCard
from carcond.registry.promotions import LOOP, Promotion
from carcond.registry.registry import Registry, Version, version_name
from carcond.reports.card_page import card_page
from carcond.reports.card_text import count as count_text
from carcond.taxonomy import TASKS

_SHOWN = 8
# Height in pixels. A report card is ten screens of a phone: it scrolls in a frame of its own.
_CARD_HEIGHT = 700
_VERDICTS = {True: "✓ accepted", False: "✗ refused", None: "not tested"}
_ACTIONS = {"promote": "promoted", "rollback": "rolled back to", "pin": "pinned", "unpin": "unpinned"}
# Keys of the page's state: the choice, and its outcome.
_VERSION, _WHO, _WHY, _DONE, _FAILED = (f"versions-{name}" for name in ("version", "who", "why", "done", "failed"))


def show(project: int) -> None:
    """Show it."""
    st.title("Versions")
    registry = get_shared_services().registry(project)
    rows = version_facts(registry)[::-1]
    if not rows:
        st.info("There is no version yet. The first one is made once two classes of one task are labelled.")
        return
    _show_serving(registry)
    _show_choice(project, registry, rows)
    pruned = len(registry.pruned())
    every = bool(pruned) and st.toggle(f"Show the {pruned} pruned versions too, of which only figures are left")
    shown = version_facts(registry, every=True)[::-1] if every else rows
    st.table([_table_row(row) for row in shown], hide_index=True)
    _show_card(registry, [row["number"] for row in rows])
    _show_record(registry)


def _show_serving(registry: Registry) -> None:
    if _DONE in st.session_state:
        st.success(st.session_state.pop(_DONE))
    if _FAILED in st.session_state:
        show_error(st.session_state.pop(_FAILED))
    serving = registry.current()
    if serving:
        st.markdown(f"**{serving.name}** serves. {_verdict_words(serving)}")
    show_pin(registry)


def _show_choice(project: int, registry: Registry, rows: Sequence[Mapping[str, Any]]) -> None:
    """The form in which a person chooses the serving version.

    Its buttons act on the chosen version, not on the newest one: callbacks run before the page is rendered again.
    Labels make a version every few seconds, while somebody reads and types.
    """
    names = {row["number"]: _option(row) for row in rows}
    serving = registry.current()
    numbers = list(names)
    index = numbers.index(serving.number) if serving and serving.number in names else 0
    with st.expander("Choose what serves", icon=":material/keep:"), st.form("choice"):
        st.write(
            "The version that you choose serves at once, and goes on serving while people label, until somebody "
            "unpins it. Label Studio gets its pre-labels and order."
        )
        st.selectbox("Version to serve", numbers, index=index, format_func=names.__getitem__, key=_VERSION)
        st.text_input("Your name", value=get_shared_services().settings.basic_auth_user, max_chars=80, key=_WHO)
        st.text_input("Reason, for the record", placeholder="calls wet cars dirty", max_chars=500, key=_WHY)
        with st.container(horizontal=True):
            st.form_submit_button("Serve and pin it", type="primary", on_click=_serve_chosen, args=(project,))
            if registry.pin():
                st.form_submit_button("Unpin", on_click=_unpin, args=(project,))


def _option(row: Mapping[str, Any]) -> str:
    card = VersionCard.read(row)
    told = [
        version_name(row["number"]),
        f"{card.labels.used} labels",
        "serves" if row["serving"] else "",
        "refused" if card.is_refused else "",
    ]
    return ", ".join(filter(None, told))


def _serve_chosen(project: int) -> None:
    number = int(st.session_state[_VERSION])
    _act(
        lambda services, who, why: serve_and_pin(services, get_job_queue(), project, number, who=who, why=why),
        f"{version_name(number)} serves and is pinned.",
    )


def _unpin(project: int) -> None:
    _act(
        lambda services, who, why: unpin(services, get_job_queue(), project, who=who, why=why),
        "Nothing is pinned. The newest version that the gate accepted takes over with the next turn.",
    )


def _act(change: Callable[[Services, str, str], Change], done: str) -> None:
    # Services of its own: models are not exchanged from several threads.
    services = Services(get_shared_services().settings)
    try:
        problem = change(services, st.session_state[_WHO], st.session_state[_WHY]).problem
    except CarcondError as error:
        st.session_state[_FAILED] = error
        return
    later = f" Label Studio follows once the worker runs: {escaped(problem)}" if problem else ""
    st.session_state[_DONE] = f"{done}{later}"


def _verdict_words(version: Version) -> str:
    card = version.card
    return f"{_VERDICTS[card.accepted][2:].capitalize()}: {escaped(card.reason)}." if card.reason else ""


def _table_row(row: Mapping[str, Any]) -> dict[str, str]:
    told = [name for name in ("serving", "pinned", "pruned") if row[name]]
    name = f"{row['version']} ({', '.join(told)})".replace("serving", "serves") if told else str(row["version"])
    if "error" in row:
        return {"Version": name, "Gate": "cannot be read"}
    card = VersionCard.read(row)
    verdict = _VERDICTS[card.accepted]
    scores = {f"{task.en}: accuracy / F1": scores_text(card.holdout.get(task.key)) for task in TASKS}
    return {
        "Version": name,
        "Gate": f"{verdict}, held back by the pin" if row["not_served"] else verdict,
        "Train + hold-out": f"{count_text(card.labels.train)} + {count_text(card.labels.holdout)}",
        **scores,
        "Milestone": text(row, "kept"),
    }


def _show_card(registry: Registry, numbers: list[int]) -> None:
    st.header("Report card", divider="gray")
    serving = registry.current()
    index = numbers.index(serving.number) if serving and serving.number in numbers else 0
    number_ = st.selectbox("Version", numbers, index=index, format_func=version_name, width=400)
    try:
        card = registry.card(number_)
    except RegistryError as error:
        show_error(error)
        return
    named = named_card(card, known_names(get_shared_services().api) if card.get("annotators") else {})
    st.iframe(
        card_page(named, framed=True), height=_CARD_HEIGHT, tab_index=0, alt=f"Report card of {version_name(number_)}"
    )


def _show_record(registry: Registry) -> None:
    st.header("What served when", divider="gray")
    kept = set(registry.numbers())
    record = [each for each in registry.history()[::-1] if each.who != LOOP or each.version in kept]
    st.table([_record_row(each) for each in record[:_SHOWN]], hide_index=True)


def _record_row(each: Promotion) -> dict[str, str]:
    return {
        "When (UTC)": format_timestamp(each.when).removesuffix(" UTC"),
        "What": _ACTIONS[each.action],
        "Version": version_name(each.version) + (" (pinned)" if each.pinned and each.changes_serving else ""),
        "Who": escaped(sanitize_line(each.who)),
        "Why": escaped(sanitize_line(each.why, 300)),
    }
