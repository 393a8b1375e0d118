"""Findings as a table for a terminal, and as JSON."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.doctor.checks import PROJECT_CHECKS, STACK_CHECKS
from backend.doctor.finding import Finding, Level

_STYLES = {Level.FAULT: "bold red", Level.UNCHECKED: "magenta", Level.WARNING: "yellow", Level.FINE: "green"}
_ABOUT = {check.name: check.about for check in (*STACK_CHECKS, *PROJECT_CHECKS)}


def worst(findings: Sequence[Finding]) -> Level:
    """The worst level that was found."""
    return next((level for level in Level if any(f.level == level for f in findings)), Level.FINE)


def findings_json(findings: Sequence[Finding], seconds: float) -> dict[str, Any]:
    """JSON-ready: the worst `level`, the duration in seconds, and all findings."""
    return {
        "level": worst(findings).value,
        "seconds": round(seconds, 2),
        "findings": [finding.as_json() for finding in findings],
    }


def print_findings(findings: Sequence[Finding], seconds: float) -> None:
    """Print the stack's findings, then each project's, and one line about all of them."""
    console = Console(markup=False, highlight=False, emoji=False)
    for project in dict.fromkeys(finding.project for finding in findings):
        console.print("The stack" if project is None else f"Project {project}", style="bold")
        console.print(_table([finding for finding in findings if finding.project == project]))
    console.print(_summary(findings, seconds))


def _table(findings: Sequence[Finding]) -> Table:
    """The findings of the stack, or of one project."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    unchecked: dict[str, list[str]] = {}
    for finding in findings:
        if finding.level == Level.UNCHECKED:
            unchecked.setdefault(finding.what, []).append(_ABOUT[finding.check])
        else:
            style = _STYLES[finding.level]
            table.add_row(Text(finding.level.value, style), Text(_ABOUT[finding.check]), _words(finding))
    for reason, names in unchecked.items():
        table.add_row(
            Text(Level.UNCHECKED.value, _STYLES[Level.UNCHECKED]), Text(""), Text(f"{reason}: {', '.join(names)}")
        )
    return table


def _words(finding: Finding) -> Text:
    """Problem, consequence and fix, each on a line."""
    words = Text(finding.what)
    if finding.why:
        words.append(f"\n{finding.why}", "dim")
    if finding.fix:
        words.append("\nFix: ", "bold").append(finding.fix)
    return words


def _summary(findings: Sequence[Finding], seconds: float) -> str:
    """One line about all of them."""
    counts = {level: sum(f.level == level for f in findings) for level in Level}
    named = {Level.FAULT: "fault", Level.WARNING: "warning"}
    parts = [f"{counts[level]} {word}{'' if counts[level] == 1 else 's'}" for level, word in named.items()]
    if counts[Level.UNCHECKED]:
        parts.append(f"{counts[Level.UNCHECKED]} not checked")
    return f"{', '.join(parts)}, {counts[Level.FINE]} fine, in {seconds:.1f} s"
