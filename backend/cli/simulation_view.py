"""Terminal output of `carcond simulate`: progress, and tables of the labels saved."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_SHOWN_COUNTS = (50, 100, 200, 400)
_SHOWN_METRICS = {"macro_f1": "macro-F1", "ece": "calibration error"}


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Progress bar on standard error; yields a callback for the numbers of done and of all items."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(title, total=None)

        def tell(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        yield tell


def simulation_table(facts: Mapping[str, Any]) -> str:
    """Curves at some label counts, and labels needed, as text; see `carcond.analysis.simulation_report.report`."""
    console = Console(file=StringIO(), width=120)
    for task, strategies in facts["tasks"].items():
        for metric, name in _SHOWN_METRICS.items():
            full = facts["full"][task]
            title = f"{task}: {name} (all {full['labels']} labels: {full[metric]:.3f}), 95 % band over {_splits(facts)}"
            console.print(_curve_table(title, metric, strategies))
        for metric, shares in facts["needed"][task].items():
            console.print(_needed_table(task, metric, shares, list(strategies)))
    return str(console.file.getvalue())  # type: ignore[attr-defined] # it is the StringIO above


def _splits(facts: Mapping[str, Any]) -> str:
    return f"{facts['seeds']} test sets" if facts["test_sets"] > 1 else f"{facts['seeds']} seeds on one test set"


def _curve_table(title: str, metric: str, strategies: Mapping[str, Any]) -> Table:
    counts = [int(count) for count, _ in next(iter(strategies.values()))["labels"]]
    shown = [count for count in _SHOWN_COUNTS if count in counts]
    table = Table("strategy", *(f"{count} labels" for count in shown), title=title)
    for name, curve in strategies.items():
        cells = [curve[metric][counts.index(count)] for count in shown]
        table.add_row(name, *(f"{mean:.3f} ± {band:.3f}" for mean, band in cells))
    return table


def _needed_table(task: str, metric: str, shares: Mapping[str, Any], names: list[str]) -> Table:
    title = f"{task}: labels needed for a share of the full {metric}, relative to random"
    table = Table("strategy", *(f"{float(share):.0%}" for share in shares), title=title)
    for name in names:
        table.add_row(name, *(_needed_cell(row[name]) for row in shares.values()))
    return table


def _needed_cell(needed: Mapping[str, float | None]) -> str:
    labels, relative = needed["labels"], needed["relative"]
    if labels is None:
        return "not reached"
    return f"{labels:.0f}" if relative is None else f"{labels:.0f} ({relative:.2f})"
