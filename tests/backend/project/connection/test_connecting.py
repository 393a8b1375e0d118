"""Connecting a project that was there before, and taking it back, on an in-memory Label Studio."""

import json
from copy import deepcopy
from typing import Any

import pytest

from backend.jobs.queue import JobQueue
from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.provision import SAMPLING
from backend.project.connection.changes import open_records
from backend.project.connection.connecting import connect
from backend.project.connection.disconnecting import UndoPlan, disconnect, plan_undo
from backend.project.connection.plan import ConnectionPlan, plan_connection
from backend.project.connection.view import plan_text, undo_text
from backend.services import Services, get_services
from backend.worker.jobs import run_turn
from carcond.errors import ConnectionRecordError, LabelConfigError, LabelStudioError
from carcond.registry.registry import is_ours
from tests.backend.conftest import MakeSettings
from tests.backend.drawings import draw_photo
from tests.backend.fake_label_studio import PROJECT
from tests.backend.http_server import HttpServer, Reply
from tests.backend.project.connection.fake_connections import FakeConnections

OURS = BackendAddress("http://127.0.0.1:9090", "label-studio", "backend-secret")
THEIRS = "other-v3"


class Somebody:
    """A project with another model's backend and predictions, and the two acts."""

    def __init__(self, services: Services, queue: JobQueue, server: HttpServer) -> None:
        self.services, self.queue, self.server = services, queue, server
        self.studio = FakeConnections()
        services.api = self.studio
        self.studio.add_backend("other", "http://other.example.com")
        self.studio.tabs = {1: {"title": "Default"}, 2: {"title": "mine"}}

    def add_photos(self, count: int) -> list[int]:
        photo = Reply(draw_photo(1, cleanliness="clean", damage="intact"))
        self.server.answers |= {f"/data/{i}.jpg": photo for i in range(count)}
        ids = self.studio.import_photos(*(f"/data/{i}.jpg" for i in range(count)))
        self.studio.predict_by_another(*ids)
        self.studio.model_version = THEIRS
        return ids

    def plan(self) -> ConnectionPlan:
        return plan_connection(self.services, OURS, PROJECT)

    def connect(self) -> bool:
        return connect(self.services, self.queue, OURS, self.plan(), "ann")

    def publish(self, *task_ids: int) -> None:
        """What the loop does."""
        self.studio.predict_by_another(*task_ids, version="carcond-0001")
        self.studio.model_version = "carcond-0001"

    def plan_undo(self) -> UndoPlan:
        return plan_undo(self.services, PROJECT, lambda *_: None)

    def undo(self) -> UndoPlan:
        plan, refused = disconnect(self.services, self.queue, PROJECT, "ben", lambda *_: None)
        assert refused == []
        return plan

    def state(self) -> dict[str, Any]:
        studio = self.studio
        predictions = {task.id: [p.id for p in task.predictions] for task in studio.tasks(PROJECT)}
        return deepcopy(
            {
                "settings": studio.settings,
                "version": studio.model_version,
                "backends": studio.backends,
                "hooks": studio.hooks,
                "predictions": predictions,
                "tabs": studio.tabs,
            }
        )


@pytest.fixture
def somebody(services: Services, server: HttpServer) -> Somebody:
    """There is no Redis: nothing may depend on it."""
    return Somebody(services, JobQueue(services.settings), server)


def changed(plan: ConnectionPlan) -> list[str]:
    return [change.name for change in plan.changes]


def test_a_plan_names_each_change_and_makes_none(somebody: Somebody) -> None:
    somebody.add_photos(3)
    before = somebody.state()
    plan = somebody.plan()
    assert somebody.state() == before
    assert somebody.studio.writes == []
    assert changed(plan) == [OURS.url, OURS.webhook_url, "sampling", "Next to label", "model_version"]
    assert (plan.obstacles, plan.found["other_predictions"]) == ((), {THEIRS: 3})
    text = plan_text(plan)
    assert "setting sampling: Sequential sampling -> Uncertainty sampling" in text
    assert "webhook to http://other.example.com/webhook" in text
    assert "3 predictions of other-v3" in text
    assert OURS.password not in text + json.dumps(plan.facts())


