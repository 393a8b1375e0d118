"""The split ledger: a photo is in train or in hold-out for ever, and its near-duplicates with it.

The split is settled when photos arrive, before any model has seen them: a tenth of their groups, sampled at random, is
held out, to be labelled through the exploration slot. Of imported labels that no model selected it is a fifth. So a
score on the hold-out is unbiased. All other photos are for training: those that a model selects are harder than the
pool.
"""

import hashlib
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

HOLDOUT_SHARE = 0.1
"""Share of the groups that is held out on arrival: the exploration slot's share of the labels, so both end together."""

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
        The changed photos: those held out and the rest of their groups. `assign_splits` assigns the others to train.
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
    """Assign photos that are labelled already, and photos whose group has a split, with the rest of their groups.

    A photo that joins a group later, or returns to it, takes the group's split. All other labelled photos train: they
    were labelled, and maybe with a model's answer in sight, before they could be sampled.

    Args:
        photos: of one project; changed in place.
        labelled: task ids with a label.

    Returns:
        The changed photos.
    """
    sides = {p.group: p.side for p in photos if p.side is not None}
    sampled = {p.group for p in photos if p.drawn}
    for photo in photos:
        if photo.task_id in labelled:
            sides.setdefault(photo.group, TRAIN)
    changed = [p for p in photos if p.side is None and p.group is not None and p.group in sides]
    for photo in changed:
        photo.side, photo.drawn = sides[photo.group], photo.group in sampled
    return changed


def draw_holdout(photos: Sequence[Photo], settled_elsewhere: int = 0, *, drawn_elsewhere: bool = False) -> list[Photo]:
    """Settle all groups that have no split yet: a tenth is sampled for the hold-out, the others train.

    The sample is those with the smallest `draw_number`, so a turn that was killed before it kept the split draws the
    same again. Fewer than ten new groups have a chance of a tenth each. A project of ten groups or more has at least
    one in the hold-out.

    Args:
        photos: of one project; changed in place. Those without a group wait for it.
        settled_elsewhere: number of further groups of the project, that have their split.
        drawn_elsewhere: whether one of these was sampled for the hold-out.

    Returns:
        The changed photos.
    """
    settled = {p.group for p in photos if p.side is not None}
    groups = sorted({p.group for p in photos if p.group is not None and not p.gone} - settled)
    if not groups:
        return []
    project_id = photos[0].project_id
    count = int(len(groups) * HOLDOUT_SHARE + draw_number("size", project_id, groups[0], len(groups)))
    all_groups = len(groups) + len(settled) + settled_elsewhere
    if not drawn_elsewhere and not any(p.drawn for p in photos) and all_groups * HOLDOUT_SHARE >= 1:
        count = max(count, 1)
    sampled = set(sorted(groups, key=lambda group: draw_number("group", project_id, group))[:count])
    new = set(groups)
    changed = [p for p in photos if p.group in new]
    for photo in changed:
        photo.drawn = photo.group in sampled
        photo.side = HOLDOUT if photo.drawn else TRAIN
    return changed


def photo_draw(project_id: int, task_id: int) -> float:
    """Random number of a photo, see `draw_number`: its place in the hold-out, and whether it opens blank elsewhere."""
    return draw_number("photo", project_id, task_id)


def draw_number(what: str, *key: int) -> float:
    """Random number in 0..1 (1 excluded), the same for the same key in every process for ever.

    Args:
        what: is drawn. A group and a photo often have the same number, and their draws must not depend on each other.
        key: numbers of the project and of what is drawn.
    """
    digest = hashlib.blake2b(":".join(map(str, [what, *key])).encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53
