import multiprocessing
from collections.abc import Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text

from carcond.errors import StoreError
from carcond.store import migrations
from carcond.store.database import open_database
from carcond.store.store import Store
from carcond.store.tables import Base
from tests.known_photos import known_photos

# Written by the program as it was before revisions were counted: one project, four photos, labels, both sides.
OLD_STORES = Path(__file__).parents[1] / "old_stores"
PROJECT = 7
FACTS = ("source", "car", "width", "height", "sharpness", "brightness")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """The database without any of our care."""
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def old_store(engine: Engine) -> Engine:
    """A store as an earlier release left it."""
    fill_as_before(engine)
    return engine


def fill_as_before(engine: Engine) -> None:
    """Write what an earlier release left into an empty database."""
    script = (OLD_STORES / f"{engine.dialect.name}.sql").read_text(encoding="utf-8")
    connection = engine.raw_connection()
    if engine.dialect.name == "sqlite":
        connection.executescript(script)
    else:
        connection.cursor().execute(script)
    connection.commit()
    connection.close()


def schema(engine: Engine) -> dict[str, object]:
    """All that tells one schema from another: columns, keys and indexes by table."""
    inspector = inspect(engine)
    return {
        table: (
            {c["name"]: (str(c["type"]), c["nullable"], c["default"]) for c in inspector.get_columns(table)},
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted((i["name"], i["column_names"]) for i in inspector.get_indexes(table)),
        )
        for table in inspector.get_table_names()
    }