def test_connecting_changes_what_the_plan_says_and_no_more(somebody: Somebody) -> None:
    somebody.add_photos(3)
    before = somebody.state()
    assert somebody.connect() is False  # no Redis: the turn comes later
    now = somebody.state()
    assert now["backends"][:1] == before["backends"]
    assert [hook for hook in now["hooks"] if hook["url"] != OURS.webhook_url] == before["hooks"]
    assert now["settings"] == before["settings"] | {"sampling": SAMPLING}
    assert now["predictions"] == before["predictions"]
    assert [data["title"] for data in now["tabs"].values()] == ["Next to label", "Default", "mine"]
    # Until there is a queue, photos open with the answers of before.
    assert now["version"] == THEIRS
    assert somebody.services.store.project_ids() == [PROJECT]
    assert changed(somebody.plan()) == ["model_version"]


def test_the_version_of_before_serves_until_there_is_a_queue_even_if_it_is_none(somebody: Somebody) -> None:
    somebody.connect()
    assert somebody.studio.model_version == ""


def test_the_record_tells_who_and_what_and_no_secret(somebody: Somebody) -> None:
    somebody.add_photos(2)
    somebody.connect()
    [record] = open_records(somebody.services.store, PROJECT)
    assert record.made_by == "ann"
    assert [(c["name"], c["before"]) for c in record.changes][2:] == [
        ("sampling", "Sequential sampling"),
        ("Next to label", None),
        ("model_version", THEIRS),
    ]
    kept = json.dumps(record.changes)
    assert OURS.password not in kept
    assert OURS.webhook_headers["Authorization"] not in kept


def test_undo_brings_all_back_and_keeps_what_annotators_were_shown(somebody: Somebody) -> None:
    ids = somebody.add_photos(6)
    before = somebody.state()
    somebody.connect()
    somebody.publish(*ids[:5])
    somebody.studio.annotate(ids[0], damage="intact")
    shown = [p.id for p in somebody.studio.predictions_of(ids[0])]
    planned = somebody.plan_undo()
    assert (planned.removed, planned.kept) == (4, 1)
    assert "4 of photos that nobody has answered are removed" in undo_text(planned)
    somebody.undo()
    before["predictions"][ids[0]] = shown
    assert somebody.state() == before
    assert somebody.services.store.project_ids() == []
    with pytest.raises(ConnectionRecordError, match="nothing to take back"):
        somebody.undo()


def test_photos_without_another_prediction_lose_ours_in_bulk(somebody: Somebody) -> None:
    somebody.connect()
    ids = somebody.studio.import_photos("/data/a.jpg", "/data/b.jpg")
    somebody.publish(*ids)
    assert somebody.plan_undo().emptied == tuple(ids)
    somebody.undo()
    assert [somebody.studio.predictions_of(i) for i in ids] == [[], []]


def test_what_was_changed_by_hand_is_left_and_told(somebody: Somebody) -> None:
    somebody.add_photos(2)
    somebody.connect()
    somebody.studio.settings["sampling"] = "Uniform sampling"
    somebody.studio.backends[1]["url"] = "http://elsewhere.example.com"
    text = undo_text(somebody.plan_undo())
    assert "sampling: was changed by somebody since, and is left as it is (Uniform sampling;" in text
    somebody.undo()
    assert somebody.studio.settings["sampling"] == "Uniform sampling"
    assert [row["url"] for row in somebody.studio.backends][1:] == ["http://elsewhere.example.com"]


def test_a_webhook_of_ours_that_was_there_is_mended_and_later_put_back(somebody: Somebody) -> None:
    hook = somebody.studio.hook(OURS.webhook_url) | {"is_active": False}
    somebody.studio.hooks.append(hook)
    before = somebody.state()
    somebody.connect()
    assert hook["is_active"] is True
    somebody.undo()
    after = [h for h in somebody.studio.hooks if h["url"] == OURS.webhook_url]
    assert after[0]["is_active"] is False
    assert somebody.state()["backends"] == before["backends"]


def test_a_version_whose_predictions_are_gone_cannot_be_put_back_and_that_is_told(somebody: Somebody) -> None:
    ids = somebody.add_photos(2)
    somebody.connect()
    for task_id in ids:
        somebody.studio.delete_prediction(somebody.studio.prediction(task_id).id)
    somebody.publish(*ids)
    _, refused = disconnect(somebody.services, somebody.queue, PROJECT, "ben", lambda *_: None)
    assert [step.change.before for step in refused] == [THEIRS]
    assert somebody.studio.model_version == ""


def test_connecting_again_records_only_what_is_new_and_undo_goes_back_to_the_beginning(somebody: Somebody) -> None:
    ids = somebody.add_photos(2)
    before = somebody.state()
    somebody.connect()
    somebody.publish(*ids)
    somebody.studio.hooks.pop()
    somebody.connect()
    assert [len(record.changes) for record in open_records(somebody.services.store, PROJECT)] == [5, 1]
    somebody.undo()
    assert somebody.state() == before


