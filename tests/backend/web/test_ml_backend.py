import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from label_studio_ml.model import LabelStudioMLBase

from backend.web.ml_backend import CarConditionModel, parse_project_id
from carcond.errors import QueueUnavailableError
from carcond.registry.registry import COLD_START_VERSION
from tests.backend import label_configs
from tests.backend.drawings import draw_photo
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import Reply


@pytest.fixture
def model(trained: tuple[Garage, list[int]]) -> CarConditionModel:
    garage, _ = trained
    return CarConditionModel(PROJECT, garage.studio.label_config, services=garage.services)


def test_the_model_is_one_of_label_studio_ml() -> None:
    assert issubclass(CarConditionModel, LabelStudioMLBase)


def test_the_keywords_of_version_1_make_a_model(garage: Garage) -> None:
    model = CarConditionModel(label_config=label_configs.ENGLISH, train_output={"a": 1}, services=garage.services)
    assert (model.label_config, model.train_output, model.project_id) == (label_configs.ENGLISH, {"a": 1}, 0)
    assert model.predict([{"id": 1}], login=None, password=None)[0]["result"] == []


def test_the_positional_project_of_version_2_makes_a_model(garage: Garage) -> None:
    model = CarConditionModel("1.1795378294", label_config=label_configs.ENGLISH, services=garage.services)
    assert model.project_id == 1


@pytest.mark.parametrize(
    ("project", "expected"),
    [
        ("1.1795378294", 1), ("17", 17), (17, 17), (None, 0), ("", 0), ("x.1", 0), ("²", 0), ("-1", 0),
        (1.5, 1), (True, 0), ({}, 0), ([], 0), ("9" * 5000, 0), ("9" * 20, 0),
    ],
)  # fmt: skip
def test_a_project_is_named_in_several_ways(project: str | int | None, expected: int) -> None:
    assert parse_project_id(project) == expected


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.slow
@pytest.mark.parametrize("module", ["backend.web.ml_backend", "backend.web.app", "backend.worker.__main__"])
def test_no_process_of_the_backend_imports_torch_where_it_is_installed(module: str) -> None:
    program = f"import sys, {module}; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.slow
def test_torch_can_still_be_imported_afterwards() -> None:
    subprocess.run([sys.executable, "-c", "import backend.web.ml_backend, torch; torch.zeros(1)"], check=True)


@pytest.mark.slow
def test_the_web_process_imports_neither_scikit_learn_nor_the_sdk() -> None:
    program = "import sys, backend.web.app; print([m for m in ('sklearn', 'label_studio_sdk') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"


def test_before_the_first_version_predictions_are_empty(garage: Garage) -> None:
    model = CarConditionModel(PROJECT, label_configs.ENGLISH, services=garage.services)
    assert model.version_name == COLD_START_VERSION
    assert model.predict([{"id": 1}, {"id": 2}]) == [
        {"result": [], "score": 0.0, "model_version": COLD_START_VERSION} for _ in range(2)
    ]


def test_a_kept_embedding_predicts_the_same_as_the_photo_itself(
    model: CarConditionModel, trained: tuple[Garage, list[int]]
) -> None:
    garage, ids = trained
    kept = [{"id": task_id, "data": {"image": f"/data/{ids.index(task_id)}.jpg"}} for task_id in ids]
    fetched = [{**task, "id": 100_000 + i} for i, task in enumerate(kept)]
    garage.server.requests.clear()
    from_kept = model.predict(kept)
    assert garage.server.requests == []
    from_photos = model.predict(fetched)
    assert len(garage.server.requests) == len(ids)
    scores = np.array([[a["score"], b["score"]] for a, b in zip(from_kept, from_photos, strict=True)])
    np.testing.assert_allclose(scores[:, 0], scores[:, 1], atol=2e-3)
    for a, b in zip(from_kept, from_photos, strict=True):
        if a["result"] and a["score"] > 0.51:
            assert [r["value"] for r in a["result"]] == [r["value"] for r in b["result"]]


def test_a_prediction_says_what_the_loop_has_published(
    model: CarConditionModel, trained: tuple[Garage, list[int]]
) -> None:
    garage, ids = trained
    tasks = [{"id": task_id, "data": {"image": f"/data/{ids.index(task_id)}.jpg"}} for task_id in ids[12:]]
    for task_id, prediction in zip(ids[12:], model.predict(tasks), strict=True):
        words = {region["from_name"]: region["value"]["choices"][0] for region in prediction["result"]}
        assert words == garage.studio.words(task_id)
        assert (words == {}) == garage.opens_blank(task_id)
        # Photos behind the queue are published with no lower score than the queue has.
        assert task_id in garage.drawn() or prediction["score"] <= (garage.studio.prediction(task_id).score or 0) + 1e-5


def test_a_photo_that_may_still_be_drawn_for_the_holdout_gets_no_chosen_answer(
    model: CarConditionModel, trained: tuple[Garage, list[int]]
) -> None:
    garage, ids = trained
    ordinary = next(i for i in ids[12:] if not garage.opens_blank(i))
    task = {"id": ordinary, "data": {"image": f"/data/{ids.index(ordinary)}.jpg"}}
    assert model.predict([task])[0]["result"] != []
    garage.services.store.update_photos(PROJECT, [{"task_id": ordinary, "side": None}])
    assert model.predict([task])[0]["result"] == []


