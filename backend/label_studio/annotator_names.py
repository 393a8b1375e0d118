"""Names in place of the annotator ids of the store and of report cards."""

from collections.abc import Mapping
from typing import Any

from backend.label_studio.client import LabelStudioApi
from backend.label_studio.people import name_of, names
from carcond.errors import CarcondError
from carcond.json_fields import rows


def known_names(api: LabelStudioApi) -> dict[int, str]:
    """User id -> name; empty while Label Studio is unreachable: people are shown by number then, and nothing fails."""
    try:
        return names(api)
    except CarcondError:
        return {}


def named_card(card: Mapping[str, Any], known: Mapping[int, str]) -> dict[str, Any]:
    """A report card (see `carcond.evaluation.report_card.report_card`) with names in its rows of annotators."""
    named = [
        {**row, "annotator": name_of(known, row["annotator"])} if isinstance(row.get("annotator"), int) else row
        for row in rows(card, "annotators")
    ]
    return {**card, "annotators": named} if "annotators" in card else dict(card)


def annotators_of(agreement: Mapping[str, Any], known: Mapping[int, str]) -> dict[str, str]:
    """Id, as JSON has it, -> name of everybody in the agreement of a project.

    Args:
        agreement: task key -> see `carcond.analysis.label_quality.task_agreement`.
        known: user id -> name.
    """
    found = {pair[which] for task in agreement.values() for pair in task["pairs"] for which in ("first", "second")}
    return {str(user): name_of(known, user) for user in sorted(found)}
