"""Settling the split of photos that have arrived. Photos that have theirs are not read again."""

import numpy as np

from backend.pool.facts import NONE
from backend.snapshot import Snapshot
from carcond.data.split import assign_splits, draw_holdout, split_imported
from carcond.registry.registry import is_ours
from carcond.store.store import Store


def settle(store: Store, project_id: int, snapshot: Snapshot) -> bool:
    """Assign photos that have arrived to train or hold-out, permanently. Returns False when there were none.

    Args:
        store: keeps the split.
        project_id: the project.
        snapshot: its photos and labels. It is outdated when something was assigned.
    """
    facts = snapshot.facts
    is_settled = facts.sides != 0
    grouped = facts.groups != NONE
    # A group of deleted photos alone waits for one of them to come back.
    present = np.unique(facts.groups[grouped & (is_settled | ~facts.gone)])
    arrived = grouped & ~is_settled & np.isin(facts.groups, present)
    if not arrived.any():
        return False
    groups = np.unique(facts.groups[arrived])
    in_question = np.isin(facts.groups, groups)
    elsewhere = is_settled & ~in_question
    # A class keeps labelled photos for training, so all of them have a say in what imported labels are held out.
    labelled = np.isin(facts.task_ids, np.array(list(snapshot.labels), dtype=np.int64))
    photos = store.photos_of(project_id, facts.task_ids[in_question | labelled].tolist())
    classes = {task_id: label.classes for task_id, label in snapshot.labels.items()}
    predictions = store.predictions_of(project_id, list(snapshot.labels))
    asked = {row.task_id for row in predictions if is_ours(row.model_version)}
    generator = np.random.default_rng((project_id, int(is_settled.sum())))
    changed = split_imported(photos, classes, asked, generator)
    changed += assign_splits(photos, snapshot.labels)
    arrived_groups = set(groups.tolist())
    changed += draw_holdout(
        [photo for photo in photos if photo.group in arrived_groups],
        len(np.unique(facts.groups[elsewhere])),
        drawn_elsewhere=bool(facts.drawn[elsewhere].any()),
    )
    store.update_photos(project_id, [{"task_id": p.task_id, "side": p.side, "drawn": p.drawn} for p in changed])
    return bool(changed)
