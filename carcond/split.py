"""The split ledger: a photo is in train or in hold-out for ever, and its near-duplicates with it.

The hold-out is drawn at random from the unlabelled pool and labelled through the exploration slot,
so a score on it is unbiased. Photos labelled in any other way train.
"""

from collections.abc import Collection, Sequence

import numpy as np

from carcond.tables import Photo

HOLDOUT = "holdout"
"""Side of the split that the model is measured on and never fitted on."""
TRAIN = "train"
"""Side of the split that heads are fitted on."""


def settle_sides(photos: Sequence[Photo], labelled: Collection[int]) -> list[Photo]:
    """Give labelled photos and their groups a side: they train unless their group was drawn before.

    A photo that came late to a group, or came back to it, takes the group's side too.

    Args:
        photos: of one project; changed in place.
        labelled: task ids with a label.

    Returns:
        The changed photos.
    """
    sides = {p.group: p.side for p in photos if p.side is not None}
    for photo in photos:
        if photo.task_id in labelled:
            sides.setdefault(photo.group, TRAIN)
    changed = [p for p in photos if p.side is None and p.group is not None and p.group in sides]
    for photo in changed:
        photo.side = sides[photo.group]
    return changed


def draw_holdout(
    photos: Sequence[Photo], unlabelled: Collection[int], wanted: int, generator: np.random.Generator
) -> list[Photo]:
    """Draw photos for the hold-out until `wanted` of the unlabelled ones are drawn.

    A drawn photo stays drawn until it is labelled: drawing again would favour the photos that are
    served first, which are the uncertain ones.

    Args:
        photos: of one project; changed in place.
        unlabelled: task ids that can be labelled.
        wanted: how many drawn photos should be waiting for a label.
        generator: source of chance.

    Returns:
        The changed photos: those drawn, and the rest of their groups.
    """
    waiting = [p for p in photos if p.drawn and p.task_id in unlabelled]
    settled = {p.group for p in photos if p.side is not None}
    changed: list[Photo] = []
    for _ in range(wanted - len(waiting)):
        eligible = [p for p in photos if p.group is not None and p.group not in settled and p.task_id in unlabelled]
        if not eligible:
            break
        drawn = eligible[int(generator.integers(len(eligible)))]
        drawn.drawn = True
        settled.add(drawn.group)
        for photo in photos:
            if photo.group == drawn.group:
                photo.side = HOLDOUT
                changed.append(photo)
    return changed
