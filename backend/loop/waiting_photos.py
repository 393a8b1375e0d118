"""Photos that wait for an encoder: new ones, and those whose next try is due."""

import time
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from carcond.store.store import Store
from carcond.store.tables import Embedding, Photo

LONGEST_WAIT_S = 3600.0
"""Longest time between two tries of a photo, in seconds."""

# Photos that are read at a time: more than a turn has time to embed.
_AT_ONCE = 5_000


@dataclass(frozen=True)
class Shard:
    """A part of a project's photos: number `number` of `count`, from 0."""

    number: int
    count: int


ALL = Shard(0, 1)
"""All photos of a project."""


def waiting_photos(store: Store, project_id: int, encoder_id: str, shard: Shard = ALL) -> list[Photo]:
    """The first photos to embed: new ones, then those that could not be fetched, then those whose try never ended.

    Args:
        store: of the photos.
        project_id: the project.
        encoder_id: of the encoder that is to embed them.
        shard: that they belong to.

    Returns:
        At most 5000 photos.
    """
    was_cut_short = and_(Photo.failures > 0, Photo.problem.is_(None))
    query = select(Photo).where(*_are_waiting(project_id, encoder_id, shard))
    query = query.order_by(was_cut_short, Photo.problem.is_not(None), Photo.task_id).limit(_AT_ONCE)
    with store.session() as session:
        return list(session.scalars(query))


def unseen_photos(store: Store, project_id: int, encoder_id: str, shard: Shard = ALL) -> int:
    """Number of photos that an encoder has yet to embed; those that could not be fetched do not count.

    Args:
        store: of the photos.
        project_id: the project.
        encoder_id: of the encoder.
        shard: see `waiting_photos`.
    """
    conditions = [*_are_waiting(project_id, encoder_id, shard), Photo.problem.is_(None)]
    query = select(func.count()).select_from(Photo).where(*conditions)
    with store.session() as session:
        return int(session.scalars(query).one())


def _are_waiting(project_id: int, encoder_id: str, shard: Shard) -> list[ColumnElement[bool]]:
    is_embedded = exists().where(
        Embedding.project_id == Photo.project_id,
        Embedding.task_id == Photo.task_id,
        Embedding.encoder_id == encoder_id,
    )
    now = time.time()
    # Never for None. Beyond the longest wait, the clock was set back.
    is_due = or_(Photo.retry_at <= now, Photo.retry_at > now + LONGEST_WAIT_S)
    # Without a hash a photo would never be put into a group, nor into the split.
    wants_embedding = or_(~is_embedded, Photo.phash.is_(None))
    of_shard = Photo.task_id % shard.count == shard.number
    return [Photo.project_id == project_id, ~Photo.gone, of_shard, is_due, wants_embedding]
