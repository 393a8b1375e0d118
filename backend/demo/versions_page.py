"""The page "Versions": what serves, what the gate said of each version, report cards, and going back."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from backend.demo.cached import get_shared_services
from backend.demo.notes import escaped, show_error
from backend.demo.rollback import roll_back
from backend.jobs import get_job_queue
from backend.services import Services
from backend.versions_view import scores_text, version_facts
from carcond.card_values import moment, plain
from carcond.errors import CarcondError, RegistryError
from carcond.promotions import Promotion
from carcond.registry import Registry, Version, version_name
from carcond.report_page import card_page
from carcond.report_text import count
from carcond.report_view import read_card
from carcond.taxonomy import TASKS

_SHOWN = 15
_VERDICTS = {True: "✓ accepted", False: "✗ refused", None: "not tested"}
_CONFIRMED = "confirmed-rollback"


def show(project: int) -> None:
    """Show it."""
    st.title("Versions")
    registry = get_shared_services().registry(project)
    rows = version_facts(registry)[::-1]
    if not rows:
        st.info("There is no version yet. The first one is made once two classes of one task are labelled.")
        return
    _show_serving(project, registry)
    every = len(rows) <= _SHOWN or st.toggle(f"Show all {len(rows)} versions")
    st.table([_table_row(row) for row in (rows if every else rows[:_SHOWN])], hide_index=True)
    _show_card(registry, [row["number"] for row in rows])
    _show_record(registry)


def _show_serving(project: int, registry: Registry) -> None:
    if _CONFIRMED in st.session_state:
        st.success(st.session_state.pop(_CONFIRMED))
    serving = registry.current()
    if serving is None:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{serving.name}** serves. {_verdict_words(serving)}", width="stretch")
        if st.button("Roll back …", icon=":material/undo:"):
            _ask_before_rollback(project, serving.number)


def _verdict_words(version: Version) -> str:
    gate = read_card(version.card).gate
    return f"{_VERDICTS[gate.accepted][2:].capitalize()}: {escaped(gate.reason)}." if gate and gate.reason else ""


def _table_row(row: Mapping[str, Any]) -> dict[str, str]:
    name = f"{row['version']} (serves)" if row["serving"] else str(row["version"])
    if "error" in row:
        return {"Version": name, "Gate": "cannot be read"}
    labels, gate = row["labels"], row["gate"]
    told = {task: row["holdout"].get(task.key, {}) for task in TASKS}
    scores = {f"{task.en}: accuracy / F1": scores_text(part) for task, part in told.items()}
    return {
        "Version": name,
        "Gate": _VERDICTS[gate["accepted"] if gate else None],
        "Train + hold-out": f"{count(labels['train'])} + {count(labels['holdout'])}",
        **scores,
    }


@st.dialog("Roll back?", icon=":material/undo:")
def _ask_before_rollback(project: int, serving: int) -> None:
    services = get_shared_services()
    try:
        previous = services.registry(project).previous()
    except RegistryError:
        st.write(f"No version served before {version_name(serving)}: there is nothing to go back to.")
        return
    st.write(
        f"**{previous.name}** will serve at once in place of {version_name(serving)}, and Label Studio gets its "
        "pre-labels and order. The next version that passes the gate serves again."
    )
    who = st.text_input("Your name", value=services.settings.basic_auth_user, max_chars=80)
    why = st.text_input("Reason, for the record", placeholder="calls wet cars dirty", max_chars=500)
    if st.button(f"Roll back to {previous.name}", type="primary"):
        try:
            # Services of its own: models are not exchanged from several threads.
            change = roll_back(Services(services.settings), get_job_queue(), project, serving, who=who, why=why)
        except CarcondError as error:
            show_error(error)
            return
        later = (
            f" Label Studio keeps the old order until the worker runs: {escaped(change.problem)}"
            if change.problem
            else ""
        )
        st.session_state[_CONFIRMED] = f"{previous.name} serves.{later}"
        st.rerun()


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
    st.iframe(card_page(card, framed=True), alt=f"Report card of {version_name(number_)}")


def _show_record(registry: Registry) -> None:
    st.header("What served when", divider="gray")
    record = registry.promotions()[::-1]
    st.table([_record_row(each) for each in record[:_SHOWN]], hide_index=True)


def _record_row(each: Promotion) -> dict[str, str]:
    return {
        "When (UTC)": moment(each.when).removesuffix(" UTC"),
        "What": "rolled back to" if each.action == "rollback" else "promoted",
        "Version": version_name(each.version),
        "Who": escaped(plain(each.who)),
        "Why": escaped(plain(each.why, 300)),
    }