def revision_of(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def contents(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    with engine.connect() as connection:
        return {
            table: sorted(tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table}"))  # noqa: S608
            for table in inspect(engine).get_table_names()
        }


def test_the_revisions_named_are_the_steps_there_are() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    assert [step.revision for step in scripts.walk_revisions()] == list(reversed(migrations.REVISIONS))
    assert scripts.get_heads() == [migrations.HEAD]


def test_a_new_store_has_the_tables_of_the_models(url: str, engine: Engine) -> None:
    open_database(url).dispose()
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    assert revision_of(engine) == [migrations.HEAD]


def test_the_steps_lead_to_what_the_models_would_make(
    url: str, engine: Engine, old_store: Engine, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    open_database(url).dispose()
    made = create_engine(f"sqlite:///{tmp_path}/made.sqlite3")
    if engine.dialect.name != "sqlite":
        made = create_engine(request.getfixturevalue("postgres").new_database())
    Base.metadata.create_all(made)
    stepped = schema(engine)
    del stepped["alembic_version"]
    assert stepped == schema(made)
    made.dispose()


def test_a_store_of_an_earlier_release_is_upgraded_and_loses_nothing(url: str, old_store: Engine) -> None:
    store = Store(url)
    assert revision_of(old_store) == [migrations.HEAD]
    assert (store.project(PROJECT).watermark, store.project(PROJECT).label_config) == (
        "2026-01-02T03:04:05.000000Z",
        "<View/>",
    )
    photos = known_photos(store, PROJECT)
    assert [(p.task_id, p.side, p.drawn, p.group, p.gone) for p in photos] == [
        (1, "train", False, 1, False),
        (2, "holdout", True, 2, False),
        (3, None, False, None, False),
        (4, None, False, None, True),
    ]
    assert (photos[2].url, photos[2].problem, photos[2].failures, photos[2].retry_at) == (
        "/data/local-files/?d=cars/грязная.jpg",
        "not a photo",
        2,
        None,
    )
    assert {getattr(photo, fact) for photo in photos for fact in FACTS} == {None}
    assert [(a.annotation_id, a.classes, a.cancelled) for a in store.annotations(PROJECT)] == [
        (10, {"damage": "intact", "cleanliness": "clean"}, False),
        (11, {"damage": "damaged"}, False),
        (12, {}, True),
    ]
    assert [(p.prediction_id, p.score, p.slot) for p in store.predictions(PROJECT)] == [
        (20, 0.5, 3),
        (21, 0.25, 0),
        (22, None, None),
    ]
    task_ids, embeddings = store.embeddings(PROJECT, "tiny-00000000")
    assert task_ids.tolist() == [1, 2]
    np.testing.assert_array_equal(embeddings, [[0.5, 1, -2, 0], [0, 0.25, 4, 8]])
    store.close()


def test_an_upgraded_store_can_be_written(url: str, old_store: Engine) -> None:
    store = Store(url)
    store.update_photos(PROJECT, [{"task_id": 3, "width": 640, "sharpness": 0.5, "source": "depot"}])
    store.add_project(8)
    assert (store.photos(PROJECT)[2].width, store.photos(PROJECT)[2].source) == (640, "depot")
    store.close()


def test_a_store_with_all_columns_and_no_revision_is_stamped(url: str, engine: Engine, old_store: Engine) -> None:
    open_database(url).dispose()
    before = contents(engine)
    run(engine, *(f"DROP TABLE {name}" for name in ("alembic_version", "connection", "open_task", "pool_change")))
    run(engine, "DROP INDEX ix_photo_change", "ALTER TABLE photo DROP COLUMN change")
    run(engine, "ALTER TABLE annotation DROP COLUMN prelabels")
    open_database(url).dispose()
    assert contents(engine) == before


def test_opening_a_store_again_writes_nothing(url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    open_database(url).dispose()
    monkeypatch.setattr("carcond.store.schema._migrate", None)
    open_database(url).dispose()
    assert revision_of(engine) == [migrations.HEAD]


def test_a_store_of_a_newer_program_is_refused_and_left_as_it_is(url: str, engine: Engine) -> None:
    open_database(url).dispose()
    run(engine, "ALTER TABLE photo ADD COLUMN colour VARCHAR", "UPDATE alembic_version SET version_num = '0107'")
    before = schema(engine), contents(engine)
    with pytest.raises(StoreError, match=f"expected a store of revision {migrations.HEAD} or older.*'0107'") as caught:
        Store(url)
    assert "\n" not in str(caught.value)
    assert (schema(engine), contents(engine)) == before


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE project (id INTEGER PRIMARY KEY, name VARCHAR)"],
        [f"CREATE TABLE {name} (id INTEGER)" for name in ("project", "annotation", "prediction", "embedding", "photo")]
        + ["ALTER TABLE photo ADD COLUMN width INTEGER"],
    ],
    ids=["one table of ours", "half a step"],
)
def test_tables_of_another_program_are_refused_and_left_as_they_are(
    url: str, engine: Engine, statements: list[str]
) -> None:
    run(engine, *statements)
    before = schema(engine)
    with pytest.raises(StoreError, match=r"of another make: name a database of its own in DATABASE_URL"):
        Store(url)
    assert schema(engine) == before


def test_tables_of_another_program_beside_ours_do_not_matter(url: str, engine: Engine) -> None:
    run(engine, "CREATE TABLE task (id INTEGER PRIMARY KEY)")
    open_database(url).dispose()
    assert revision_of(engine) == [migrations.HEAD]


def test_a_step_that_fails_undoes_those_before_it(url: str, old_store: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = schema(old_store), contents(old_store)
    monkeypatch.setattr("alembic.operations.Operations.add_column", _fail_on_height)
    with pytest.raises(RuntimeError, match="the power is off"):
        Store(url)
    monkeypatch.undo()
    assert (schema(old_store), contents(old_store)) == before
    Store(url).close()
    assert revision_of(old_store) == [migrations.HEAD]


def _fail_on_height(operations: object, table: str, column: object) -> None:
    if getattr(column, "name", "") == "height":
        raise RuntimeError("the power is off")
    operations.impl.add_column(table, column)  # type: ignore[attr-defined]


def open_together(url: str, together: Barrier, answers: "Queue[str]") -> None:
    together.wait()
    try:
        open_database(url).dispose()
        answers.put("open")
    except StoreError as error:
        answers.put(str(error))


@pytest.mark.slow
def test_processes_that_start_together_upgrade_an_old_store_once(url: str, old_store: Engine) -> None:
    old_store.dispose()
    context = multiprocessing.get_context("spawn")
    together, answers = context.Barrier(6), context.Queue()
    processes = [context.Process(target=open_together, args=(url, together, answers)) for _ in range(6)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=60) for _ in processes] == ["open"] * 6
    for process in processes:
        process.join(60)
    assert revision_of(old_store) == [migrations.HEAD]
    assert len(contents(old_store)["photo"]) == 4