def test_a_prediction_of_a_photo_in_the_queue_has_its_published_score(
    model: CarConditionModel, trained: tuple[Garage, list[int]]
) -> None:
    garage, ids = trained
    tasks = [{"id": task_id, "data": {"image": f"/data/{ids.index(task_id)}.jpg"}} for task_id in ids[12:]]
    scores = {task["id"]: answer["score"] for task, answer in zip(tasks, model.predict(tasks), strict=True)}
    served = next(i for i in garage.studio.served() if i not in garage.drawn())
    assert scores[served] == pytest.approx(garage.studio.prediction(served).score, abs=1e-5)


def test_a_batch_keeps_its_length_and_order_whatever_is_in_it(
    model: CarConditionModel, trained: tuple[Garage, list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    garage, ids = trained
    garage.server.answers |= {"/data/bad.jpg": Reply(b"no photo"), "/data/new.jpg": Reply(draw_photo(777))}
    answered = next(i for i in ids[12:] if not garage.opens_blank(i))
    good: dict[str, Any] = {"id": answered, "data": {"image": f"/data/{ids.index(answered)}.jpg"}}
    batch: list[dict[str, Any]] = [
        {"id": 501, "data": {"image": "/data/bad.jpg"}},
        good,
        {"id": 502, "data": {"image": "/data/gone.jpg"}},
        {"id": 503, "data": {"photo": "/data/20.jpg"}},
        {"id": 504},
        {"data": {"image": "/data/new.jpg"}},
        {"id": "505", "data": {"image": "/data/new.jpg"}},
        {"id": 506, "data": {"image": None}},
        {"id": 507, "data": "text"},
        {"id": 508, "data": {"image": ["/data/20.jpg"]}},
        {"id": 509, "data": {"image": "http://169.254.169.254/"}},
        {"id": 2**70, "data": {"image": "/data/new.jpg"}},
        good,
    ]
    predictions = model.predict(batch)
    assert [bool(p["result"]) for p in predictions] == [i in (1, 5, 6, 11, 12) for i in range(13)]
    assert predictions[1] == predictions[12]
    assert predictions[5]["result"] == predictions[6]["result"] == predictions[11]["result"]
    assert {p["model_version"] for p in predictions} == {"carcond-0001"}
    for reason in ("task 501: no prediction: expected a JPEG", "task 502: no prediction", "task 509: no prediction"):
        assert reason in caplog.text


def test_an_empty_batch_is_answered(model: CarConditionModel) -> None:
    assert model.predict([]) == []


def test_a_changed_address_is_looked_at_anew(model: CarConditionModel, trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.server.answers["/data/new.jpg"] = Reply(draw_photo(777))
    garage.server.requests.clear()
    model.predict([{"id": ids[0], "data": {"image": "/data/new.jpg"}}])
    assert [request.path for request in garage.server.requests] == ["/data/new.jpg"]


@pytest.mark.parametrize("name", label_configs.ALL)
def test_predictions_are_valid_under_any_config(trained: tuple[Garage, list[int]], name: str) -> None:
    garage, ids = trained
    label_config = label_configs.ALL[name]
    key = "picture" if name == "renamed" else "image"
    model = CarConditionModel(PROJECT, label_config, services=garage.services)
    tasks = [{"id": task_id, "data": {key: f"/data/{ids.index(task_id)}.jpg"}} for task_id in ids]
    for task, prediction in zip(tasks, model.predict(tasks), strict=True):
        blank = garage.opens_blank(task["id"])  # type: ignore[arg-type]
        assert len(prediction["result"]) == (0 if blank else 2)
        assert label_configs.prediction_errors(label_config, prediction) == []


@pytest.mark.parametrize("label_config", [None, "", "no xml", '<View><Image name="i" value="$image"/></View>'])
def test_without_a_usable_config_predictions_are_empty(
    trained: tuple[Garage, list[int]], label_config: str | None
) -> None:
    garage, ids = trained
    model = CarConditionModel(PROJECT, label_config, services=garage.services)
    (prediction,) = model.predict([{"id": ids[0], "data": {"image": "/data/0.jpg"}}])
    assert prediction == {"result": [], "score": 0.0, "model_version": "carcond-0001"}


def test_photos_that_time_does_not_suffice_for_get_empty_predictions(
    model: CarConditionModel, trained: tuple[Garage, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ids = trained
    monkeypatch.setattr("backend.web.ml_backend._PREDICT_SECONDS", -1.0)
    kept, unseen = model.predict(
        [{"id": ids[0], "data": {"image": "/data/0.jpg"}}, {"id": 9999, "data": {"image": "/data/1.jpg"}}]
    )
    assert kept["result"]
    assert unseen["result"] == []


def test_a_new_version_is_served_without_a_restart(model: CarConditionModel, trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.label(ids[12])
    garage.turn()
    assert model.version_name == "carcond-0002"
    assert model.predict([{"id": ids[20], "data": {"image": "/data/20.jpg"}}])[0]["model_version"] == "carcond-0002"


def test_a_broken_version_leaves_the_last_good_one_serving(
    model: CarConditionModel, trained: tuple[Garage, list[int]]
) -> None:
    garage, ids = trained
    model.predict([])
    garage.label(ids[12])
    garage.turn()
    (garage.services.registry(PROJECT).root / "versions" / "0002" / "heads.safetensors").write_bytes(b"damaged")
    fresh = garage.fresh_services()
    model = CarConditionModel(PROJECT, label_configs.ENGLISH, services=fresh)
    (prediction,) = model.predict([{"id": ids[20], "data": {"image": "/data/20.jpg"}}])
    fresh.store.close()
    assert prediction["model_version"] == "carcond-0001"
    assert prediction["result"]


def test_fit_without_redis_says_so(model: CarConditionModel) -> None:
    with pytest.raises(QueueUnavailableError, match="REDIS_URL"):
        model.fit(event="START_TRAINING", data={})
