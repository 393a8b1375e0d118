"""A project's status as plain text for a terminal of 100 columns."""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

from rich.table import Table

from backend.project.finetune_status import finetune_text
from carcond.json_fields import count, flag, format_timestamp, mapping, number, sanitize_line, text
from carcond.model.version_card import VersionCard, task_name
from carcond.reports.card_text import macro_f1_words, measure
from carcond.reports.card_text import number as figure
from carcond.reports.text_page import PlainPage, add_cells, plain_table

_WIDTH = 100


def status_text(facts: Mapping[str, Any]) -> str:
    """The facts (see `backend.project.status.project_status`) as text."""
    page = PlainPage(_WIDTH)
    page.print(_heading(facts))
    for table in (_scores(facts), _forecast(facts), _saved(facts)):
        if table.row_count:
            page.print(table)
    page.print(f"Next: {sanitize_line(facts['next_step'], 300)}")
    return page.text


def _heading(facts: Mapping[str, Any]) -> str:
    serving, labels, newest = mapping(facts, "serving"), mapping(facts, "labels"), mapping(facts, "newest")
    by = f", by {text(serving, 'who')}" if serving.get("who") else ""
    serves = (
        f"{text(serving, 'version')} since {format_timestamp(text(serving, 'since'))}{by}"
        if serving
        else "no version yet"
    )
    verdict = {True: "accepted", False: "refused", None: "not tested"}[flag(newest, "accepted")]
    reason = sanitize_line(newest.get("reason") or "", 300)
    unusable = f", {count(labels, 'unusable')} without a usable photo" if count(labels, "unusable") else ""
    lines = {
        "serving": serves,
        "pinned": _pin_line(mapping(facts, "pinned"), facts["project"]),
        "gate": f"{text(newest, 'version')} {verdict}{': ' if reason else ''}{reason}" if newest else "",
        "labels": f"{count(labels, 'train')} for training, {count(labels, 'holdout')} in the hold-out{unusable}",
        "photos": f"{facts['photos']}, of which {facts['photos_left']} are to be labelled, "
        f"{facts['photos_skipped']} were skipped and {facts['photos_unreadable']} cannot be read",
        "prelabel": _anchoring_line(mapping(facts, "anchoring")),
        "jobs": _jobs_line(mapping(facts, "jobs")),
        "finetune": finetune_text(mapping(facts, "finetune")).replace("\n", "\n" + 9 * " "),
    }
    shown = [line for name, value in lines.items() if value for line in f"{name:8} {value}".splitlines()]
    shown = [fill(line, _WIDTH, subsequent_indent=9 * " ") for line in shown]
    return "\n".join([f"Project {facts['project']}", *shown, ""])


def _pin_line(pin: Mapping[str, Any], project: int) -> str:
    if not pin:
        return ""
    return (
        f"{text(pin, 'version')} since {format_timestamp(text(pin, 'since'))}, by {text(pin, 'who')}: "
        f"{sanitize_line(pin.get('why') or '', 300)}. Newer versions do not serve until: "
        f'carcond versions unpin --project {project} --why "..."'
    )


def _anchoring_line(tasks: Mapping[str, Any]) -> str:
    known = [(task_name(key), mapping(tasks, key)) for key in tasks if mapping(tasks, key).get("interval")]
    rates = [
        f"{name} {each['rate']:.0%} ({each['interval'][0]:.0%} to {each['interval'][1]:.0%})" for name, each in known
    ]
    return f"wrong ones kept, with 95 % intervals: {', '.join(rates)}" if rates else ""


def _jobs_line(jobs: Mapping[str, Any]) -> str:
    if not jobs.get("reachable"):
        return text(jobs, "reason")
    waiting = sum(int(value) for value in mapping(jobs, "waiting").values())
    workers = count(jobs, "workers")
    alive = "no worker is alive" if not workers else f"{workers} worker{'s' if workers > 1 else ''} alive"
    failed = f", {count(jobs, 'failed')} failed within the last hour" if count(jobs, "failed") else ""
    ended = f", last turn ended {format_timestamp(text(jobs, 'last_turn'))}" if jobs.get("last_turn") else ""
    return f"{waiting} waiting, {alive}{failed}{ended}"


def _scores(facts: Mapping[str, Any]) -> Table:
    table = plain_table("On the hold-out, with 95 % intervals", "task", "photos", "accuracy", "macro-F1")
    for task in VersionCard.read(facts).tasks:
        metrics = task.metrics
        if metrics.photos:
            scores = (measure(metrics.accuracy_measure), macro_f1_words(metrics))
            add_cells(table, task.name, str(metrics.photos), *scores)
    return table


def _forecast(facts: Mapping[str, Any]) -> Table:
    tasks = mapping(facts, "forecast")
    ahead = next((count(mapping(tasks, key), "next_labels") for key in tasks), None)
    title = f"What {ahead} more labels would bring, with 90 % intervals"
    table = plain_table(title, "task", "curve", "accuracy", "macro-F1")
    for key in tasks:
        task = mapping(tasks, key)
        state = f"too few labels: {text(task, 'missing')}" if task.get("missing") else text(task, "state")
        gains = [_gain(mapping(task, metric)) for metric in ("accuracy", "macro_f1")]
        add_cells(table, task_name(key), state, *gains)
    return table


def _gain(gain: Mapping[str, Any]) -> str:
    value, low, high = (number(gain, name) for name in ("gain", "low", "high"))
    if value is None or low is None or high is None:
        return figure(None)
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _saved(facts: Mapping[str, Any]) -> Table:
    title = "Chosen labels against labels of random photos, with 90 % intervals"
    table = plain_table(title, "task", "drawn", "labels needed, random = 1")
    tasks = mapping(facts, "labels_saved")
    for key in tasks:
        task = mapping(tasks, key)
        ratio, low, high = (number(task, name) for name in ("ratio", "low", "high"))
        if not task.get("known") or ratio is None or low is None or high is None:
            said = f"not yet known: {sanitize_line(task.get('missing') or '', 200)}"
        else:
            said = f"{ratio:.2f} ({low:.2f} to {high:.2f}), seen on the first {count(task, 'compared')} labels"
        add_cells(table, task_name(key), str(count(task, "drawn")), said)
    return table
