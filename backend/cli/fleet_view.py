"""Output of `carcond fleet`: text for terminals, and rows for CSV."""

from collections.abc import Mapping, Sequence
from typing import Any

from carcond.reports.text_page import PlainPage, add_cells, plain_table

_WIDTH = 120


def fleet_rows(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each car or driver, as CSV has them; see `carcond.analysis.fleet.fleet_facts`."""
    rows = []
    for each in facts["rows"]:
        shares = {key: each[key]["share"] for key in ("dirty", "damaged")}
        rows.append({facts["by"]: each["name"], **each, **shares})
        del rows[-1]["name"]
    return rows


def fleet_text(facts: Mapping[str, Any]) -> str:
    """The facts as text."""
    page = PlainPage(_WIDTH)
    kind = facts["by"]
    page.print(f"{facts['subjects']} {kind}s, {facts['visits']} visits, {facts['photos']} photos")
    page.print(f"dirty at the latest visit: {_share_words(facts['dirty'])}")
    page.print(f"damaged at the latest visit: {_share_words(facts['damaged'])}", end="\n\n")
    table = plain_table(f"Each {kind}", kind, "visits", "last", "cleanliness", "damage", "dirty", "damaged", "trend")
    for row in facts["rows"]:
        told = [f"{row[key]} {row[f'{key}_confidence']:.2f}" for key in ("cleanliness", "damage")]
        shares = [_percent(row[key]["share"]) for key in ("dirty", "damaged")]
        add_cells(table, row["name"], str(row["visits"]), row["last"], *told, *shares, row["trend"])
    page.print(table)
    if facts["months"]:
        table = plain_table("Each month", "month", "dirty", "damaged")
        for row in facts["months"]:
            add_cells(table, row["month"], _share_words(row["dirty"]), _share_words(row["damaged"]))
        page.print(table)
    for title, key in (("Safety warnings", "warnings"), ("Reminders", "reminders")):
        _print_notices(page, title, kind, facts[key])
    if facts["for_a_human"]:
        table = plain_table("To be looked at by a human", kind, "day", "photos", "why")
        for row in facts["for_a_human"]:
            add_cells(table, row["name"], row["day"], "\n".join(row["files"]), "\n".join(row["reasons"]))
        page.print(table)
    return page.text


def _print_notices(page: PlainPage, title: str, kind: str, notices: Sequence[Mapping[str, str]]) -> None:
    if not notices:
        return
    table = plain_table(title, kind, "day", "")
    for notice in notices:
        add_cells(table, notice["name"], notice["day"], notice["text"])
    page.print(table)


def _share_words(share: Mapping[str, Any]) -> str:
    return f"{_percent(share['share'])} ({share['count']} of {share['known']})"


def _percent(share: float | None) -> str:
    return "not known" if share is None else f"{share:.0%}"
