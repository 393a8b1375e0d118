"""State of the loop between turns: photos, embeddings, annotations, predictions, the split."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, and_, bindparam, delete, func, select, update
from sqlalchemy import Connection as SqlConnection
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.orm import Session

from carcond.errors import StoreError
from carcond.store.changes import ChangeReader, chunks, give_number, next_number, read_changes
from carcond.store.database import open_database, reason
from carcond.store.tables import AnnotationRow, Connection, Embedding, OpenTask, Photo, PredictionRow, Project

# Half precision halves the store, and moves a probability by less than 0.001.
EMBEDDING_DTYPE: Final = np.dtype("<f2")

# Built once: each `/predict` sends it, and building takes longer than the database's answer.
_photos, _embeddings = Photo.__table__.c, Embedding.__table__.c
_KEPT_PHOTOS = (
    select(_photos.task_id, _photos.url, _photos.side, _embeddings.vector)
    .select_from(
        Photo.__table__.outerjoin(
            Embedding.__table__,
            and_(
                _embeddings.project_id == _photos.project_id,
                _embeddings.task_id == _photos.task_id,
                _embeddings.encoder_id == bindparam("encoder_id"),
            ),
        )
    )
    .where(
        _photos.project_id == bindparam("project_id"),
        _photos.task_id.in_(bindparam("task_ids", expanding=True)),
    )
)

MirrorTable = Photo | AnnotationRow | PredictionRow | Embedding


@dataclass(frozen=True)
class TaskMirror:
    """All that the store keeps of one Label Studio task."""

    task_id: int
    url: str
    annotations: Sequence[AnnotationRow]
    predictions: Sequence[PredictionRow]
    source: str | None = None
    car: str | None = None


@dataclass(frozen=True)
class KeptPhoto:
    """What is kept of a photo for predictions.

    Attributes:
        url: address of the photo that was embedded.
        split: None for a photo that has none yet.
        embedding: ``(D,)`` under the encoder that was asked for; None if there is none.
    """

    url: str
    split: str | None
    embedding: npt.NDArray[np.float32] | None


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except DatabaseError as error:
        raise StoreError(f"the store cannot be read or written ({reason(error)})") from error


class Store:
    """The tables of one database. Safe to share between threads and processes."""

    def __init__(self, database_url: str) -> None:
        """Open the database and bring its tables up to date.

        Raises:
            StoreError: it cannot be opened or written.
            NewerStoreError: a newer carcond has used it.
        """
        self._engine = open_database(database_url)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed at the end, rolled back on an error.

        Raises:
            StoreError: the database is not there any more, locked for too long, or its disk is full.
        """
        with _store_errors(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def _connection(self) -> Iterator[SqlConnection]:
        """A connection to read from: for queries so frequent that a session's own work counts."""
        with _store_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _numbered(self, project_id: int) -> Iterator[tuple[Session, int]]:
        """A transaction that changes photos, their embeddings or predictions, and the number of its changes."""
        with self.session() as session:
            yield session, next_number(session, project_id)

    @contextmanager
    def changes(self, project_id: int) -> Iterator[ChangeReader]:
        """One moment of a project's photos, and which of them changed since another.

        Raises:
            StoreError: as `session`.
        """
        try:
            with read_changes(self._engine, project_id) as reader:
                yield reader
        except DatabaseError as error:
            raise StoreError(f"the store cannot be read or written ({reason(error)})") from error

    # Projects

    def add_project(self, project_id: int) -> bool:
        """Begin to serve a project. Returns False when it is served already."""
        with self.session() as session:
            if session.get(Project, project_id) is not None:
                return False
        try:
            with self.session() as session:
                session.add(Project(id=project_id, watermark=None, label_config=""))
        except IntegrityError:  # another process was faster
            return False
        return True

    def project(self, project_id: int) -> Project:
        """The row of a project, made when it is new."""
        self.add_project(project_id)
        with self.session() as session:
            return session.get_one(Project, project_id)

    def project_ids(self) -> list[int]:
        """All projects the loop has ever served."""
        with self.session() as session:
            return list(session.scalars(select(Project.id).order_by(Project.id)))

    def mark_read(self, project_id: int, watermark: str | None, label_config: str) -> None:
        """Record up to which change the tasks have been read, and with which label config."""
        with self.session() as session:
            values = {"watermark": watermark, "label_config": label_config}
            session.execute(update(Project).where(Project.id == project_id).values(values))

    def is_served(self, project_id: int) -> bool:
        """True if the loop serves a project."""
        with self.session() as session:
            return session.get(Project, project_id) is not None

    def is_known(self, project_id: int) -> bool:
        """True if the loop serves a project, or did so and still has photos of it."""
        with self.session() as session:
            photos = select(Photo.task_id).where(Photo.project_id == project_id).limit(1)
            return session.get(Project, project_id) is not None or session.scalar(photos) is not None

    def is_released(self, project_id: int) -> bool:
        """True if a project was connected, and the connection undone: nothing may be written into it.

        One that is merely unknown, since Label Studio once reported that there is no such project, is none of these.
        """
        with self.session() as session:
            if session.get(Project, project_id) is not None:
                return False
            undone = list(session.scalars(select(Connection.undone_at).where(Connection.project_id == project_id)))
            return bool(undone) and None not in undone

    def retire_project(self, project_id: int) -> None:
        """Stop serving a project. Its photos, and their splits, are kept."""
        with self.session() as session:
            session.execute(delete(Project).where(Project.id == project_id))

    # The mirror of Label Studio

    def mirror_tasks(self, project_id: int, tasks: Iterable[TaskMirror]) -> None:
        """Replace the mirror of these tasks. A changed photo address drops the photo's embeddings."""
        # A page read while tasks change can contain a task a second time: the last one counts.
        latest = {task.task_id: task for task in tasks}
        for chunk in chunks(list(latest.values())):
            ids = [task.task_id for task in chunk]
            with self._numbered(project_id) as (session, number):
                known = {p.task_id: p for p in session.scalars(select(Photo).where(_are(Photo, project_id, ids)))}
                for table in (AnnotationRow, PredictionRow):
                    session.execute(delete(table).where(_are(table, project_id, ids)))
                for task in chunk:
                    self._mirror_photo(session, project_id, known.get(task.task_id), task, number)
                    session.add_all([*task.annotations, *task.predictions])

    @staticmethod
    def _mirror_photo(session: Session, project_id: int, photo: Photo | None, task: TaskMirror, number: int) -> None:
        if photo is None:
            photo = Photo(project_id=project_id, task_id=task.task_id, url=task.url)
            session.add(photo)
        photo.gone, photo.source, photo.car, photo.change = False, task.source, task.car, number
        if photo.url != task.url:
            # Another picture: its embedding is stale, but its split stays.
            photo.url, photo.problem, photo.phash = task.url, None, None
            photo.failures, photo.retry_at = 0, 0.0
            session.execute(
                delete(Embedding).where(Embedding.project_id == project_id, Embedding.task_id == task.task_id)
            )

    def mark_gone(self, project_id: int, present: set[int]) -> int:
        """Mark photos whose tasks were deleted, and drop their labels. Returns the number of photos."""
        with self._numbered(project_id) as (session, number):
            rows = session.scalars(select(Photo.task_id).where(Photo.project_id == project_id, ~Photo.gone))
            gone = [task_id for task_id in rows if task_id not in present]
            for ids in chunks(gone):
                session.execute(update(Photo).where(_are(Photo, project_id, ids)).values(gone=True, change=number))
                for table in (AnnotationRow, PredictionRow):
                    session.execute(delete(table).where(_are(table, project_id, ids)))
        return len(gone)

    def photos(self, project_id: int) -> list[Photo]:
        """All photos that are still in Label Studio, in order of task id."""
        with self.session() as session:
            query = select(Photo).where(Photo.project_id == project_id, ~Photo.gone).order_by(Photo.task_id)
            return list(session.scalars(query))

    def photos_of(self, project_id: int, task_ids: Sequence[int]) -> list[Photo]:
        """Some photos, those that are known, in order of task id."""
        with self.session() as session:
            found = [
                p
                for ids in chunks(task_ids)
                for p in session.scalars(select(Photo).where(_are(Photo, project_id, ids)))
            ]
        return sorted(found, key=lambda photo: photo.task_id)

    def photo_count(self, project_id: int) -> int:
        """Number of photos in Label Studio, by the store."""
        with self.session() as session:
            query = select(func.count()).select_from(Photo).where(Photo.project_id == project_id, ~Photo.gone)
            return int(session.scalars(query).one())

    def photo_urls(self, project_id: int, task_ids: Sequence[int]) -> dict[int, str]:
        """Task id -> photo address, of those of the tasks that are known, the deleted ones too."""
        with self.session() as session:
            return {
                task_id: url
                for ids in chunks(task_ids)
                for task_id, url in session.execute(
                    select(Photo.task_id, Photo.url).where(_are(Photo, project_id, ids))
                )
            }

    def ungrouped_photos(self, project_id: int) -> list[Photo]:
        """Photos with a perceptual hash but without a group, in order of task id."""
        query = select(Photo).where(Photo.project_id == project_id, Photo.phash.is_not(None), Photo.group.is_(None))
        with self.session() as session:
            return list(session.scalars(query.order_by(Photo.task_id)))

    def annotations(self, project_id: int) -> list[AnnotationRow]:
        """All annotations, skipped ones too, in order of id."""
        with self.session() as session:
            query = select(AnnotationRow).where(AnnotationRow.project_id == project_id)
            return list(session.scalars(query.order_by(AnnotationRow.annotation_id)))

    def labels_since(self, project_id: int, moment: str) -> list[str]:
        """`updated_at` of all annotations that were made or changed after a moment, skipped ones left out."""
        of_project = (AnnotationRow.project_id == project_id, ~AnnotationRow.cancelled)
        with self.session() as session:
            query = select(AnnotationRow.updated_at).where(*of_project, AnnotationRow.updated_at > moment)
            return list(session.scalars(query))

    def labelled_count(self, project_id: int) -> int:
        """Number of tasks with an annotation that is not skipped."""
        of_project = (AnnotationRow.project_id == project_id, ~AnnotationRow.cancelled)
        with self.session() as session:
            return session.scalar(select(func.count(AnnotationRow.task_id.distinct())).where(*of_project)) or 0

    def predictions(self, project_id: int) -> list[PredictionRow]:
        """All predictions that Label Studio holds, in order of id."""
        with self.session() as session:
            query = select(PredictionRow).where(PredictionRow.project_id == project_id)
            return list(session.scalars(query.order_by(PredictionRow.prediction_id)))

    def predictions_of(self, project_id: int, task_ids: Sequence[int]) -> list[PredictionRow]:
        """The predictions that Label Studio holds of some tasks, in order of id."""
        with self.session() as session:
            rows = [
                row
                for ids in chunks(task_ids)
                for row in session.scalars(select(PredictionRow).where(_are(PredictionRow, project_id, ids)))
            ]
        return sorted(rows, key=lambda row: row.prediction_id)

    def prediction_count(self, project_id: int) -> int:
        """Number of predictions in Label Studio, by the store."""
        query = select(func.count()).select_from(PredictionRow).where(PredictionRow.project_id == project_id)
        with self.session() as session:
            return int(session.scalars(query).one())

    def has_prediction(self, project_id: int, model_version: str) -> bool:
        """True if Label Studio holds a prediction of a version."""
        with self.session() as session:
            query = select(PredictionRow.prediction_id).where(
                PredictionRow.project_id == project_id, PredictionRow.model_version == model_version
            )
            return session.scalars(query.limit(1)).first() is not None

    def put_prediction(self, row: PredictionRow) -> None:
        """Mirror a prediction that has just been written."""
        with self._numbered(row.project_id) as (session, number):
            session.merge(row)
            give_number(session, row.project_id, [row.task_id], number)

    def drop_prediction(self, project_id: int, prediction_id: int) -> None:
        """Mirror a prediction's removal."""
        with self._numbered(project_id) as (session, number):
            row = session.get(PredictionRow, (project_id, prediction_id))
            if row:
                session.delete(row)
                give_number(session, project_id, [row.task_id], number)

    # Pages that people have open

    def open_tasks(self, project_id: int) -> list[OpenTask]:
        """Tasks that annotators may have open."""
        with self.session() as session:
            query = select(OpenTask).where(OpenTask.project_id == project_id)
            return list(session.scalars(query.order_by(OpenTask.annotator, OpenTask.task_id)))

    def put_open_tasks(self, project_id: int, annotator: int, annotation_id: int, task_ids: Iterable[int]) -> None:
        """Replace the tasks that an annotator may have open.

        Args:
            project_id: the project.
            annotator: owner of the page.
            annotation_id: the newest annotation of that person.
            task_ids: one of them was served after it.
        """
        with self.session() as session:
            session.execute(delete(OpenTask).where(OpenTask.project_id == project_id, OpenTask.annotator == annotator))
            session.add_all(
                OpenTask(project_id=project_id, annotator=annotator, task_id=task_id, annotation_id=annotation_id)
                for task_id in task_ids
            )

    # Photos

    def put_embeddings(self, project_id: int, encoder_id: str, vectors: Mapping[int, npt.NDArray[np.float32]]) -> None:
        """Keep embeddings: task id -> (D,)."""
        with self._numbered(project_id) as (session, number):
            _put_embeddings(session, project_id, number, encoder_id, vectors)

    def put_encoded(
        self,
        project_id: int,
        encoder_id: str,
        urls: Mapping[int, str],
        changes: Iterable[Mapping[str, Any]],
        vectors: Mapping[int, npt.NDArray[np.float32]],
    ) -> None:
        """Keep what was found in photos; of photos that were exchanged meanwhile nothing is kept.

        Args:
            project_id: the project.
            encoder_id: made the embeddings.
            urls: task id -> address that the photo was fetched from.
            changes: see `update_photos`.
            vectors: see `put_embeddings`.
        """
        with self._numbered(project_id) as (session, number):
            query = select(Photo.task_id, Photo.url)
            same = {
                task_id
                for ids in chunks(list(urls))
                for task_id, url in session.execute(query.where(_are(Photo, project_id, ids)))
                if url == urls[task_id]
            }
            _update_photos(session, project_id, number, (row for row in changes if row["task_id"] in same))
            kept = {task_id: vector for task_id, vector in vectors.items() if task_id in same}
            _put_embeddings(session, project_id, number, encoder_id, kept)

    def embeddings_of(
        self, project_id: int, encoder_id: str, task_ids: Sequence[int]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Stored embeddings of some photos, as `embeddings` returns all."""
        query = select(Embedding.task_id, Embedding.vector).where(Embedding.encoder_id == encoder_id)
        with self.session() as session:
            rows = [
                row
                for ids in chunks(task_ids)
                for row in session.execute(query.where(_are(Embedding, project_id, ids))).all()
            ]
        return _matrix(sorted((task_id, vector) for task_id, vector in rows))

    def embeddings(self, project_id: int, encoder_id: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """All stored embeddings of photos still in Label Studio.

        Returns:
            Task ids ``(N,)`` in ascending order, and their embeddings ``(N, D)``.
        """
        query = (
            select(Embedding.task_id, Embedding.vector)
            .join(Photo, (Photo.project_id == Embedding.project_id) & (Photo.task_id == Embedding.task_id))
            .where(Embedding.project_id == project_id, Embedding.encoder_id == encoder_id, ~Photo.gone)
            .order_by(Embedding.task_id)
        )
        with self.session() as session:
            return _matrix([(task_id, vector) for task_id, vector in session.execute(query)])

    def task_ids(self, project_id: int) -> set[int]:
        """Ids of all photos that are still in Label Studio."""
        with self.session() as session:
            return set(session.scalars(select(Photo.task_id).where(Photo.project_id == project_id, ~Photo.gone)))

    def kept_photos(self, project_id: int, encoder_id: str, task_ids: Sequence[int]) -> dict[int, KeptPhoto]:
        """Task id -> what is kept of its photo, of those of the tasks that are known, deleted ones too."""
        found = {}
        for ids in chunks(task_ids):
            wanted = {"project_id": project_id, "encoder_id": encoder_id, "task_ids": ids}
            with self._connection() as connection:
                for task_id, url, split, vector in connection.execute(_KEPT_PHOTOS, wanted):
                    found[task_id] = KeptPhoto(url, split, None if vector is None else _unpacked(vector))
        return found

    def update_photos(self, project_id: int, changes: Iterable[Mapping[str, Any]]) -> None:
        """Change columns of photos: each mapping has `task_id` and the columns to set."""
        rows = list(changes)
        if rows:
            with self._numbered(project_id) as (session, number):
                _update_photos(session, project_id, number, rows)


def _update_photos(session: Session, project_id: int, number: int, changes: Iterable[Mapping[str, Any]]) -> None:
    for row in changes:
        values = {key: value for key, value in row.items() if key != "task_id"}
        is_it = (Photo.project_id == project_id, Photo.task_id == row["task_id"])
        session.execute(update(Photo).where(*is_it).values(**values, change=number))


def _put_embeddings(
    session: Session, project_id: int, number: int, encoder_id: str, vectors: Mapping[int, npt.NDArray[np.float32]]
) -> None:
    give_number(session, project_id, list(vectors), number)
    for task_id, vector in vectors.items():
        packed = vector.astype(EMBEDDING_DTYPE).tobytes()
        session.merge(Embedding(project_id=project_id, task_id=task_id, encoder_id=encoder_id, vector=packed))


def _unpacked(vector: bytes) -> npt.NDArray[np.float32]:
    return np.frombuffer(vector, dtype=EMBEDDING_DTYPE).astype(np.float32)


def _matrix(rows: Sequence[tuple[int, bytes]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    ids = np.array([row[0] for row in rows], dtype=np.int64)
    matrix = np.frombuffer(b"".join(row[1] for row in rows), dtype=EMBEDDING_DTYPE)
    return ids, matrix.reshape(len(rows), -1 if rows else 0).astype(np.float32)


def _are(table: type[MirrorTable], project_id: int, ids: Sequence[int]) -> ColumnElement[bool]:
    return and_(table.project_id == project_id, table.task_id.in_(ids))
