"""The split ledger: a photo is in train or in hold-out for ever, and its near-duplicates with it.

The hold-out is sampled at random: from the unlabelled pool, to be labelled through the exploration slot, and from
imported labels that no model selected. So a score on it is unbiased. All other labelled photos are for training:
those that a model selected are harder than the pool.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from carcond.data.folds import deal_groups
from carcond.store.tables import Photo

HOLDOUT = "holdout"
"""Split that the model is measured on and never fitted on."""
TRAIN = "train"
"""Split that heads are fitted on."""

LEAST_IMPORTED = 25
"""Minimum number of imported labels before 20 % are held out; 20 % of fewer would be too small to measure on."""
_FIFTH = 5

Classes = Mapping[str, str]
"""Label of a photo: task key -> class key."""


def split_imported(
    photos: Sequence[Photo], labels: Mapping[int, Classes], asked: Collection[int], generator: np.random.Generator
) -> list[Photo]:
    """Hold out a fifth of the photos with imported labels, stratified by the classes of all tasks together.

    Only groups without a split take part, and only those without a model-selected label. The groups are dealt into
    five folds, one of which is held out at random: every photo has the same chance, also when an import arrives in
    several parts. A class keeps a photo for training, so one with a single photo is not held out.

    Args:
        photos: of one project; changed in place.
        labels: task id -> classes of the labelled photos.
        asked: task ids with a prediction: the model may have selected them for labelling.
        generator: random generator.

    Returns:
        The changed photos: those held out and the rest of their groups. `assign_splits` puts the others into train.
    """
    imported = labels.keys() - set(asked)
    if len(imported) < LEAST_IMPORTED:
        return []
    settled = {p.group for p in photos if p.side is not None}
    chosen = {p.group for p in photos if p.task_id in labels and p.task_id not in imported}
    groups: dict[int, list[Classes]] = {}
    for photo in photos:
        if photo.group is not None and photo.group not in settled | chosen and photo.task_id in imported:
            groups.setdefault(photo.group, []).append(labels[photo.task_id])
    if not groups:
        return []
    folds = deal_groups(_kinds(list(groups.values())), _FIFTH, int(generator.integers(2**32)))
    part = int(generator.integers(_FIFTH))
    drawn = {group for group, fold in zip(groups, folds, strict=True) if fold == part}
    drawn -= _indispensable({p.task_id: p for p in photos}, labels, drawn)
    changed = [p for p in photos if p.group in drawn]
    for photo in changed:
        photo.side = HOLDOUT
    return changed


def _kinds(groups: Sequence[Sequence[Classes]]) -> npt.NDArray[np.float64]:
    """Photos of each group by kind ``(G, C)``: one kind has them all, one each class, one each combination."""
    counts = [Counter[object]() for _ in groups]
    for count, members in zip(counts, groups, strict=True):
        for classes in members:
            answers = sorted(classes.items())
            count.update(["", *answers, tuple(answers)])
    kinds = sorted({kind for count in counts for kind in count}, key=repr)
    return np.array([[count[kind] for kind in kinds] for count in counts], dtype=np.float64)


def _indispensable(photos: Mapping[int, Photo], labels: Mapping[int, Classes], drawn: Collection[int]) -> set[int]:
    """Sampled groups with a class of which no photo would be left for training."""
    groups_of: dict[tuple[str, str], set[int]] = {}
    for task_id, classes in labels.items():
        photo = photos.get(task_id)
        if photo and photo.group is not None and photo.side != HOLDOUT:
            for answer in classes.items():
                groups_of.setdefault(answer, set()).add(photo.group)
    scarce = [groups for groups in groups_of.values() if groups <= set(drawn)]
    return {group for groups in scarce for group in groups}


def assign_splits(photos: Sequence[Photo], labelled: Collection[int]) -> list[Photo]:
    """Assign labelled photos and their groups to a split: train, unless their group was sampled for the hold-out.

    A photo that joins a group later, or returns to it, takes the group's split too.

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
    """Randomly sample photos for the hold-out until `wanted` of the unlabelled ones are in it.

    A sampled photo stays in the sample until it is labelled: sampling again would favour the photos that
    are served first, which are the uncertain ones.

    Args:
        photos: of one project; changed in place.
        unlabelled: task ids that can be labelled.
        wanted: number of sampled photos that should await a label.
        generator: random generator.

    Returns:
        The changed photos: those sampled, and the rest of their groups.
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
