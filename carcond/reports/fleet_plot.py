"""A fleet's months as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def save_fleet_plot(facts: Mapping[str, Any], path: Path) -> None:
    """Plot the shares of dirty and damaged visits by month, with the numbers of visits.

    Args:
        facts: from `carcond.analysis.fleet.fleet_facts`.
        path: a PNG file; its directory is made.
    """
    # Imported here: it takes a second, and only plots need it. A Figure of its own needs no display.
    from matplotlib.figure import Figure  # noqa: PLC0415

    months = facts["months"]
    names = [each["month"] for each in months]
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    shares, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for key, colour in (("dirty", "#8c5a1e"), ("damaged", "#b3202c")):
        values = [float("nan") if each[key]["share"] is None else each[key]["share"] for each in months]
        shares.plot(names, values, marker="o", color=colour, label=key)
    shares.set(ylim=(-0.03, 1.03), ylabel="share of visits", title=f"Fleet of {facts['subjects']} {facts['by']}s")
    shares.grid(alpha=0.3)
    shares.legend()
    counts.bar(names, [max(each["dirty"]["known"], each["damaged"]["known"]) for each in months], color="#7a8795")
    counts.set(ylabel="visits", xlabel="month")
    counts.tick_params(axis="x", rotation=45)
    if not months:
        shares.text(0.5, 0.5, "no photo has a date", transform=shares.transAxes, ha="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=110)
