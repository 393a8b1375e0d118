"""Groups of a project's new photos: those of one car, and near-duplicates."""

from sqlalchemy import select

from carcond.data.near_duplicates import Likeness, assign_groups
from carcond.store.store import Store
from carcond.store.tables import Photo


def group_new_photos(store: Store, project_id: int) -> None:
    """Give photos that have a perceptual hash and no group theirs."""
    new = store.ungrouped_photos(project_id)
    if not new:
        return
    # Deleted photos too: a copy that comes back later belongs to their group.
    query = select(Photo.phash, Photo.car, Photo.group).where(Photo.project_id == project_id, Photo.group.is_not(None))
    with store.session() as session:
        grouped = session.execute(query.order_by(Photo.task_id)).all()
    groups = assign_groups(
        [_likeness(photo.phash, photo.car) for photo in new],
        [_likeness(phash, car) for phash, car, _ in grouped],
        [group or 0 for _, _, group in grouped],
    )
    store.update_photos(
        project_id, [{"task_id": photo.task_id, "group": group} for photo, group in zip(new, groups, strict=True)]
    )


def _likeness(phash: str | None, car: str | None) -> Likeness:
    return Likeness(int(phash or "0", 16), car)
