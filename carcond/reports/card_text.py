"""A model version's report card as plain text for a terminal of 100 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from carcond.json_fields import format_timestamp
from carcond.model.version_card import ONE_CLASS, Calibration, Gate, Measure, Metrics, Row, TaskReport, VersionCard
from carcond.reports.text_page import PlainPage, add_cells, plain_table

_WIDTH = 100
_UNKNOWN = "–"


def card_text(card: Mapping[str, Any]) -> str:
    """The card (see `carcond.evaluation.report_card.report_card`) as text; parts that it lacks are left out."""
    report = VersionCard.read(card)
    page = PlainPage(_WIDTH)
    page.print(_heading(report))
    if report.gate:
        _print_gate(page, report, report.gate)
    for task in report.tasks:
        _print_task(page, task)
    if report.combined.accuracy is not None:
        right = measure(report.combined.accuracy_measure)
        page.print(f"All tasks right together: {right} of {report.combined.photos or 0} photos", end="\n\n")
    for title, rows in (("Sources", report.sources), ("Annotators", report.annotators)):
        if rows:
            page.print(_rows_table(title, rows, report.task_names))
    return page.text + "\n"


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash if None."""
    return _UNKNOWN if value is None else f"{value:.{digits}f}"


def count(value: int | None) -> str:
    """A count, or a dash if None."""
    return _UNKNOWN if value is None else str(value)


def measure(figure: Measure) -> str:
    """A figure with its 95 % interval."""
    if figure.low is None or figure.high is None:
        return number(figure.value)
    return f"{number(figure.value)} ({number(figure.low)} to {number(figure.high)})"


def macro_f1_words(metrics: Metrics) -> str:
    """The macro-F1 with its 95 % interval, or why there is none."""
    return ONE_CLASS if metrics.is_one_class else measure(metrics.macro_f1_measure)


def _heading(report: VersionCard) -> str:
    labels = report.labels
    facts = {
        "made": format_timestamp(report.created),
        "from": report.parent,
        "encoder": report.encoder_id,
        "labels": f"{count(labels.train)} for training, {count(labels.holdout)} in the hold-out"
        + (f", {labels.unusable} without a usable photo" if labels.unusable else ""),
    }
    lines = [f"{name:8} {value}" for name, value in facts.items() if value]
    return "\n".join([f"Report card of {report.version or 'an unnamed version'}", *lines, ""])


def _print_gate(page: PlainPage, report: VersionCard, gate: Gate) -> None:
    verdict = {True: "accepted", False: "refused", None: "no verdict"}[gate.accepted]
    against = f", compared with {gate.against}" if gate.against else ""
    page.print(f"Gate: {verdict}{against}. {gate.reason}", end="\n\n")
    for name, task, _ in report.gate_tasks:
        if task.tested is False:
            why = f": {task.untested}" if task.untested else ""
            page.print(f"{name}: not tested on {count(task.photos)} hold-out photos{why}", end="\n\n")
    rows = [(name, task, *each) for name, task, compared in report.gate_tasks for each in compared.items()]
    if rows:
        table = plain_table(
            "Compared on the same hold-out photos",
            "task",
            *("figure", "photos", "before", "new", "difference"),
            justify="right",
        )
        for name, task, figure, each in rows:
            figures = (number(each.serving), number(each.candidate), measure(each.measure))
            add_cells(table, name, figure, count(task.photos), *figures)
        page.print(table)


def _print_task(page: PlainPage, task: TaskReport) -> None:
    metrics = task.metrics
    page.print(f"{task.name}: {count(metrics.photos)} hold-out photos, {count(task.labels)} labels in all")
    if metrics.photos:
        page.print(f"  accuracy  {measure(metrics.accuracy_measure)}")
        page.print(f"  macro-F1  {macro_f1_words(metrics)}")
        page.print(f"  precision {number(metrics.precision)}, recall {number(metrics.recall)} (mean over classes)")
    page.print(f"  {temperature_words(task.calibration)}", end="\n\n")
    if metrics.confusion:
        table = plain_table(
            "Classes and confusion",
            "true class",
            "precision",
            "recall",
            "F1",
            *(f"as {name}" for name, _ in task.classes),
            justify="right",
        )
        for (name, each), cells in zip(task.classes, metrics.confusion, strict=True):
            figures = (number(each.precision), number(each.recall), number(each.f1))
            add_cells(table, name, *figures, *map(str, cells))
        page.print(table)
    if metrics.before.ece is not None or metrics.after.ece is not None:
        table = plain_table("Calibration", "probabilities", "ECE", "Brier", "NLL", justify="right")
        for name, honesty in (("before, temperature 1", metrics.before), ("after calibration", metrics.after)):
            add_cells(table, name, number(honesty.ece), number(honesty.brier), number(honesty.nll))
        page.print(table)


def temperature_words(calibration: Calibration) -> str:
    """Temperature of a task and its calibration, in words."""
    if calibration.temperature is None:
        return "no temperature is known"
    if calibration.cross_fitted is False:
        return f"temperature {calibration.temperature:.2f}: too few labels to choose one"
    words = f"temperature {calibration.temperature:.2f}, chosen"
    photos, held_out = calibration.photos, calibration.holdout_photos
    if not photos:
        return f"{words} by cross-fitting"
    if held_out is None:  # a card of an earlier release, which counts all labels
        return f"{words} on {photos} photos by cross-fitting"
    parts = [f"{photos - held_out} training photos by cross-fitting"] if photos > held_out else []
    parts += [f"{held_out} photos of the hold-out"] if held_out else []
    return f"{words} on {' and '.join(parts)}"


def _rows_table(title: str, rows: Sequence[Row], task_names: Mapping[str, str]) -> Table:
    agreeing = any(row.share is not None for row in rows)
    extra = ("share", "agreement") if agreeing else ()
    scores = [f"{name.lower()}\n{what}" for name in task_names.values() for what in ("accuracy", "macro-F1")]
    table = plain_table(title, "name", "labels", *extra, "hold-out", *scores, justify="right")
    for row in rows:
        shown = (number(row.share, 2), number(row.agreement, 2)) if agreeing else ()
        cells = [row.tasks.get(key, Metrics()) for key in task_names]
        figures = [number(value) for cell in cells for value in (cell.accuracy, cell.macro_f1)]
        add_cells(table, row.name, count(row.labels), *shown, count(row.photos), *figures)
    return table
