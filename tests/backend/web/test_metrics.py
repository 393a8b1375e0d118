import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from flask.testing import FlaskClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from backend.jobs.queue import ALL_QUEUES, FINETUNES, get_job_queue
from backend.services import get_services
from backend.web.app import create_app
from backend.worker.jobs import run_turn
from carcond.data.split import HOLDOUT
from carcond.errors import RegistryError
from carcond.model.version_card import Gate, VersionCard
from carcond.registry.registry import Registry
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer, Reply
from tests.promtool import assert_promtool_finds_no_fault

Samples = Mapping[tuple[str, ...], float]
"""Name, then label=value in the order of the labels' names -> value."""


QUEUES = [(f"queue={name}",) for name in ALL_QUEUES]


@pytest.fixture
def garage(redis_url: str, server: HttpServer, make_settings: MakeSettings) -> Iterator[Garage]:
    """A project in a stack that has a Redis."""
    make_settings(REDIS_URL=redis_url, LABEL_STUDIO_URL=server.url)
    made = Garage(get_services(), server)
    yield made
    made.services.store.close()
    made.services.photos.close()


@pytest.fixture
def client(garage: Garage) -> FlaskClient:
    return create_app(garage.services).test_client()


def scrape(client: FlaskClient) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, *(f"{label}={value}" for label, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def of(samples: Samples, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one metric, by their labels."""
    return {labels: value for (found, *rest), value in samples.items() if found == name for labels in [tuple(rest)]}


# Photos and versions


def test_photos_are_counted_by_state(garage: Garage, client: FlaskClient) -> None:
    ids = garage.add_photos(30)
    garage.add_bad_photo("/data/bad.jpg", Reply(b"no picture"))
    garage.label(*ids[:12])
    garage.studio.annotate(ids[20], 1, True)  # skipped
    garage.label(ids[0], annotator=2)  # labelled twice
    garage.turn()
    labelled = set(ids[:12])
    held = {photo.task_id for photo in garage.services.store.photos(PROJECT) if photo.side == HOLDOUT} & labelled
    samples = scrape(client)
    assert of(samples, "carcond_photos") == {
        ("project=1", "state=unlabelled"): 19,
        ("project=1", "state=train"): 12 - len(held),
        ("project=1", "state=holdout"): len(held),
    }
    assert of(samples, "carcond_unreadable_photos") == {("project=1",): 1}


def test_deleted_photos_and_deleted_projects_are_not_counted(garage: Garage, client: FlaskClient) -> None:
    ids = garage.add_photos(10)
    garage.turn()
    garage.services.store.mark_gone(PROJECT, set(ids[:4]))
    assert sum(of(scrape(client), "carcond_photos").values()) == 4
    garage.services.store.retire_project(PROJECT)
    assert of(scrape(client), "carcond_photos") == {}


def test_before_the_first_version_its_number_is_0_and_nothing_is_scored(garage: Garage, client: FlaskClient) -> None:
    garage.add_photos(5)
    garage.turn()
    samples = scrape(client)
    assert of(samples, "carcond_serving_version") == {("project=1",): 0}
    assert of(samples, "carcond_last_promotion_timestamp_seconds") == {}
    assert of(samples, "carcond_holdout_accuracy") == {}


def test_the_serving_version_is_told_with_its_scores(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.label(*ids[12:30])
    garage.turn()
    version = garage.services.registry(PROJECT).current()
    assert version
    samples = scrape(create_app(garage.services).test_client())
    assert of(samples, "carcond_serving_version") == {("project=1",): version.number}
    for task, figures in version.card.holdout.items():
        labels = ("project=1", f"task={task}")
        assert samples["carcond_holdout_photos", *labels] == figures.photos
        assert samples["carcond_holdout_accuracy", *labels] == figures.accuracy
        # Absent where the hold-out is of one class: there is no score then.
        assert samples.get(("carcond_holdout_macro_f1", *labels)) == figures.macro_f1
        assert samples["carcond_holdout_calibration_error", *labels] == figures.after.ece
    promoted = (garage.services.registry(PROJECT).root / "current").stat().st_mtime
    assert of(samples, "carcond_last_promotion_timestamp_seconds") == {("project=1",): promoted}


def test_the_pinned_version_is_told_by_its_number(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    client = create_app(garage.services).test_client()
    assert of(scrape(client), "carcond_pinned_version") == {("project=1",): 0}
    garage.services.registry(PROJECT).pin_serving(1, "anna", "measured")
    assert of(scrape(client), "carcond_pinned_version") == {("project=1",): 1}


def test_a_card_without_some_figures_gives_the_others(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    registry = garage.services.registry(PROJECT)
    version = registry.current()
    assert version
    card = {"holdout": {"damage": {"accuracy": 0.5}, "cleanliness": None, "paint": {"accuracy": "good"}}}
    number = registry.write(version.heads, VersionCard(), [])
    (registry.path(number) / "card.json").write_text(json.dumps(card))
    registry.promote(number)
    samples = scrape(create_app(garage.services).test_client())
    assert of(samples, "carcond_holdout_accuracy") == {("project=1", "task=damage"): 0.5}
    assert of(samples, "carcond_holdout_calibration_error") == {}


def test_refused_versions_are_counted_and_those_since_the_last_accepted_one(
    trained: tuple[Garage, list[int]],
) -> None:
    garage, _ = trained
    registry = garage.services.registry(PROJECT)
    version = registry.current()
    assert version
    client = create_app(garage.services).test_client()

    def refused() -> tuple[float, ...]:
        samples = scrape(client)
        names = ("carcond_versions", "carcond_refused_versions", "carcond_refused_versions_in_a_row")
        return tuple(samples[name, "project=1"] for name in names)

    assert refused() == (1, 0, 0)
    for accepted in (False, True, False, False):
        registry.write(version.heads, VersionCard(gate=Gate(accepted=accepted)), [])
    assert refused() == (5, 3, 2)
    registry.write(version.heads, VersionCard(), [])  # of before the gate
    assert refused() == (6, 3, 0)


# Jobs


def test_jobs_wait_and_the_oldest_says_how_long(client: FlaskClient) -> None:
    samples = scrape(client)
    assert of(samples, "carcond_waiting_jobs") == dict.fromkeys(QUEUES, 0)
    assert samples["carcond_oldest_waiting_job_seconds", "queue=turns"] == 0
    queue = get_job_queue()
    queue.request_turn(1)
    queue.request_turn(2)
    queue.enqueue_refresh(1)
    first = queue.queues()[0].jobs[0]
    first.enqueued_at = datetime.now(UTC) - timedelta(minutes=10)
    first.save()
    samples = scrape(client)
    assert of(samples, "carcond_waiting_jobs") == dict.fromkeys(QUEUES, 0) | {
        ("queue=turns",): 2,
        ("queue=refreshes",): 1,
    }
    assert samples["carcond_oldest_waiting_job_seconds", "queue=turns"] == pytest.approx(600, abs=30)
    assert samples["carcond_oldest_waiting_job_seconds", "queue=refreshes"] < 30


def test_a_failed_job_is_counted(client: FlaskClient) -> None:
    queue = get_job_queue()
    queue.request_turn(PROJECT)
    job = queue.queues()[0].jobs[0]
    queue.queues()[0].failed_job_registry.add(job, ttl=3600)
    assert of(scrape(client), "carcond_failed_jobs") == dict.fromkeys(QUEUES, 0) | {("queue=turns",): 1}


def test_a_worker_counts_until_it_has_been_silent_for_too_long(client: FlaskClient) -> None:
    queue = get_job_queue()
    workers = [SimpleWorker(queue.queues(), connection=queue.redis, serializer=JSONSerializer) for _ in range(3)]
    assert of(scrape(client), "carcond_workers") == dict.fromkeys(QUEUES, 0)
    for worker in workers:
        worker.register_birth()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    for_loop = {("queue=turns",): 3, ("queue=refreshes",): 3, ("queue=embeddings",): 3, ("queue=finetune",): 0}
    assert of(scrape(client), "carcond_workers") == for_loop
    silent = datetime.now(UTC) - timedelta(minutes=3)
    queue.redis.hset(workers[0].key, "last_heartbeat", silent.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    queue.redis.delete(workers[1].key)  # forgotten by Redis, but still on the list
    assert scrape(client)["carcond_workers", "queue=turns"] == 1


def test_a_worker_that_fine_tunes_counts_apart_from_those_that_take_turns(client: FlaskClient) -> None:
    queue = get_job_queue()
    worker = SimpleWorker(queue.queues([FINETUNES]), connection=queue.redis, serializer=JSONSerializer)
    worker.register_birth()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    assert of(scrape(client), "carcond_workers") == dict.fromkeys(QUEUES, 0) | {("queue=finetune",): 1}


def test_a_turn_is_counted_and_its_stages_are_timed(garage: Garage, client: FlaskClient) -> None:
    garage.add_photos(3)
    assert of(scrape(client), "carcond_turns_total") == {}
    report = run_turn(PROJECT)
    samples = scrape(client)
    assert of(samples, "carcond_turns_total") == {("project=1",): 1}
    stages = {("project=1", f"stage={stage}"): seconds for stage, seconds in report["seconds"].items()}
    assert stages
    assert of(samples, "carcond_last_turn_seconds") == stages
    assert samples["carcond_last_turn_timestamp_seconds", "project=1"] > 1.7e9


def test_each_label_is_timed_once_until_its_order_is_published(garage: Garage, client: FlaskClient) -> None:
    def labels() -> float:
        return scrape(client)["carcond_label_to_order_seconds_bucket", "le=+Inf"]

    ids = garage.add_photos(6)
    garage.label(ids[0])
    run_turn(PROJECT)
    assert labels() == 0  # it was there before carcond
    garage.label(*ids[1:4])
    garage.studio.annotate(ids[4], cancelled=True)
    run_turn(PROJECT)
    assert labels() == 3
    run_turn(PROJECT)
    assert labels() == 3
    assert scrape(client)["carcond_label_to_order_seconds_bucket", "le=10.0"] == 0  # Label Studio's clock stands still


def test_a_label_that_no_version_knows_after_a_turn_is_counted(
    garage: Garage, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlearned() -> float:
        run_turn(PROJECT)
        return scrape(client)["carcond_unlearned_labels", "project=1"]

    ids = garage.add_photos(20)
    assert unlearned() == 0
    garage.label(*ids[:12])
    assert unlearned() == 0
    with monkeypatch.context() as full_disk:
        full_disk.setattr(Registry, "write", refuse)
        garage.label(*ids[12:14])
        assert unlearned() == 2
    assert unlearned() == 0
    with monkeypatch.context() as lossy:
        lossy.setattr("backend.loop.turn.sync_project", lambda *_: None)
        garage.label(*ids[14:17])
        assert unlearned() == 3
    assert unlearned() == 0


def refuse(*_: object) -> int:
    raise RegistryError("no space left on device")


# Parts that are away


def test_without_redis_the_rest_is_told(make_settings: MakeSettings, trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    make_settings(REDIS_URL="redis://127.0.0.1:1/0")
    samples = scrape(create_app(garage.services).test_client())
    assert of(samples, "carcond_part_reachable") == {("part=store",): 1, ("part=redis",): 0}
    assert samples["carcond_serving_version", "project=1"] == 1
    assert of(samples, "carcond_waiting_jobs") == {}
    assert of(samples, "carcond_workers") == {}


def test_without_the_store_the_rest_is_told(make_settings: MakeSettings, redis_url: str) -> None:
    make_settings(REDIS_URL=redis_url, DATABASE_URL="postgresql+psycopg://nobody@127.0.0.1:1/none")
    samples = scrape(create_app().test_client())
    assert of(samples, "carcond_part_reachable") == {("part=store",): 0, ("part=redis",): 1}
    assert of(samples, "carcond_photos") == {}
    assert of(samples, "carcond_workers") == dict.fromkeys(QUEUES, 0)


# Requests


def test_requests_are_counted_by_route_and_status(client: FlaskClient) -> None:
    client.get("/health")
    client.get("/health")
    client.post("/predict", json=[])
    client.get("/webhook")
    for path in ("/nothing", "/nothing/else", "/%00"):
        client.get(path)
    requests = of(scrape(client), "carcond_http_requests_total")
    assert requests == {
        ("route=/health", "status=200"): 2,
        ("route=/predict", "status=400"): 1,
        ("route=none", "status=404"): 3,
        ("route=none", "status=405"): 1,
    }
    assert scrape(client)["carcond_http_requests_total", "route=/metrics", "status=200"] == 1


def test_the_length_of_requests_is_measured(client: FlaskClient) -> None:
    client.get("/health")
    samples = scrape(client)
    assert samples["carcond_http_request_duration_seconds_count", "route=/health"] == 1
    assert samples["carcond_http_request_duration_seconds_bucket", "le=+Inf", "route=/health"] == 1
    assert 0 < samples["carcond_http_request_duration_seconds_sum", "route=/health"] < 60


def test_metrics_want_the_password_of_the_rest(make_settings: MakeSettings, redis_url: str) -> None:
    make_settings(REDIS_URL=redis_url, CARCOND_BASIC_AUTH_USER="prometheus", CARCOND_BASIC_AUTH_PASSWORD="secret")
    client = create_app().test_client()
    refused = client.get("/metrics")
    assert (refused.status_code, "carcond_" in refused.text) == (401, False)
    header = "Basic " + b64encode(b"prometheus:secret").decode()
    allowed = client.get("/metrics", headers={"Authorization": header})
    assert allowed.status_code == 200
    assert 'carcond_http_requests_total{route="/metrics",status="401"} 1.0' in allowed.text
    get_services().store.close()


# The form


def test_prometheus_gets_the_form_that_it_asks_for(client: FlaskClient) -> None:
    assert client.get("/metrics").content_type.startswith("text/plain; version=0.0.4")
    newer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert newer.content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = read_openmetrics(newer.text)  # type: ignore[no-untyped-call]  # its library leaves it untyped
    assert {family.name for family in families} >= {"carcond_part_reachable", "carcond_workers"}


@pytest.fixture
def text(trained: tuple[Garage, list[int]]) -> str:
    """All there is to tell."""
    run_turn(PROJECT)
    return create_app(trained[0].services).test_client().get("/metrics").text


def test_names_and_texts_follow_the_conventions(text: str) -> None:
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"(carcond|process)(_[a-z0-9]+)+", family.name)
        assert family.documentation.endswith(".")
        assert (family.type == "counter") == (f"{family.name}_total" in text)


def test_promtool_finds_no_fault(text: str) -> None:
    assert_promtool_finds_no_fault("metrics", text=text)
