"""Actions of an annotator on a photo, and their frequencies."""

import random
from enum import StrEnum


class Deed(StrEnum):
    """Sequence of actions on one photo."""

    LABEL = "label"
    """Accept the pre-label, or correct it."""
    CHANGE_MIND = "change_mind"
    """Choose a wrong answer, then the right one."""
    SKIP = "skip"
    CORRECT_LATER = "correct_later"
    """Submit a wrong answer, go back by the arrow, update it, and go on."""
    FROM_LIST = "from_list"
    """Go to the list, open a row, submit it there, change it and update it, and come back to the stream."""
    RELOAD = "reload"
    """Reload the page in the middle of a change."""
    LEAVE = "leave"
    """Go to the list with a change that was not submitted, and come back to it."""


SHARES = {
    Deed.CHANGE_MIND: 0.08,
    Deed.SKIP: 0.04,
    Deed.CORRECT_LATER: 0.06,
    Deed.FROM_LIST: 0.04,
    Deed.RELOAD: 0.03,
    Deed.LEAVE: 0.03,
}
"""Frequencies of actions other than labelling: an assumption."""

_PLAIN_START = 3


def plan_deeds(photos: int, seed: str) -> list[Deed]:
    """The deeds of one annotator in random order, each kind at least once if there are enough photos.

    Args:
        photos: number of deeds.
        seed: of the order.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    special = [deed for deed, share in SHARES.items() for _ in range(max(1, round(share * photos)))]
    room = max(0, photos - _PLAIN_START)
    rng.shuffle(special)
    rest = special[:room] + [Deed.LABEL] * (room - len(special))
    rng.shuffle(rest)
    return [Deed.LABEL] * min(photos, _PLAIN_START) + rest
