"""Learning curves as a picture."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from carcond.errors import PlotError

_METRICS = (("accuracy", "accuracy"), ("macro_f1", "macro-F1"), ("ece", "calibration error"))


def check_can_plot() -> None:
    """Check before a long run that its plot can be drawn.

    Raises:
        PlotError: the package that draws is not installed.
    """
    if find_spec("matplotlib") is None:
        raise PlotError("drawing needs a package: pip install matplotlib")


def save_plot(report: Mapping[str, Any], path: Path) -> list[Path]:
    """Draw the curves of a simulation with their 95 % bands: a row a task, a column a metric.

    Args:
        report: from `carcond.analysis.simulation_report.report`.
        path: its suffix is replaced; the directory is made.

    Returns:
        The PNG and the SVG that were written.
    """
    # Imported here: it takes a second, and only plots need it. A Figure of its own needs no display.
    from matplotlib.figure import Figure  # noqa: PLC0415

    tasks = report["tasks"]
    figure = Figure(figsize=(15, 4.2 * len(tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), len(_METRICS), squeeze=False)
    for row, (task, strategies) in zip(axes, tasks.items(), strict=True):
        for ax, (metric, title) in zip(row, _METRICS, strict=True):
            for name, curve in strategies.items():
                _draw(ax, name, curve["labels"], curve[metric])
            full = report["full"][task]
            ax.axhline(full[metric], color="grey", linestyle=":", linewidth=1, label=f"all {full['labels']} labels")
            ax.set(title=f"{task}: {title}", xlabel="labelled photos", ylabel=title)
            ax.grid(alpha=0.3)
        row[0].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(".png"), path.with_suffix(".svg")]
    for file in written:
        figure.savefig(file)
    return written


def _draw(ax: Any, name: str, labels: list[list[float]], curve: list[list[float]]) -> None:
    counts = [count for count, _ in labels]
    (line,) = ax.plot(counts, [mean for mean, _ in curve], label=name, linewidth=1.5)
    # Metrics lie in 0..1; with few seeds the band would stretch the axis far beyond.
    low = [max(mean - band, 0) for mean, band in curve]
    high = [min(mean + band, 1) for mean, band in curve]
    ax.fill_between(counts, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
