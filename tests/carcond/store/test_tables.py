from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from carcond.store.database import open_database
from carcond.store.tables import AnnotationRow, Base, Photo, Project


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/store.sqlite3")
    yield engine
    engine.dispose()


def keep(engine: Engine, row: Base) -> None:
    with Session(engine) as session, session.begin():
        session.add(row)


def test_a_new_photo_is_there_unhashed_and_on_no_side(engine: Engine) -> None:
    keep(engine, Photo(project_id=1, task_id=2, url="http://host/1.jpg"))
    with Session(engine) as session:
        photo = session.scalars(select(Photo)).one()
    assert (photo.phash, photo.group, photo.side, photo.problem) == (None, None, None, None)
    assert (photo.drawn, photo.gone) == (False, False)


def test_a_new_photo_may_be_fetched_at_once(engine: Engine) -> None:
    keep(engine, Photo(project_id=1, task_id=2, url=""))
    with Session(engine) as session:
        photo = session.scalars(select(Photo)).one()
    assert (photo.failures, photo.retry_at) == (0, 0.0)


def test_one_task_id_may_occur_in_two_projects(engine: Engine) -> None:
    keep(engine, Photo(project_id=1, task_id=2, url="a"))
    keep(engine, Photo(project_id=2, task_id=2, url="b"))
    with Session(engine) as session:
        assert sorted(session.scalars(select(Photo.url))) == ["a", "b"]


def test_one_task_id_occurs_once_in_a_project(engine: Engine) -> None:
    keep(engine, Photo(project_id=1, task_id=2, url="a"))
    with pytest.raises(IntegrityError):
        keep(engine, Photo(project_id=1, task_id=2, url="b"))


def test_a_project_keeps_the_id_that_label_studio_gave_it(engine: Engine) -> None:
    keep(engine, Project(id=412, watermark=None))
    with Session(engine) as session:
        project = session.scalars(select(Project)).one()
    assert (project.id, project.label_config) == (412, "")


@pytest.mark.parametrize("classes", [{}, {"damage": "intact"}, {"damage": "битый", "cleanliness": "clean"}])
def test_the_classes_of_an_annotation_come_back_as_they_were(classes: dict[str, str], engine: Engine) -> None:
    row = AnnotationRow(
        project_id=1, annotation_id=1, task_id=1, annotator=1, updated_at="", cancelled=False, classes=classes
    )
    keep(engine, row)
    with Session(engine) as session:
        assert session.scalars(select(AnnotationRow)).one().classes == classes
