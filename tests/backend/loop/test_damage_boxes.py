import logging

import pytest

from backend.label_studio.label_config import bind_label_config
from backend.loop.damage_boxes import DamageBoxes
from backend.web.ml_backend import CarConditionModel
from carcond.model.damage_box import Box
from carcond.model.explain import explain_photo
from carcond.model.heads import Heads
from tests.backend.drawings import draw_photo
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import Reply
from tests.backend.label_configs import BOXES, DAMAGE_ONLY, prediction_errors

BINDING = bind_label_config(BOXES)
DAMAGED = BINDING.result({"cleanliness": ("clean", 0.9), "damage": ("damaged", 0.8)})
INTACT = BINDING.result({"cleanliness": ("clean", 0.9), "damage": ("intact", 0.8)})


@pytest.fixture
def heads(trained: tuple[Garage, list[int]]) -> Heads:
    version = trained[0].services.registry(PROJECT).current()
    assert version is not None
    return version.heads


@pytest.fixture
def suspicious(trained: tuple[Garage, list[int]], heads: Heads) -> str:
    """Address of a photo that looks damaged in one place."""
    garage = trained[0]
    for seed in range(200):
        data = draw_photo(seed, cleanliness="clean", damage="damaged")
        if explain_photo(data, garage.services.encoder(heads.encoder_id), heads, 10**7).suspected_damage:
            garage.server.answers["/data/suspicious.jpg"] = Reply(data)
            return "/data/suspicious.jpg"
    pytest.fail("none of the drawn photos looks damaged in one place")


def test_a_photo_said_to_be_damaged_gets_the_box_that_its_map_tells(
    trained: tuple[Garage, list[int]], heads: Heads, suspicious: str
) -> None:
    services = trained[0].services
    result = DamageBoxes(services, BINDING, heads).with_box(DAMAGED, suspicious)
    data = services.photos.fetch(suspicious)
    box = explain_photo(data, services.encoder(heads.encoder_id), heads, 10**7).suspected_damage
    assert box is not None
    assert result == [*DAMAGED, BINDING.box_region(box, 0.8)]


def test_no_box_is_drawn_on_a_car_said_to_be_intact(
    trained: tuple[Garage, list[int]], heads: Heads, suspicious: str
) -> None:
    assert DamageBoxes(trained[0].services, BINDING, heads).with_box(INTACT, suspicious) == INTACT


def test_without_room_or_model_no_photo_is_even_fetched(trained: tuple[Garage, list[int]], heads: Heads) -> None:
    services, plain = trained[0].services, bind_label_config(DAMAGE_ONLY)
    result = plain.result({"damage": ("damaged", 0.8)})
    asked = len(trained[0].server.requests)
    assert DamageBoxes(services, plain, heads).with_box(result, "/data/0.jpg") == result
    assert DamageBoxes(services, BINDING, None).with_box(DAMAGED, "/data/0.jpg") == DAMAGED
    assert len(trained[0].server.requests) == asked


def test_a_photo_that_is_gone_costs_the_box_only(
    trained: tuple[Garage, list[int]], heads: Heads, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result = DamageBoxes(trained[0].services, BINDING, heads).with_box(DAMAGED, "/data/gone.jpg")
    assert result == DAMAGED
    assert "no box" in caplog.text


def test_after_a_photo_that_is_out_of_reach_no_further_one_is_waited_for(
    trained: tuple[Garage, list[int]], heads: Heads, suspicious: str
) -> None:
    garage = trained[0]
    garage.server.answers["/data/down.jpg"] = Reply(b"", 503)
    boxes = DamageBoxes(garage.services, BINDING, heads)
    assert boxes.with_box(DAMAGED, "/data/gone.jpg") == DAMAGED
    assert boxes.with_box(DAMAGED, suspicious) != DAMAGED
    assert boxes.with_box(DAMAGED, "/data/down.jpg") == DAMAGED
    assert boxes.with_box(DAMAGED, suspicious) == DAMAGED


@pytest.fixture
def boxed(garage: Garage, monkeypatch: pytest.MonkeyPatch) -> tuple[Garage, list[int]]:
    """A project with room for boxes, and thirty photos to be labelled; each damaged one looks so in one place."""
    monkeypatch.setattr("carcond.model.explain.suspected_box", lambda _: Box(0.1, 0.2, 0.3, 0.4))
    garage.studio.label_config = BOXES
    ids = garage.add_photos(60)
    garage.label(*ids[:30])
    garage.settle()
    return garage, ids[30:]


def test_the_loop_publishes_boxes_and_reasons_that_are_valid_and_no_labels(boxed: tuple[Garage, list[int]]) -> None:
    garage, ids = boxed
    for task_id in ids:
        assert garage.studio.errors(task_id) == []
        regions = garage.studio.result(task_id)
        if garage.opens_blank(task_id):
            assert [region["type"] for region in regions] == ["textarea"]
            continue
        answers = BINDING.labels(regions[:2])
        kinds = [region["type"] for region in regions[2:]]
        assert kinds == (["textarea", "rectanglelabels"] if answers["damage"] == "damaged" else ["textarea"])
        left_alone = [{**region, "origin": "prediction"} for region in regions]
        assert BINDING.labels(left_alone) == answers
    answered = [task_id for task_id in ids if not garage.opens_blank(task_id)]
    assert len({BINDING.labels(garage.studio.result(task_id))["damage"] for task_id in answered}) == 2


def test_a_live_prediction_has_box_and_line_too(boxed: tuple[Garage, list[int]]) -> None:
    garage, ids = boxed
    model = CarConditionModel(f"{PROJECT}.0", BOXES, services=garage.services)
    tasks = [{"id": task.id, "data": task.data} for task in garage.studio.tasks(PROJECT) if task.id in ids]
    for prediction in model.predict(tasks):
        assert prediction_errors(BOXES, prediction) == []
        regions = {region["from_name"]: region for region in prediction["result"]}
        assert regions["carcond"]["value"]["text"][0].startswith("carcond-0001: ")
        assert ("parts" in regions) == ("damage" in regions and regions["damage"]["value"]["choices"] == ["damaged"])
