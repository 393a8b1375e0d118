import json
from typing import Any

import pytest
from redis import Redis
from rq import Worker
from typer.testing import CliRunner

from backend.cli.main import app
from backend.jobs.queue import FINETUNES, get_job_queue
from backend.jobs.turn_log import record_turn
from backend.project.status import next_step
from backend.services import get_services
from carcond.data.split import HOLDOUT, TRAIN
from carcond.errors import StoreError
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer


def run(*more: str) -> str:
    result = CliRunner().invoke(app, ["status", "--project", str(PROJECT), *more], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def facts() -> dict[str, Any]:
    found = json.loads(run("--json"))
    assert isinstance(found, dict)
    return found


@pytest.fixture
def labelled(garage: Garage) -> Garage:
    """Ninety photos that came with labels, and ten without."""
    ids = garage.add_photos(100)
    garage.label(*ids[:90])
    garage.settle()
    return garage


def test_an_unknown_project_is_an_error_that_says_what_to_do(make_settings: MakeSettings) -> None:
    make_settings()
    with pytest.raises(StoreError, match=r"project 1 is not known here \(none is\)"):
        CliRunner().invoke(app, ["status", "--project", "1"], catch_exceptions=False)


def test_before_the_first_version_it_says_how_to_get_one(
    make_settings: MakeSettings, redis_url: str, server: HttpServer
) -> None:
    make_settings(LABEL_STUDIO_URL=server.url, REDIS_URL=redis_url)
    garage = Garage(get_services(), server)
    garage.add_photos(8)
    garage.turn()
    Worker(get_job_queue().queues(), connection=get_job_queue().redis).register_birth()  # type: ignore[no-untyped-call]
    found = facts()
    assert (found["version"], found["serving"], found["newest"]) == (None, None, None)
    assert (found["photos"], found["photos_left"]) == (8, 8)
    assert found["labels"] == {"train": 0, "holdout": 0, "unusable": 0}
    assert (found["forecast"], found["labels_saved"]) == ({}, {})
    assert found["next_step"].startswith("Label photos: the first version is made once two classes")
    assert "no version yet" in run()


def test_json_has_the_card_and_all_that_is_known(labelled: Garage) -> None:
    found = facts()
    version = labelled.services.registry(PROJECT).current()
    assert version
    card = version.card.facts()
    assert {key: found[key] for key in card} == card
    assert found["serving"]["version"] == found["newest"]["version"] == "carcond-0001"
    assert found["serving"]["since"]
    assert (found["photos"], found["photos_left"], found["photos_unreadable"]) == (100, 10, 0)
    assert set(found["forecast"]) == set(found["labels_saved"]) == {"cleanliness", "damage"}
    assert found["forecast"]["damage"]["next_labels"] == 100
    assert found["forecast"]["damage"]["labels"] == found["labels"]["train"]
    assert found["forecast"]["damage"]["holdout"] == found["labels"]["holdout"]
    assert {"now", "gain", "low", "high", "state"} == set(found["forecast"]["damage"]["accuracy"])
    curve = found["curve"]["damage"]
    assert (curve["labels"][-1], curve["holdout"]) == (found["labels"]["train"], found["labels"]["holdout"])


def test_a_pin_is_told_with_who_and_why(labelled: Garage) -> None:
    assert facts()["pinned"] is None
    labelled.services.registry(PROJECT).pin_serving(1, "anna", "measured in the field")
    pin = facts()["pinned"]
    assert (pin["version"], pin["who"], pin["why"]) == ("carcond-0001", "anna", "measured in the field")
    assert facts()["serving"]["who"] == "loop"
    assert "by anna: measured in the field" in " ".join(run().split())


def test_labels_saved_are_not_known_of_an_imported_set(labelled: Garage) -> None:
    saved = facts()["labels_saved"]["damage"]
    assert not saved["known"]
    assert "imported" in saved["missing"]


def test_of_the_photos_of_one_car_in_the_holdout_one_is_compared_with_the_selected_labels(labelled: Garage) -> None:
    store = labelled.services.store
    held = [photo for photo in store.photos(PROJECT) if photo.side == HOLDOUT and photo.task_id in labelled.rows()]
    groups = [{"task_id": photo.task_id, "drawn": True, "group": 500 + i // 3} for i, photo in enumerate(held)]
    store.update_photos(PROJECT, groups)
    assert facts()["labels_saved"]["damage"]["drawn"] == len({each["group"] for each in groups}) < len(held)


def test_labels_since_the_version_count(labelled: Garage) -> None:
    photos = labelled.services.store.photos(PROJECT)
    waiting = [p.task_id for p in photos if p.side == TRAIN and p.task_id not in labelled.rows()]
    before = facts()["labels"]
    labelled.label(waiting[0])
    labelled.loop._read()
    assert facts()["labels"] == before | {"train": before["train"] + 1}


def test_skipped_and_unreadable_photos_are_not_left_to_label(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.studio.annotate(ids[20], cancelled=True)
    garage.studio.import_photos("/data/not-there.jpg")
    garage.settle()
    found = facts()
    assert (found["photos"], found["photos_left"], found["photos_skipped"], found["photos_unreadable"]) == (
        41,
        27,
        1,
        1,
    )


def test_too_few_labels_make_no_forecast_and_say_what_is_missing(trained: tuple[Garage, list[int]]) -> None:
    found = facts()["forecast"]["damage"]
    assert found["state"] == "too few labels"
    assert found["missing"] == "48 more labels to train on, 10 more hold-out labels"
    assert facts()["labels_saved"]["damage"]["missing"].startswith("30 more labels of drawn photos")
    assert "too few labels: 48 more labels to train on" in " ".join(run().split())


def test_without_redis_the_rest_is_told_and_what_to_do(labelled: Garage) -> None:
    found = facts()
    assert not found["jobs"]["reachable"]
    assert found["next_step"].startswith("Start Redis")
    assert found["version"] == "carcond-0001"


def test_with_redis_jobs_and_workers_are_told(
    make_settings: MakeSettings, redis: Redis, redis_url: str, server: HttpServer
) -> None:
    make_settings(LABEL_STUDIO_URL=server.url, REDIS_URL=redis_url)
    garage = Garage(get_services(), server)
    garage.label(*garage.add_photos(12))
    garage.settle()
    queue = get_job_queue()
    queue.request_turn(PROJECT)
    found = facts()
    waiting = {"turns": 1, "refreshes": 0, "embeddings": 0}
    assert found["jobs"] == {"reachable": True, "waiting": waiting, "failed": 0, "workers": 0, "last_turn": None}
    assert found["next_step"].startswith("Start a worker")
    record_turn(redis, PROJECT, {"read": 0.1})
    Worker(queue.queues([FINETUNES]), connection=queue.redis).register_birth()  # type: ignore[no-untyped-call]
    assert facts()["next_step"].startswith("Start a worker")  # that one learns from no label
    Worker(queue.queues(), connection=queue.redis).register_birth()  # type: ignore[no-untyped-call]
    found = facts()
    assert found["jobs"]["workers"] == 1
    assert found["jobs"]["last_turn"].endswith("+00:00")
    assert found["next_step"].startswith("All photos are labelled")
    assert "1 waiting, 1 worker alive" in run()


def test_the_page_tells_version_labels_scores_and_forecast(labelled: Garage) -> None:
    text = run()
    labels = facts()["labels"]
    assert 15 <= labels["holdout"] <= 21
    for words in (
        "carcond-0001 since",
        f"{labels['train']} for training, {labels['holdout']} in the hold-out",
        "100, of which 10 are to be labelled",
        "On the hold-out, with 95 % intervals",
        "What 100 more labels would bring, with 90 % intervals",
        "Chosen labels against labels of random photos",
        "Next: ",
    ):
        assert words in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_refused_version_is_told_with_its_reason() -> None:
    found = {
        "version": "carcond-0001", "photos": 9, "photos_left": 3, "forecast": {},
        "jobs": {"reachable": True, "workers": 1}, "newest": {"version": "carcond-0002", "accepted": False},
    }  # fmt: skip
    assert next_step(found).startswith("See why carcond-0002 was refused")


@pytest.mark.parametrize(
    ("states", "words"),
    [(["flat", "flat"], "hardly help"), (["flat", "rising"], "Go on"), ([], "Go on"), (["slow"], "Go on")],
)
def test_labelling_is_stopped_only_when_every_task_is_flat(states: list[str], words: str) -> None:
    found = {
        "version": "carcond-0001", "photos": 9, "photos_left": 3, "newest": None,
        "jobs": {"reachable": True, "workers": 1},
        "forecast": {str(i): {"state": state} for i, state in enumerate(states)},
    }  # fmt: skip
    assert words in next_step(found)


def test_watching_shows_it_anew_until_somebody_stops_it(labelled: Garage, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise KeyboardInterrupt
        labelled.add_photos(1)
        labelled.turn()

    monkeypatch.setattr("backend.cli.commands.status.time.sleep", wait)
    assert "photos   101, of which 11 are to be labelled" in run("--watch")
    assert len(waits) == 2


def test_watching_prints_no_json(make_settings: MakeSettings) -> None:
    make_settings()
    result = CliRunner().invoke(app, ["status", "--project", "1", "--watch", "--json"])
    assert result.exit_code == 2
    assert "expected one of --watch and --json" in result.stderr
