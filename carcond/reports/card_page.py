"""A model version's report card as one HTML page that needs nothing else: no script, font, picture or network."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from carcond.evaluation.intervals import wilson_interval
from carcond.json_fields import format_timestamp
from carcond.model.version_card import ONE_CLASS, Bin, Measure, Metrics, VersionCard
from carcond.reports.card_text import count, measure, number, temperature_words

# The reliability diagram's plot area in its own units: from (_LEFT, _TOP) to (_LEFT + _WIDTH, _TOP + _HEIGHT).
_LEFT, _TOP, _WIDTH, _HEIGHT = 62, 10, 278, 240


def card_page(card: Mapping[str, Any], *, framed: bool = False) -> str:
    """The card (see `carcond.evaluation.report_card.report_card`) as HTML; parts that it lacks are left out.

    Args:
        card: the facts to show; all texts are escaped.
        framed: add the script by which an embedding page measures its height.
    """
    return _template().render(report=VersionCard.read(card), framed=framed)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("carcond.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "count": count,
        "measure": measure,
        "moment": format_timestamp,
        "percent": _percent,
        "range": _range,
        "percent_range": _percent_range,
        "temperature": temperature_words,
        "axis_start": _axis_start,
        "across": _across,
        "down": _down,
        "ends": _ends,
    }
    environment.globals["one_class"] = ONE_CLASS
    return environment.get_template("report_page.html")


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _range(figure: Measure) -> str:
    return "" if figure.low is None else f"{number(figure.low)} to {number(figure.high)}"


def _percent_range(figure: Measure) -> str:
    return "" if figure.low is None else f"{_percent(figure.low)} to {_percent(figure.high)}"


def _axis_start(metrics: Metrics) -> float:
    """No confidence in the most probable class lies below an even chance."""
    return 1 / max(len(metrics.confusion), 2) if metrics.confusion else 0.0


def _across(confidence: float, start: float) -> float:
    return round(_LEFT + _WIDTH * max(confidence - start, 0) / (1 - start), 1)


def _down(accuracy: float) -> float:
    return round(_TOP + _HEIGHT * (1 - accuracy), 1)


def _ends(bin_: Bin) -> tuple[float, float]:
    """The 95 % interval of a bin's accuracy."""
    return wilson_interval(round(bin_.accuracy * bin_.photos), bin_.photos)
