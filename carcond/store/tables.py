"""The tables of the store.

Label Studio is the source of truth for tasks, annotations and predictions; their tables here are a mirror
that a full read can rebuild. Ours alone are the record of connections and a photo's split, so photos are
never deleted, only marked as gone: a photo that comes back keeps its split.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Index, LargeBinary
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Base of the tables."""


class Project(Base):
    """A Label Studio project that the loop serves."""

    __tablename__ = "project"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    # The greatest `updated_at` of a task that has been read.
    watermark: Mapped[str | None]
    # The label config that the annotations were read with.
    label_config: Mapped[str] = mapped_column(default="")


class Photo(Base):
    """A photo, which is a task in Label Studio."""

    __tablename__ = "photo"
    # Covers the comparison of all photos' numbers, too.
    __table_args__ = (Index("ix_photo_change", "project_id", "change"),)
    project_id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(primary_key=True)
    url: Mapped[str]
    # 16 hexadecimal digits: databases have no unsigned 64-bit integer.
    phash: Mapped[str | None]
    # Source and car of the photo, from the task's data.
    source: Mapped[str | None]
    car: Mapped[str | None]
    # Measured when it was embedded: size in pixels, and `carcond.data.images.ImageStats`.
    width: Mapped[int | None]
    height: Mapped[int | None]
    sharpness: Mapped[float | None]
    brightness: Mapped[float | None]
    # Photos of one group (near-duplicates, one car) share a split.
    group: Mapped[int | None] = mapped_column("photo_group")
    side: Mapped[str | None]
    # Its group was randomly sampled for the hold-out, rather than held out with an imported label.
    drawn: Mapped[bool] = mapped_column(default=False)
    # Why the photo cannot be used, number of attempts, and time of the next one (Unix time).
    problem: Mapped[str | None]
    failures: Mapped[int] = mapped_column(default=0)
    retry_at: Mapped[float | None] = mapped_column(default=0.0)
    gone: Mapped[bool] = mapped_column(default=False)
    # Number of the last change of the photo, its embeddings or its predictions: see `carcond.store.changes`.
    change: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")


class PoolChange(Base):
    """The last number that was given to changes of a project's photos."""

    __tablename__ = "pool_change"
    project_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger)


class Embedding(Base):
    """A photo's embedding under one encoder: (D,) half-precision floats, little-endian."""

    __tablename__ = "embedding"
    project_id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(primary_key=True)
    encoder_id: Mapped[str] = mapped_column(primary_key=True)
    vector: Mapped[bytes] = mapped_column(LargeBinary)


class AnnotationRow(Base):
    """One annotation; `classes` maps task key to class key, `prelabels` task key to the values of a `Prelabel`.

    `prelabels` is None in rows that were read before it was kept.
    """

    __tablename__ = "annotation"
    project_id: Mapped[int] = mapped_column(primary_key=True)
    annotation_id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(index=True)
    annotator: Mapped[int]
    updated_at: Mapped[str]
    cancelled: Mapped[bool]
    classes: Mapped[dict[str, str]] = mapped_column(JSON)
    prelabels: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class PredictionRow(Base):
    """One prediction as Label Studio keeps it; `slot` is its cluster field."""

    __tablename__ = "prediction"
    project_id: Mapped[int] = mapped_column(primary_key=True)
    prediction_id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(index=True)
    model_version: Mapped[str]
    score: Mapped[float | None]
    slot: Mapped[int | None]


class OpenTask(Base):
    """A task that may be open on the page of an annotator, who has submitted nothing since `annotation_id`."""

    __tablename__ = "open_task"
    project_id: Mapped[int] = mapped_column(primary_key=True)
    annotator: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(primary_key=True)
    annotation_id: Mapped[int]


class Connection(Base):
    """Changes to a Label Studio project on connecting it; `--undo` reverts the rows that are not undone."""

    __tablename__ = "connection"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(index=True)
    # Moments are ISO 8601 in UTC.
    made_at: Mapped[str]
    made_by: Mapped[str]
    # In the order in which they were made: `backend.project.connection.changes.Change` as JSON.
    changes: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    undone_at: Mapped[str | None]
    undone_by: Mapped[str | None]
