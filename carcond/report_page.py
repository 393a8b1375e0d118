"""A model version's report card as one HTML page that needs nothing else."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from carcond import report_text
from carcond.report_view import read_card


def card_page(card: Mapping[str, Any]) -> str:
    """The card (see `carcond.report_card.report_card`) as HTML; parts that it lacks are left out."""
    return _template().render(report=read_card(card))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("carcond", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": report_text.number,
        "count": report_text.count,
        "measure": report_text.measure,
        "temperature": report_text.temperature_words,
    }
    return environment.get_template("report_page.html")
