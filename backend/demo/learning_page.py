"""The page "Learning": how good the model is, how it got there, and what more labels would bring."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from backend.demo.cached import get_shared_services, learning, quality
from backend.demo.charts import METRIC_NAMES, balance_chart, curve_chart, curve_rows, forecast_rows
from backend.demo.notes import escaped, show_note
from backend.demo.sentences import balance_rows, forecast_sentence, measure_words, saved_sentence
from backend.jobs import get_job_queue
from backend.project_status import project_status
from carcond.quality import GOOD_LABELS, MINIMUM_LABELS
from carcond.report_view import TaskReport, read_card
from carcond.taxonomy import TASKS


def show(project: int) -> None:
    """Show it."""
    st.title("Learning")
    facts = project_status(get_shared_services(), get_job_queue(), project, learning(project))
    st.info(f"**Next:** {escaped(facts['next_step'])}", icon=":material/lightbulb:")
    _show_counts(facts)
    reports = {task.key: task for task in read_card(facts).tasks}
    for task in TASKS:
        st.header(task.en, divider="gray")
        _show_task(facts, task.key, reports.get(task.key))
    st.header("Class balance", divider="gray")
    _show_balance(project)


def _show_counts(facts: Mapping[str, Any]) -> None:
    labels, serving = facts["labels"], facts["serving"]
    with st.container(horizontal=True):
        st.metric("Serving version", serving["version"] if serving else "none yet", border=True)
        st.metric("Labels trained on", labels["train"], border=True)
        st.metric("Labels in the hold-out", labels["holdout"], border=True)
        st.metric("Photos left to label", f"{facts['photos_left']} of {facts['photos']}", border=True)


def _show_task(facts: Mapping[str, Any], key: str, report: TaskReport | None) -> None:
    curve, forecast, saved = (facts[name].get(key, {}) for name in ("curve", "forecast", "labels_saved"))
    if not curve:
        st.write(
            "No labels yet. Label photos in Label Studio: two classes of this task are needed for a first version."
        )
        return
    if report and report.photos:
        with st.container(horizontal=True):
            for name, figure in (("Accuracy", report.accuracy), ("Macro-F1", report.macro_f1)):
                value, interval = measure_words(figure)
                with st.container(border=True, width=260):
                    st.metric(name, value)
                    show_note(f"{interval} on {report.photos} hold-out photos".strip())
    st.write(f"**Chosen or random?** {saved_sentence(saved)}")
    st.write(f"**More labels?** {forecast_sentence(forecast)}")
    if not curve["labels"]:
        st.write(
            "The learning curve begins with 6 labels to train on and 5 in the hold-out; now there are "
            f"{forecast['labels']} and {curve['holdout']}. One label in ten goes to the hold-out."
        )
        return
    metric = st.segmented_control(
        "Figure of the curve",
        list(METRIC_NAMES),
        default="accuracy",
        required=True,
        format_func=METRIC_NAMES.__getitem__,
        key=f"metric-{key}",
    )
    so_far, ahead = curve_rows(curve, metric), forecast_rows(forecast, metric)
    description = f"Learning curve: {METRIC_NAMES[metric]} after so many labels. The table below has the same numbers."
    st.altair_chart(curve_chart(so_far, ahead, metric), alt=description)
    show_note(
        "Heads fitted on the first labels, in the order in which they were made, and measured on today's "
        f"{curve['holdout']} hold-out photos. The band holds the true value 95 times in 100."
        + (" Dashed: the forecast with its 90 % interval." if ahead else "")
    )
    with st.expander("The same as a table"):
        names = {"labels": "Labels", "value": METRIC_NAMES[metric], "low": "From", "high": "To"}
        st.table([{names[k]: f"{v:.3f}" if k != "labels" else str(v) for k, v in row.items()} for row in so_far])


def _show_balance(project: int) -> None:
    balance = quality(project)["balance"]
    show_note(
        f"Fewer than {MINIMUM_LABELS} labels of a class are too few for a model to rely on, "
        f"{GOOD_LABELS} are good. Choosing by uncertainty evens out what the pool is short of, as far as it can."
    )
    for task in TASKS:
        rows = balance_rows(balance, task)
        words = ", ".join(f"{row['class']} {row['labels']} ({row['state']})" for row in rows)
        st.subheader(task.en)
        st.altair_chart(balance_chart(rows), alt=f"Labels of each class of {task.en.lower()}: {words}")
        show_note(words)
