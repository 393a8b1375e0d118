"""The versions of a project as facts and as a table."""

import logging
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from carcond.errors import RegistryError
from carcond.json_fields import format_timestamp, mapping, sanitize_line, text
from carcond.model.version_card import Metrics, VersionCard
from carcond.registry.promotions import Promotion
from carcond.registry.registry import COLD_START_VERSION, Registry, pin_words, version_name
from carcond.registry.version_log import figures
from carcond.reports.card_text import count as count_text
from carcond.reports.card_text import number
from carcond.reports.text_page import PlainPage, add_cells
from carcond.taxonomy import TASKS

logger = logging.getLogger(__name__)

_VERDICTS = {True: "accepted", False: "refused", None: "none"}
# Minimum number of hold-out photos for a score: with fewer it means nothing, as one right of one is 1.000.
_FEWEST_PHOTOS = 10
_WIDTH = 100


def version_facts(
    registry: Registry, numbers: Sequence[int] | None = None, *, every: bool = False
) -> list[dict[str, Any]]:
    """One JSON-ready row a version, oldest first; a version whose card cannot be read has an `error` in it.

    Args:
        registry: of the project.
        numbers: of versions that are kept, None for all of them.
        every: the pruned ones too.

    Returns:
        Rows of {version, number, serving, pinned, not_served, kept, pruned} and with a readable card the fields of
        `carcond.registry.version_log.figures`. `not_served` says why an accepted version does not serve while another
        one is pinned, `kept` why a version is never pruned, `pruned` when it was pruned; empty if not.
    """
    serving, pin, log = registry.current(), registry.pin(), registry.log.rows()
    served = {each.version for each in registry.promotions()}
    rows = []
    for number_ in registry.numbers() if numbers is None else numbers:
        row = {
            "version": version_name(number_),
            "number": number_,
            "serving": serving is not None and number_ == serving.number,
            "pinned": pin is not None and number_ == pin.version,
            "not_served": "",
            "kept": log.get(number_, {}).get("kept", ""),
            "pruned": "",
        }
        try:
            row |= figures(registry.card(number_))
        except RegistryError as error:
            rows.append(row | {"error": str(error)})
            continue
        if pin and number_ not in {*served, pin.version} and not VersionCard.read(row).is_refused:
            row["not_served"] = pin_words(pin)
        rows.append(row)
    if every:
        standing = {"serving": False, "pinned": False, "not_served": ""}
        rows += [row | standing for row in registry.pruned().values()]
    return sorted(rows, key=lambda row: int(row["number"]))


def promotion_words(promotion: Promotion) -> str:
    """A line of the record in words."""
    before = COLD_START_VERSION if promotion.before is None else version_name(promotion.before)
    name = version_name(promotion.version)
    change = {
        "promote": f"promoted from {before} to {name}",
        "rollback": f"rolled back from {before} to {name}",
        "pin": f"pinned {name}",
        "unpin": f"unpinned {name}",
    }[promotion.action]
    pinned = " and pinned" if promotion.pinned and promotion.changes_serving else ""
    # A person wrote these; they must not command a terminal.
    return f"{change}{pinned} by {sanitize_line(promotion.who)}: {sanitize_line(promotion.why, 1000)}"


def standing_words(registry: Registry, row: Mapping[str, Any]) -> str:
    """State of a version as sentences: serving, pinned, held back, and why it is kept; `row` is of `version_facts`."""
    pin = registry.pin()
    sentences = [
        "It serves." if row["serving"] else "It does not serve.",
        f"{pin_words(pin)}." if pin and (row["pinned"] or row["not_served"]) else "",
        f"It is kept for ever: {row['kept']}." if row["kept"] else "",
    ]
    return " ".join(filter(None, sentences))


def pruned_text(row: Mapping[str, Any]) -> str:
    """Figures of a pruned version as text: `row` is its line in the log."""
    card, promoted = VersionCard.read(row), mapping(row, "promoted")
    scores = [f"{task.en.lower()} {scores_text(card.holdout.get(task.key))}" for task in TASKS]
    lines = {
        "pruned": f"{format_timestamp(text(row, 'pruned'))}, since it is no milestone; its report and heads are gone",
        "created": format_timestamp(card.created),
        "encoder": card.encoder_id,
        "labels": f"{count_text(card.labels.train)} for training, {count_text(card.labels.holdout)} held out",
        "accuracy / macro-F1": ", ".join(scores),
        "gate": f"{_VERDICTS[card.accepted]}: {card.reason or 'no reason is known'}",
        "served": f"since {format_timestamp(text(promoted, 'when'))}" if promoted else "never",
    }
    return "\n".join([card.version, *(f"  {name}: {value}" for name, value in lines.items()), ""])


def scores_text(scores: Metrics | None) -> str:
    """Accuracy and macro-F1 of a task; only the number of photos when there are few."""
    scores = scores or Metrics()
    photos = scores.photos or 0
    if 0 < photos < _FEWEST_PHOTOS:
        return f"{photos} photo{'s' if photos > 1 else ''} only"
    return f"{number(scores.accuracy)} / {number(scores.macro_f1)}"


def versions_table(registry: Registry, rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `version_facts` as text for a terminal of 100 columns, the newest version first."""
    page = PlainPage(_WIDTH)
    table = Table(box=box.SIMPLE_HEAD)
    headings = ["", "version", "created", "train +\nhold-out", *(f"{task.en.lower()}\nacc. / F1" for task in TASKS)]
    for heading in [*headings, "gate"]:
        table.add_column(Text(heading), overflow="fold")
    for row in reversed(rows):
        add_cells(table, "*" if row["serving"] else "-" if row["pruned"] else "", row["version"], *_cells(row))
    page.print(table)
    return "\n".join([*filter(None, page.text.splitlines()), *_notes(registry, rows)])


def _notes(registry: Registry, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    pin, pruned = registry.pin(), len(registry.pruned())
    with_pruned = any(row["pruned"] for row in rows)
    notes = ["* serves; - pruned, only its figures are left" if with_pruned else "* serves"]
    if pin:
        notes.append(pin_words(pin))
    if any(row["not_served"] for row in rows):
        notes.append("held: accepted, and not served for that")
    if pruned and not with_pruned:
        notes.append(f"pruned and not listed: {pruned}; carcond versions list --project {registry.root.name} --all")
    return [fill(note, _WIDTH) for note in notes]


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "error" in row:
        return ["", "", *("" for _ in TASKS), "cannot be read"]
    card = VersionCard.read(row)
    return [
        format_timestamp(card.created).removesuffix(" UTC"),
        f"{count_text(card.labels.train)} + {count_text(card.labels.holdout)}",
        *(scores_text(card.holdout.get(task.key)) for task in TASKS),
        "held" if row["not_served"] else _VERDICTS[card.accepted],
    ]
