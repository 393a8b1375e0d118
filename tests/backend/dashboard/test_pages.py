"""What each page says, and what it says when something is missing. Browsers have their turn in tests/e2e."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from redis import Redis
from rq import Worker
from streamlit.testing.v1 import AppTest

from backend import dashboard as demo
from backend.jobs.finetune_record import FinetuneRecord
from backend.jobs.queue import get_job_queue
from backend.services import Services, get_services
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer

MAIN = Path(demo.__file__).with_name("main.py")
PAGES = ("photo", "learning", "versions", "queue", "quality", "jobs")


@pytest.fixture(autouse=True)
def nothing_cached() -> Iterator[None]:
    st.cache_data.clear()
    st.cache_resource.clear()
    yield
    st.cache_data.clear()
    st.cache_resource.clear()


def page(name: str, project: int = PROJECT) -> AppTest:
    """A page as it is shown at first."""
    script = f"from backend.dashboard import {name}_page\n{name}_page.show({project})\n"
    shown = AppTest.from_string(script, default_timeout=60).run()
    assert not shown.exception
    return shown


def words(shown: AppTest) -> str:
    parts = (shown.title, shown.header, shown.markdown, shown.info, shown.warning, shown.error, shown.success)
    return "\n".join(element.value for part in parts for element in part)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_stands_without_redis_label_studio_and_versions(name: str, services: Services) -> None:
    services.store.add_project(PROJECT)
    shown = page(name)
    assert len(shown.title) == 1
    assert "Traceback" not in words(shown)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_stands_with_a_version(name: str, trained: tuple[Garage, list[int]]) -> None:
    assert len(page(name).title) == 1


def test_before_any_project_the_frame_says_how_to_get_one(services: Services) -> None:
    shown = AppTest.from_file(MAIN, default_timeout=60).run()
    assert not shown.exception
    assert "No project is connected yet" in words(shown)


def test_a_store_that_cannot_be_opened_is_one_sentence(make_settings: MakeSettings, newer_store: str) -> None:
    make_settings(DATABASE_URL=newer_store)
    shown = AppTest.from_file(MAIN, default_timeout=60).run()
    assert not shown.exception
    assert len(shown.error) == 1
    assert "newer" in shown.error[0].value


def test_learning_tells_what_serves_and_what_is_missing(trained: tuple[Garage, list[int]]) -> None:
    shown = page("learning")
    metrics = {metric.label: metric.value for metric in shown.metric}
    assert metrics["Serving version"] == "carcond-0001"
    assert metrics["Photos left to label"] == "28 of 40"
    assert "Start Redis" in shown.info[0].value
    assert "Too early to tell" in words(shown)


def test_versions_are_listed_with_their_verdict_and_who_promoted_them(trained: tuple[Garage, list[int]]) -> None:
    shown = page("versions")
    versions, record = (table.value for table in shown.table)
    assert versions["Version"].tolist() == ["carcond-0001 (serves)"]
    assert versions["Gate"].tolist() == ["✓ accepted"]
    assert record["Who"].tolist() == ["loop"]


def click(shown: AppTest, label: str) -> None:
    next(button for button in shown.button if button.label == label).click().run()
    assert not shown.exception


def test_a_choice_asks_for_name_and_reason_and_changes_nothing_without(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.label(*ids[12:16])
    garage.settle()
    shown = page("versions")
    assert [field.label for field in shown.text_input] == ["Your name", "Reason, for the record"]
    assert "Unpin" not in [button.label for button in shown.button]
    click(shown, "Serve and pin it")
    assert "expected your name and a reason" in shown.error[0].value
    assert garage.services.registry(PROJECT).history()[-1].version == 2


def test_a_click_serves_and_pins_what_was_chosen_though_another_version_began_to_serve(
    trained: tuple[Garage, list[int]],
) -> None:
    garage, ids = trained
    garage.label(*ids[12:16])
    garage.settle()
    shown = page("versions")
    shown.selectbox(key="versions-version").set_value(1)
    shown.text_input(key="versions-who").set_value("Anna")
    shown.text_input(key="versions-why").set_value("calls wet cars dirty")
    garage.label(*ids[16:18])
    assert garage.turn().version == "carcond-0003"
    click(shown, "Serve and pin it")
    assert shown.success[0].value.startswith("carcond-0001 serves and is pinned.")
    assert "carcond-0001 is pinned by Anna\\: calls wet cars dirty" in shown.warning[0].value
    assert shown.table[0].value["Version"].tolist() == ["carcond-0003", "carcond-0002", "carcond-0001 (serves, pinned)"]
    pin = garage.services.registry(PROJECT).pin()
    assert pin
    assert (pin.before, pin.version) == (3, 1)


def test_while_a_version_is_pinned_the_pages_say_so_and_newer_ones_are_held_back(
    trained: tuple[Garage, list[int]],
) -> None:
    garage, ids = trained
    garage.services.registry(PROJECT).pin_serving(1, "Anna", "measured in the field")
    garage.label(*ids[12:16])
    garage.settle()
    for name in ("versions", "learning", "queue"):
        assert "carcond-0001 is pinned by Anna" in page(name).warning[0].value
    shown = page("versions")
    assert shown.table[0].value["Gate"].tolist() == ["✓ accepted, held back by the pin", "✓ accepted"]
    shown.text_input(key="versions-who").set_value("Ben")
    shown.text_input(key="versions-why").set_value("it is done")
    click(shown, "Unpin")
    assert shown.success[0].value.startswith("Nothing is pinned.")
    assert not shown.warning
    assert garage.turn().version == "carcond-0002"


def test_pruned_versions_are_listed_on_demand(
    trained: tuple[Garage, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    garage, ids = trained
    monkeypatch.setattr("carcond.registry.pruning.NEWEST", 1)
    for task_id in ids[12:15]:
        garage.label(task_id)
        garage.turn()
    shown = page("versions")
    assert shown.table[0].value["Version"].tolist() == ["carcond-0004 (serves)", "carcond-0001"]
    assert shown.table[0].value["Milestone"].tolist() == ["", "the first version"]
    shown.toggle[0].set_value(True).run()
    assert shown.table[0].value["Version"].tolist() == [
        *("carcond-0004 (serves)", "carcond-0003 (pruned)", "carcond-0002 (pruned)", "carcond-0001"),
    ]


def test_the_queue_shows_photos_with_reasons_and_no_token(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    shown = page("queue")
    told = words(shown)
    assert "1. Photo" in told
    assert "Sampled at random for the hold-out" in told
    assert "is unsure: " in told
    assert garage.services.settings.label_studio_api_key.get_secret_value() not in told


def test_photos_that_cannot_be_fetched_are_told_of_and_the_queue_stands(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    garage.server.answers.clear()
    shown = page("queue")
    assert "Some photos cannot be shown: the photo's address answered HTTP 404" in shown.warning[0].value
    assert "1. Photo" in words(shown)


def test_photos_of_the_queue_link_into_label_studio(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    links = [link.proto.url for link in page("queue").get("link_button")]
    assert links
    assert all(url.startswith(f"{garage.server.url}/projects/{PROJECT}/data?task=") for url in links)


def test_the_queue_leads_to_the_projects_list_and_says_what_to_click(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    told = words(page("queue"))
    assert f"({garage.server.url}/projects/{PROJECT}/data)" in told
    assert 'click "Label All Tasks"' in told


def test_the_quality_of_photos_and_labels_is_told_as_far_as_it_is_known(trained: tuple[Garage, list[int]]) -> None:
    told = words(page("quality"))
    assert "40 photos, 40 of them looked at, 12 labelled." in told
    assert "how far annotators agree is not known" in told


def test_labels_are_counted_beside_their_pre_labels(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    assert "a person would not have given" not in words(page("quality"))
    garage.settle()
    task_id = next(task_id for task_id in ids[12:] if not garage.opens_blank(task_id))
    garage.studio.annotate_page(task_id, 1, **garage.truth[task_id])
    garage.turn()
    assert "a person would not have given" in words(page("quality"))


def test_jobs_are_counted(make_settings: MakeSettings, redis: Redis, redis_url: str, server: HttpServer) -> None:
    make_settings(REDIS_URL=redis_url, LABEL_STUDIO_URL=server.url)
    get_services().store.add_project(PROJECT)
    assert "No worker is alive" in words(page("jobs"))
    Worker(get_job_queue().queues(), connection=redis).register_birth()  # type: ignore[no-untyped-call]
    shown = page("jobs")
    assert {metric.label: metric.value for metric in shown.metric}["Workers alive"] == "1"
    assert "Nothing runs" in words(shown)


def test_without_redis_the_jobs_page_says_what_that_means(services: Services) -> None:
    shown = page("jobs")
    assert "Redis, which holds the jobs, could not be reached" in shown.error[0].value
    assert "pre-labels are still served" in words(shown)


def test_the_demo_speaks_russian_and_says_when_the_backend_is_away(
    make_settings: MakeSettings, services: Services
) -> None:
    make_settings(CARCOND_BACKEND_URL="http://127.0.0.1:1")
    shown = page("photo")
    assert shown.title[0].value == "What condition is this car in?"
    next(button for button in shown.button if button.label == "Drawing 1").click().run()
    assert "cannot be reached" in shown.error[0].value
    assert "CARCOND" not in shown.error[0].value
    shown.segmented_control[0].set_value("ru").run()
    assert shown.title[0].value == "В каком состоянии машина?"
    assert "недоступен" in shown.error[0].value


@pytest.mark.parametrize(
    ("photo", "english", "russian"),
    [
        (b"this is no photo", "cannot be read as a photo", "не удаётся прочитать"),
        (b"\xff" * 2_000_000, "at most 1 MB", "не больше 1 МБ"),
    ],
)
def test_a_file_that_is_no_photo_or_too_large_is_refused_in_the_language_of_the_page(
    make_settings: MakeSettings, services: Services, photo: bytes, english: str, russian: str
) -> None:
    make_settings(CARCOND_MAX_PHOTO_BYTES="1500000")
    words = {}
    shown = page("photo")
    shown.file_uploader[0].upload("car.jpg", photo, "image/jpeg").run()
    for language in ("en", "ru"):
        shown.segmented_control[0].set_value(language).run()
        (error,) = shown.error
        words[language] = error.value
    assert english in words["en"]
    assert russian in words["ru"]
    assert not any(alien in told for told in words.values() for alien in ("b'", "CARCOND", "bytes"))


def test_a_fine_tuning_shows_how_far_it_is(
    make_settings: MakeSettings, redis: Redis, redis_url: str, server: HttpServer
) -> None:
    make_settings(REDIS_URL=redis_url, LABEL_STUDIO_URL=server.url)
    get_services().store.add_project(PROJECT)
    record = FinetuneRecord(redis, PROJECT)
    record.begin("Anna")
    record.write(state="running", stage="training", done=3, total=12, epoch=1, epochs=15, seconds_left=90)
    told = words(page("jobs"))
    assert "training 3 of 12, 1 of 15 epochs, 0\\:01\\:30 left, asked for by Anna" in told


def test_what_people_wrote_is_shown_as_they_wrote_it(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.label(*ids[12:16])
    garage.settle()
    why = "![wet](http://evil.example/car.png) & [more](http://evil.example)"
    garage.services.registry(PROJECT).promote(1, "<b>Anna</b>", why, "rollback")
    record = page("versions").table[1].value
    assert record["Why"][0] == r"!\[wet\](http\://evil.example/car.png) & \[more\](http\://evil.example)"
    assert record["Who"][0] == r"\<b\>Anna\</b\>"
