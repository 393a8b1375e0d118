"""The versions of a project as facts and as a table."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from carcond.card_values import moment
from carcond.errors import RegistryError
from carcond.plain_page import PlainPage, add_cells
from carcond.registry import Registry, version_name
from carcond.report_text import count, number
from carcond.report_view import Report, read_card
from carcond.taxonomy import TASKS

logger = logging.getLogger(__name__)

_VERDICTS = {True: "accepted", False: "refused", None: "none"}
# A score of fewer hold-out photos says nothing, and looks as if it did: one right of one is 1.000.
_FEWEST_PHOTOS = 10


def version_facts(registry: Registry) -> list[dict[str, Any]]:
    """One JSON-ready row a version, oldest first; a version whose card cannot be read has an `error` in it.

    Returns:
        Rows of {version, number, serving}, and with a readable card {created, encoder_id, labels: {train, holdout},
        holdout: task key -> {photos, accuracy, macro_f1}, gate: {accepted, reason}}; None where a card does not say.
    """
    serving = registry.current()
    rows = []
    for each in registry.numbers():
        row = {
            "version": version_name(each),
            "number": each,
            "serving": serving is not None and each == serving.number,
        }
        try:
            rows.append(row | _card_facts(read_card(registry.card(each))))
        except RegistryError as error:
            rows.append(row | {"error": str(error)})
    return rows


def _card_facts(report: Report) -> dict[str, Any]:
    return {
        "created": report.created,
        "encoder_id": report.encoder_id,
        "labels": {"train": report.train, "holdout": report.holdout},
        "holdout": {
            task.key: {"photos": task.photos, "accuracy": task.accuracy.value, "macro_f1": task.macro_f1.value}
            for task in report.tasks
            if task.photos
        },
        "gate": {"accepted": report.gate.accepted, "reason": report.gate.reason} if report.gate else None,
    }


def scores_text(scores: Mapping[str, Any]) -> str:
    """Accuracy and macro-F1 of a task's part of `version_facts`; of a handful of photos only how many there are."""
    photos = int(scores.get("photos") or 0)
    if 0 < photos < _FEWEST_PHOTOS:
        return f"{photos} photo{'s' if photos > 1 else ''} only"
    return f"{number(scores.get('accuracy'))} / {number(scores.get('macro_f1'))}"


def versions_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `version_facts` as text for a terminal of 100 columns, the newest version first."""
    page = PlainPage(100)
    table = Table(box=box.SIMPLE_HEAD)
    headings = ["", "version", "created", "train +\nhold-out", *(f"{task.en.lower()}\nacc. / F1" for task in TASKS)]
    for heading in [*headings, "gate"]:
        table.add_column(Text(heading), overflow="fold")
    for row in reversed(rows):
        add_cells(table, "*" if row["serving"] else "", row["version"], *_cells(row))
    page.print(table)
    return "\n".join([*filter(None, page.text.splitlines()), "* serves"])


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "error" in row:
        return ["", "", *("" for _ in TASKS), "cannot be read"]
    labels, gate = row["labels"], row["gate"]
    scores = [row["holdout"].get(task.key, {}) for task in TASKS]
    return [
        moment(row["created"]).removesuffix(" UTC"),
        f"{count(labels['train'])} + {count(labels['holdout'])}",
        *map(scores_text, scores),
        _VERDICTS[gate["accepted"] if gate else None],
    ]
