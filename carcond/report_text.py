"""A model version's report card as plain text for a terminal of 100 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from carcond.card_values import moment
from carcond.plain_page import PlainPage, add_cells, plain_table
from carcond.report_view import GateVerdict, Measure, Report, Row, TaskReport, read_card

_WIDTH = 100
_UNKNOWN = "–"


def card_text(card: Mapping[str, Any]) -> str:
    """The card (see `carcond.report_card.report_card`) as text; parts that it lacks are left out."""
    report = read_card(card)
    page = PlainPage(_WIDTH)
    page.print(_heading(report))
    if report.gate:
        _print_gate(page, report.gate)
    for task in report.tasks:
        _print_task(page, task)
    if report.combined.value is not None:
        answer = f"All tasks right together: {measure(report.combined)} of {report.combined_photos or 0} photos"
        page.print(answer, end="\n\n")
    for title, rows in (("Sources", report.sources), ("Annotators", report.annotators)):
        if rows:
            page.print(_rows_table(title, rows, report.task_names))
    return page.text + "\n"


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where it is not known."""
    return _UNKNOWN if value is None else f"{value:.{digits}f}"


def count(value: int | None) -> str:
    """A count, or a dash where it is not known."""
    return _UNKNOWN if value is None else str(value)


def measure(figure: Measure) -> str:
    """A figure with its 95 % interval."""
    if figure.low is None or figure.high is None:
        return number(figure.value)
    return f"{number(figure.value)} ({number(figure.low)} to {number(figure.high)})"


def _heading(report: Report) -> str:
    facts = {
        "made": moment(report.created),
        "from": report.parent,
        "encoder": report.encoder_id,
        "labels": f"{count(report.train)} for training, {count(report.holdout)} in the hold-out"
        + (f", {report.unusable} without a usable photo" if report.unusable else ""),
    }
    lines = [f"{name:8} {value}" for name, value in facts.items() if value]
    return "\n".join([f"Report card of {report.version or 'an unnamed version'}", *lines, ""])


def _print_gate(page: PlainPage, gate: GateVerdict) -> None:
    verdict = {True: "accepted", False: "refused", None: "no verdict"}[gate.accepted]
    against = f", compared with {gate.against}" if gate.against else ""
    page.print(f"Gate: {verdict}{against}. {gate.reason}", end="\n\n")
    for task in gate.tasks:
        if task.tested is False:
            why = f": {task.untested}" if task.untested else ""
            page.print(f"{task.name}: not tested on {count(task.photos)} hold-out photos{why}", end="\n\n")
    rows = [(task, name, *values) for task in gate.tasks for name, values in task.comparisons.items()]
    if rows:
        table = plain_table(
            "Compared on the same hold-out photos",
            "task",
            *("figure", "photos", "before", "new", "difference"),
            justify="right",
        )
        for task, name, serving, candidate, difference in rows:
            add_cells(
                table, task.name, name, count(task.photos), number(serving), number(candidate), measure(difference)
            )
        page.print(table)


def _print_task(page: PlainPage, task: TaskReport) -> None:
    page.print(f"{task.name}: {count(task.photos)} hold-out photos, {count(task.labels)} labels in all")
    if task.photos:
        page.print(f"  accuracy  {measure(task.accuracy)}")
        page.print(f"  macro-F1  {measure(task.macro_f1)}")
        page.print(f"  precision {number(task.precision)}, recall {number(task.recall)} (mean over classes)")
    page.print(f"  {temperature_words(task)}", end="\n\n")
    if task.confusion:
        names = [each.name for each in task.classes]
        table = plain_table(
            "Classes and confusion",
            "true class",
            "precision",
            "recall",
            "F1",
            *(f"as {n}" for n in names),
            justify="right",
        )
        for each, cells in zip(task.classes, task.confusion, strict=True):
            figures = (number(each.precision), number(each.recall), number(each.f1))
            add_cells(table, each.name, *figures, *map(str, cells))
        page.print(table)
    if task.before.ece is not None or task.after.ece is not None:
        table = plain_table("Calibration", "probabilities", "ECE", "Brier", "NLL", justify="right")
        for name, honesty in (("before, temperature 1", task.before), ("after calibration", task.after)):
            add_cells(table, name, number(honesty.ece), number(honesty.brier), number(honesty.nll))
        page.print(table)


def temperature_words(task: TaskReport) -> str:
    """How the temperature came about."""
    if task.temperature is None:
        return "no temperature is known"
    if task.cross_fitted is False:
        return f"temperature {task.temperature:.2f}: too few labels to choose one"
    on = "" if task.calibration_photos is None else f" on {task.calibration_photos} photos"
    return f"temperature {task.temperature:.2f}, chosen{on} by cross-fitting"


def _rows_table(title: str, rows: Sequence[Row], task_names: Mapping[str, str]) -> Table:
    agreeing = any(row.share is not None for row in rows)
    extra = ("share", "agreement") if agreeing else ()
    scores = [f"{name.lower()}\n{what}" for name in task_names.values() for what in ("accuracy", "macro-F1")]
    table = plain_table(title, "name", "labels", *extra, "hold-out", *scores, justify="right")
    for row in rows:
        shown = (number(row.share, 2), number(row.agreement, 2)) if agreeing else ()
        cells = [row.scores.get(key) for key in task_names]
        figures = [number(v) for cell in cells for v in ((cell.accuracy, cell.macro_f1) if cell else (None, None))]
        add_cells(table, row.name, count(row.labels), *shown, count(row.photos), *figures)
    return table