def test_the_tab_that_leads_to_the_queue_is_told_before_and_taken_away_even_if_somebody_arranged_it(
    somebody: Somebody,
) -> None:
    somebody.add_photos(2)
    before = somebody.state()
    assert "tab Next to label: none -> shows unlabelled photos, least certain first" in plan_text(somebody.plan())
    somebody.connect()
    first = next(iter(somebody.studio.tabs.values()))
    first["columnsWidth"] = {"tasks:id": 50}
    assert "tab Next to label: is removed" in undo_text(somebody.plan_undo())
    somebody.undo()
    assert somebody.state() == before


def test_the_tab_that_shows_all_goes_with_the_other_where_there_was_none(somebody: Somebody) -> None:
    somebody.add_photos(2)
    somebody.studio.tabs = {}
    before = somebody.state()
    assert "tab Default: none -> shows all photos" in plan_text(somebody.plan())
    somebody.connect()
    assert [data["title"] for data in somebody.studio.tabs.values()] == ["Next to label", "Default"]
    somebody.undo()
    assert somebody.state() == before


def test_a_tab_that_somebody_arranged_since_is_left_alone(somebody: Somebody) -> None:
    somebody.add_photos(2)
    somebody.studio.tabs = {}
    somebody.connect()
    second = list(somebody.studio.tabs.values())[1]
    second["ordering"] = ["tasks:id"]
    assert "tab Default: was changed by somebody since" in undo_text(somebody.plan_undo())
    somebody.undo()
    assert list(somebody.studio.tabs.values()) == [second]


def test_a_tab_of_that_title_that_was_there_before_is_no_change_and_stays(somebody: Somebody) -> None:
    somebody.add_photos(2)
    somebody.studio.tabs[3] = {"title": "Next to label"}
    before = somebody.state()
    assert "Next to label" not in changed(somebody.plan())
    somebody.connect()
    somebody.undo()
    assert somebody.state() == before


def test_a_refused_webhook_takes_the_backend_back(somebody: Somebody) -> None:
    somebody.add_photos(2)
    before = somebody.state()
    plan = somebody.plan()
    somebody.studio.hooks.clear()
    before["hooks"] = []
    somebody.studio.refusals["webhooks"] = "URL resolves to a reserved network address (block: 127.0.0.0/8)"
    add = somebody.studio.add_backend

    def add_without_webhook(title: str, url: str, **more: Any) -> None:
        add(title, url, **more)
        somebody.studio.hooks.pop()  # Label Studio says nothing when it cannot be made

    somebody.studio.add_backend = add_without_webhook  # type: ignore[method-assign]
    with pytest.raises(LabelStudioError, match="USE_DEFAULT_BANNED_SUBNETS=false"):
        connect(somebody.services, somebody.queue, OURS, plan, "ann")
    assert somebody.state() == before
    assert open_records(somebody.services.store, PROJECT) == []
    assert somebody.services.store.is_released(PROJECT)


def test_a_connection_that_failed_is_not_served_by_what_label_studio_asked_meanwhile(
    somebody: Somebody, redis_url: str
) -> None:
    queue = JobQueue(somebody.services.settings.model_copy(update={"redis_url": redis_url}))
    plan = somebody.plan()

    def call_backend_and_refuse(*_: Any, **__: Any) -> None:
        queue.request_admission(PROJECT)  # what /setup does
        raise LabelStudioError("refused", 400)

    somebody.studio.add_backend = call_backend_and_refuse  # type: ignore[method-assign]
    with pytest.raises(LabelStudioError, match="refused"):
        connect(somebody.services, queue, OURS, plan, "ann")
    assert queue.begin_admissions() == []
    assert somebody.services.store.project_ids() == []


@pytest.mark.parametrize(
    ("kind", "said", "advice"),
    [
        ("ml", "URL resolves to a reserved network address (block: 127.0.0.0/8)", "USER_ADDITIONAL_BANNED_SUBNETS=0.0"),
        ("webhooks", "{'url': ['Enter a valid URL.']}", "hosts with a dot in their name"),
        ("ml", "Can't resolve hostname backend", "means nothing where Label Studio runs"),
    ],
)
def test_an_address_that_would_be_refused_is_an_obstacle(somebody: Somebody, kind: str, said: str, advice: str) -> None:
    somebody.studio.refusals[kind] = said
    plan = somebody.plan()
    assert advice in plan.obstacles[0]
    before = somebody.state()
    with pytest.raises(ConnectionRecordError, match=advice):
        connect(somebody.services, somebody.queue, OURS, plan, "ann")
    assert somebody.state() == before


