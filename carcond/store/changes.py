"""Change numbers: which photos changed since a moment, embeddings and predictions of theirs included.

Each transaction that writes takes the next number of its project before anything else, and gives it to its photos. The
number's row stays locked until the transaction ends, so numbers become visible in their order, and whoever has read up
to a number has missed nothing below it. Numbers grow by random steps: a store that was restored from a backup gives
other numbers to what happens after it than were given before, and a comparison of all photos' numbers shows it.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from carcond.arrays import BoolArray, DoubleArray, IntArray
from carcond.store.tables import Embedding, Photo, PoolChange, PredictionRow

T = TypeVar("T")

_LARGEST_STEP = 1 << 16
# Sums of numbers modulo this prime stay in 64 bits for 10^12 photos.
_MODULUS = 1_000_003
# SQLite accepts a limited number of variables in one statement.
_CHUNK = 500
# Photos that are read at a time.
_PART = 10_000

_photo, _embedding, _prediction = Photo.__table__.c, Embedding.__table__.c, PredictionRow.__table__.c
_PHOTOS = (
    select(_photo.task_id, _photo.change, _photo.photo_group, _photo.side, _photo.drawn, _photo.gone, _photo.problem)
    .where(_photo.project_id == bindparam("project_id"), _photo.change > bindparam("since"))
    .order_by(_photo.task_id)
)
_VECTORS = select(_embedding.task_id, _embedding.vector).where(
    _embedding.project_id == bindparam("project_id"),
    _embedding.encoder_id == bindparam("encoder_id"),
    _embedding.task_id.in_(bindparam("task_ids", expanding=True)),
)
_PREDICTIONS = select(_prediction.task_id, _prediction.model_version, _prediction.slot, _prediction.score).where(
    _prediction.project_id == bindparam("project_id"),
    _prediction.task_id.in_(bindparam("task_ids", expanding=True)),
)


def next_number(session: Session, project_id: int) -> int:
    """Take the next number of a project, and keep others from taking one until the transaction ends."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    step = 1 + secrets.randbelow(_LARGEST_STEP)
    statement = (
        insert(PoolChange)
        .values(project_id=project_id, number=step)
        .on_conflict_do_update(index_elements=[PoolChange.project_id], set_={"number": PoolChange.number + step})
        .returning(PoolChange.number)
    )
    return int(session.scalars(statement).one())


def give_number(session: Session, project_id: int, task_ids: Sequence[int], number: int) -> None:
    """Give photos the number of their last change."""
    for ids in chunks(task_ids):
        session.execute(
            update(Photo).where(Photo.project_id == project_id, Photo.task_id.in_(ids)).values(change=number)
        )


@dataclass(frozen=True)
class PhotoRows:
    """Photos as arrays of one length N, in order of task id.

    Attributes:
        task_ids: ``(N,)``.
        changes: ``(N,)`` number of the last change.
        groups: ``(N,)``, -1 for none.
        sides: ``(N,)``, each None or the split.
        drawn: ``(N,)``, see `carcond.store.tables.Photo`.
        gone: ``(N,)``.
        has_problem: ``(N,)``.
    """

    task_ids: IntArray
    changes: IntArray
    groups: IntArray
    sides: Sequence[str | None]
    drawn: BoolArray
    gone: BoolArray
    has_problem: BoolArray


@dataclass(frozen=True)
class PredictionRows:
    """Predictions as columns of one length P, in no order.

    Attributes:
        task_ids: ``(P,)``.
        versions: of each.
        slots: of each, None for none.
        scores: ``(P,)``, 0 for none.
    """

    task_ids: IntArray
    versions: Sequence[str]
    slots: Sequence[int | None]
    scores: DoubleArray


class ChangeReader:
    """Reads one moment of a project's photos. Made by `read_changes`."""

    def __init__(self, connection: Connection, project_id: int) -> None:
        self._connection = connection
        self._project_id = project_id

    def number(self) -> int:
        """The last number that was given; 0 before the first."""
        query = select(PoolChange.number).where(PoolChange.project_id == self._project_id)
        return self._connection.scalar(query) or 0

    def checksum(self) -> tuple[int, int]:
        """Number of photos, and the sum of their change numbers; see `checksum_of`."""
        query = select(func.count(), func.coalesce(func.sum(Photo.change % _MODULUS), 0))
        count, total = self._connection.execute(query.where(Photo.project_id == self._project_id)).one()
        return int(count), int(total)

    def photos(self, since: int) -> Iterator[PhotoRows]:
        """Photos whose last change has a greater number, the deleted ones too, in order of task id, part by part."""
        query = _PHOTOS.execution_options(yield_per=_PART)
        rows = self._connection.execute(query, {"project_id": self._project_id, "since": since})
        for part in rows.partitions():
            task_ids, changes, groups, sides, drawn, gone, problems = zip(*part, strict=True)
            yield PhotoRows(
                np.array(task_ids, dtype=np.int64),
                np.array(changes, dtype=np.int64),
                np.array([-1 if group is None else group for group in groups], dtype=np.int64),
                sides,
                np.array(drawn, dtype=np.bool_),
                np.array(gone, dtype=np.bool_),
                np.array([problem is not None for problem in problems], dtype=np.bool_),
            )

    def predictions(self, task_ids: IntArray) -> PredictionRows:
        """Predictions of some tasks."""
        rows = [
            row
            for ids in chunks(task_ids.tolist())
            for row in self._connection.execute(_PREDICTIONS, {"project_id": self._project_id, "task_ids": ids})
        ]
        tasks, versions, slots, scores = zip(*rows, strict=True) if rows else ((),) * 4
        return PredictionRows(
            np.array(tasks, dtype=np.int64),
            versions,
            slots,
            np.array([score or 0.0 for score in scores], dtype=np.float64),
        )

    def embeddings(self, encoder_id: str, task_ids: IntArray) -> Iterator[tuple[IntArray, npt.NDArray[np.float16]]]:
        """Embeddings of some tasks by an encoder, a part after the other.

        Yields:
            Task ids ``(B,)`` and their embeddings ``(B, D)``; tasks without one are left out.
        """
        for ids in chunks(task_ids.tolist()):
            wanted = {"project_id": self._project_id, "encoder_id": encoder_id, "task_ids": ids}
            rows = self._connection.execute(_VECTORS, wanted).all()
            if rows:
                halves = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f2")
                yield np.array([row[0] for row in rows], dtype=np.int64), halves.reshape(len(rows), -1)


@contextmanager
def read_changes(engine: Engine, project_id: int) -> Iterator[ChangeReader]:
    """One moment of a project's photos, whatever is written meanwhile."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        else:
            connection.exec_driver_sql("BEGIN")  # Python's driver begins one only before a write
        yield ChangeReader(connection, project_id)


def checksum_of(changes: IntArray) -> tuple[int, int]:
    """Number of photos, and the sum of their change numbers ``(N,)``, as the database counts them."""
    return len(changes), int((changes % _MODULUS).sum())


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Parts that one statement accepts."""
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
