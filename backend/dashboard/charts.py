"""The dashboard's charts. Each has its numbers in words beside it: a screen reader cannot read a chart."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from carcond.analysis.learning_curve import METRICS

METRIC_NAMES = dict(zip(METRICS, ("Accuracy", "Macro-F1"), strict=True))

# Heights in pixels: of a bar with the space around it, and of the axis with its title.
_BAND, _AXIS = 34, 70
# Approximate number of ticks of an axis, as many as fit on a phone.
_TICKS = 6


def curve_rows(curve: Mapping[str, Any], metric: str) -> list[dict[str, float]]:
    """Points of the learning curve so far: {labels, value, low, high}."""
    points = zip(curve["labels"], curve[metric], strict=True)
    return [{"labels": labels, "value": value, "low": low, "high": high} for labels, (value, low, high) in points]


def forecast_rows(forecast: Mapping[str, Any], metric: str) -> list[dict[str, float]]:
    """Points of the forecast, in the same form; empty without one."""
    gain = forecast.get(metric)
    if not gain:
        return []
    now, labels = gain["now"], forecast["labels"]
    ahead = {name: min(max(now + gain[key], 0.0), 1.0) for name, key in _ENDS.items()}
    return [
        {"labels": labels, "value": now, "low": now, "high": now},
        {"labels": labels + forecast["next_labels"], **ahead},
    ]


def _data(rows: Sequence[Mapping[str, Any]]) -> Any:
    return alt.InlineData(values=[dict(row) for row in rows])


_ENDS = {"value": "gain", "low": "low", "high": "high"}


def curve_chart(so_far: Sequence[Mapping[str, float]], ahead: Sequence[Mapping[str, float]], metric: str) -> Any:
    """The learning curve with its band, and the forecast as a dashed line with its own."""
    lowest = min(row["low"] for row in so_far)
    scale = alt.Scale(domain=[max(0.0, lowest - 0.02), 1.0], nice=False)
    x = alt.X("labels:Q", title="labels trained on", axis=alt.Axis(tickMinStep=1, tickCount=_TICKS))
    y = alt.Y("value:Q", title=METRIC_NAMES[metric], scale=scale, axis=alt.Axis(format=".2f"))
    tooltip = [alt.Tooltip("labels:Q"), *(alt.Tooltip(f"{name}:Q", format=".3f") for name in _ENDS)]
    layers = []
    for rows, dash in ((so_far, [1, 0]), (ahead, [5, 4])):
        if rows:
            base = alt.Chart(_data(rows)).encode(x=x, tooltip=tooltip)
            layers.append(base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q"))
            layers.append(base.mark_line(point=dash == [1, 0], strokeDash=dash).encode(y=y))
    return alt.layer(*layers).properties(height=280)


def balance_chart(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Labels of each class, one bar a class.

    Args:
        rows: {class, labels}, in the order to be shown.
    """
    x = alt.X("labels:Q", title="labels", axis=alt.Axis(tickMinStep=1, tickCount=_TICKS))
    y = alt.Y("class:N", title=None, sort=None, axis=alt.Axis(labelLimit=200))
    base = alt.Chart(_data(rows)).encode(x=x, y=y, tooltip=["class:N", "labels:Q"])
    # A share of the band, not pixels: bars sized in pixels overlap where the height left for them is small.
    bars = base.mark_bar(height=alt.RelativeBandSize(band=0.65))
    return (bars + base.mark_text(align="left", dx=4).encode(text="labels:Q")).properties(
        height=_BAND * max(len(rows), 1) + _AXIS
    )