def test_two_of_carcond_do_not_write_one_queue(somebody: Somebody) -> None:
    somebody.studio.add_backend("carcond", "http://another-team.example.com")
    [obstacle] = somebody.plan().obstacles
    assert "http://another-team.example.com is connected already" in obstacle


def test_a_config_for_something_else_cannot_be_connected(somebody: Somebody) -> None:
    somebody.studio.label_config = '<View><Image name="i" value="$i"/></View>'
    with pytest.raises(LabelConfigError, match="cannot be used"):
        somebody.plan()


def warned(somebody: Somebody) -> str:
    return "\n".join(somebody.plan().warnings)


def test_hosts_of_photos_are_told_with_the_line_that_allows_them(somebody: Somebody, other_server: HttpServer) -> None:
    other_server.answers["/far.jpg"] = Reply(draw_photo(1, cleanliness="clean", damage="intact"))
    target = other_server.url.replace("127.0.0.1", "localhost")
    # As Label Studio leads to photos in cloud storage.
    somebody.server.answers["/tasks/1/resolve/"] = Reply(status=303, headers={"Location": f"{target}/far.jpg"})
    somebody.studio.import_photos("/tasks/1/resolve/?fileuri=czM6", "https://cdn.example.com/1.jpg")
    plan = somebody.plan()
    assert f"CARCOND_PHOTO_HOSTS=cdn.example.com,localhost:{other_server.port}" in "\n".join(plan.warnings)
    assert plan.found["photo_sample"]["places"] == {"Label Studio": 1, "https://cdn.example.com": 1}


def test_photos_that_cannot_be_had_are_told(somebody: Somebody) -> None:
    somebody.add_photos(2)
    [gone] = somebody.studio.import_photos("/data/gone.jpg")
    somebody.server.answers["/data/text.jpg"] = Reply(b"no photo")
    somebody.studio.import_photos("/data/text.jpg")
    assert f"2 of 4 photos that were tried cannot be had, like that of task {gone}" in warned(somebody)


def test_the_first_look_is_estimated_from_the_photos_that_were_tried(somebody: Somebody) -> None:
    somebody.add_photos(8)
    found = somebody.plan().found
    assert found["first_look_s"] == pytest.approx(8 * found["photo_sample"]["seconds_each"], abs=0.1)
    assert found["photo_sample"]["tried"] == 6


def test_an_empty_project_can_be_planned(somebody: Somebody) -> None:
    assert somebody.plan().found["first_look_s"] is None


def test_what_annotators_will_notice_is_told(somebody: Somebody) -> None:
    ids = somebody.add_photos(2)
    somebody.studio.settings["maximum_annotations"] = 3
    somebody.studio.predict_by_another(ids[0], version="carcond-0007")
    told = warned(somebody)
    assert "asked of 3 annotators" in told
    assert "other ML backends stay connected" in told
    assert "1 predictions of a carcond are here already" in told
    assert "no answer chosen in place of those of other-v3" in told
    somebody.studio.annotate(ids[1], damage="intact")
    assert "no answer chosen" not in warned(somebody)


def test_a_project_that_was_let_go_gets_no_further_turn(
    services: Services, redis_url: str, server: HttpServer, make_settings: MakeSettings
) -> None:
    settings = make_settings(LABEL_STUDIO_URL=server.url, REDIS_URL=redis_url)
    somebody = Somebody(services, JobQueue(settings), server)
    somebody.add_photos(3)
    assert somebody.connect() is True  # the turn waits in Redis
    somebody.undo()

    get_services().api = somebody.studio
    assert run_turn(PROJECT) == {}
    assert services.store.project_ids() == []
    assert not any(is_ours(p.model_version) for task in somebody.studio.tasks(PROJECT) for p in task.predictions)


def test_a_connected_project_that_label_studio_did_not_find_once_goes_on_with_the_next_label(
    services: Services, redis_url: str, server: HttpServer, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy answers 404 while Label Studio starts anew."""
    settings = make_settings(LABEL_STUDIO_URL=server.url, REDIS_URL=redis_url)
    somebody = Somebody(services, JobQueue(settings), server)
    somebody.add_photos(3)
    somebody.connect()

    get_services().api = somebody.studio

    def not_found(_: int) -> None:
        raise LabelStudioError("no such project", 404)

    with monkeypatch.context() as patch:
        patch.setattr(somebody.studio, "project", not_found)
        assert run_turn(PROJECT) == {}
    assert services.store.project_ids() == []
    assert run_turn(PROJECT)["version"] == "carcond-0000"
    assert services.store.project_ids() == [PROJECT]
