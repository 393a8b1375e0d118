"""The page "Learning": scores of the model, learning curve, and forecast of more labels."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from backend.dashboard.cached import get_shared_services, learning, quality
from backend.dashboard.charts import METRIC_NAMES, balance_chart, curve_chart, curve_rows, forecast_rows
from backend.dashboard.notes import escaped, show_note
from backend.dashboard.pin import show_pin
from backend.dashboard.sentences import balance_rows, forecast_sentence, measure_words, saved_sentence
from backend.jobs.queue import get_job_queue
from backend.project.status import project_status
from carcond.analysis.label_quality import GOOD_LABELS, MINIMUM_LABELS
from carcond.model.version_card import ONE_CLASS, Metrics, VersionCard
from carcond.taxonomy import TASKS


def show(project: int) -> None:
    """Show it."""
    st.title("Learning")
    facts = project_status(get_shared_services(), get_job_queue(), project, learning(project))
    st.info(f"**Next:** {escaped(facts['next_step'])}", icon=":material/lightbulb:")
    _show_counts(facts)
    show_pin(get_shared_services().registry(project))
    holdout = VersionCard.read(facts).holdout
    # One at a time: all of them would be four screens of a phone.
    tabs = st.tabs([*(task.en for task in TASKS), "Class balance"])
    for task, tab in zip(TASKS, tabs[:-1], strict=True):
        with tab:
            _show_task(facts, task.key, holdout.get(task.key, Metrics()))
    with tabs[-1]:
        _show_balance(project)


def _show_counts(facts: Mapping[str, Any]) -> None:
    labels, serving = facts["labels"], facts["serving"]
    with st.container(horizontal=True):
        st.metric("Serving version", serving["version"] if serving else "none yet", border=True)
        st.metric("Labels trained on", labels["train"], border=True)
        st.metric("Labels in the hold-out", labels["holdout"], border=True)
        st.metric("Photos left to label", f"{facts['photos_left']} of {facts['photos']}", border=True)


def _show_task(facts: Mapping[str, Any], key: str, metrics: Metrics) -> None:
    curve, forecast, saved = (facts[name].get(key, {}) for name in ("curve", "forecast", "labels_saved"))
    if not curve:
        st.write(
            "No labels yet. Label photos in Label Studio: two classes of this task are needed for a first version."
        )
        return
    if metrics.photos:
        with st.container(horizontal=True):
            for name, figure in (("Accuracy", metrics.accuracy_measure), ("Macro-F1", metrics.macro_f1_measure)):
                value, interval = measure_words(figure)
                has_none = name == "Macro-F1" and metrics.is_one_class
                with st.container(border=True, width=260):
                    st.metric(name, value)
                    on = f"{interval} on {metrics.photos} hold-out photos".strip()
                    show_note(f"{ONE_CLASS}." if has_none else on)
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
        [name for name in METRIC_NAMES if curve[name]],
        default="accuracy",
        required=True,
        format_func=METRIC_NAMES.__getitem__,
        key=f"metric-{key}",
    )
    so_far, ahead = curve_rows(curve, metric), forecast_rows(forecast, metric)
    description = f"Learning curve: {METRIC_NAMES[metric]} by number of labels. The table below has the same numbers."
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
