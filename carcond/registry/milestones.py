"""Retention rule of versions: every label makes a version, and only milestones are kept for ever.

Kept are the newest `NEWEST`, the serving one, and for ever

- those that a person promoted, rolled back to, pinned, or replaced by doing so,
- the first one, the first on each encoder, and the first there that served or was refused: the encoder's trial,
- the first that the gate refused in a row of refusals,
- the first at each milestone of the label count, see `size_reached`: candidates for the gate's baseline.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from carcond.model.version_card import VersionCard

NEWEST = 10
"""Number of newest versions that are always kept, for rollbacks while labelling."""

_FIRST_SIZES = (10, 25, 50)
# Times 100, 1 000, ...: no step is greater than half as much again, so a baseline of half a candidate's labels or
# fewer has at least a third of them.
_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5)


def size_reached(labels: int) -> int:
    """Greatest milestone of 10, 25, 50, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, ... labels; 0 below 10."""
    if labels < 100:
        return max((size for size in _FIRST_SIZES if size <= labels), default=0)
    unit = 10 ** (len(str(labels)) - 1)
    return max(size for step in _STEPS if (size := int(step * unit)) <= labels)


@dataclass(frozen=True)
class Past:
    """Summary of the versions before the one in question.

    Attributes:
        size: milestone of the label count that was reached without a refusal.
        encoders: ids of encoders on which there was a version.
        tried: those of them on which a version served or was refused.
        refused: True when the gate refused the last one.
        empty: True when there was none.
    """

    size: int = 0
    encoders: frozenset[str] = frozenset()
    tried: frozenset[str] = frozenset()
    refused: bool = False
    empty: bool = True

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "Past":
        """The past after the rows (see `carcond.registry.version_log`) of the versions before, ascending."""
        past = cls()
        for row in rows:
            past = past.after(row)
        return past

    def after(self, row: Mapping[str, Any]) -> "Past":
        """The past once this version belongs to it."""
        card = VersionCard.read(row)
        return Past(
            self.size if card.is_refused else max(self.size, size_reached(card.labels.used)),
            self.encoders | {card.encoder_id},
            self.tried | {card.encoder_id} if card.is_refused or row.get("promoted") else self.tried,
            card.is_refused,
            empty=False,
        )


def reason_to_keep(row: Mapping[str, Any], past: Past, chosen: Collection[int]) -> str:
    """Reason for which a version is kept for ever, in words; empty when it is not.

    Args:
        row: of the version, see `carcond.registry.version_log`.
        past: of the versions before.
        chosen: numbers of those that people selected, see `carcond.registry.promotions.chosen_by_people`.
    """
    card = VersionCard.read(row)
    size, encoder = size_reached(card.labels.used), card.encoder_id
    was_tried = card.is_refused or row.get("promoted")
    reasons = (
        ("error" in row, "its card cannot be read"),
        (row.get("number") in chosen, "chosen or replaced by a person"),
        (past.empty, "the first version"),
        (encoder not in past.encoders, "the first on its encoder"),
        (was_tried and encoder not in past.tried, "the trial of its encoder"),
        (card.is_refused and not past.refused, "refused by the gate"),
        (not card.is_refused and size > past.size, f"the first with {size} labels"),
    )
    return next((words for applies, words in reasons if applies), "")
