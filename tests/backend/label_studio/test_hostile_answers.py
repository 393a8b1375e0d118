"""Answers of something that is not quite Label Studio: a result of the right types, or an error of ours."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.label_studio.annotator_names import known_names
from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi, LabelStudioTask, PredictionDraft, ProjectInfo, StoredPrediction
from backend.label_studio.data_manager import NEXT_TO_LABEL, put_first_tab, read_tabs
from backend.label_studio.label_config import bind_label_config
from backend.label_studio.ml_backends import find_ours, is_connected, read_backends
from backend.label_studio.people import invite_link, names
from backend.label_studio.prelabels import read_prelabels
from backend.label_studio.provision import find_or_create_project, provision
from backend.label_studio.webhooks import ensure_webhook, read_webhooks, remove_stale_webhooks, wanted_webhook
from backend.project.connection.changes import present_state
from carcond.errors import LabelConfigError, LabelStudioError
from tests.backend.label_configs import ENGLISH
from tests.damage import damaged_json, json_values

BACKEND = BackendAddress("http://backend.carcond.internal:9090", "label-studio", "s3cret-password")
BINDING = bind_label_config(ENGLISH)
STAMP = "2026-01-01T00:00:00.000000Z"
PREDICTION = {"id": 9, "task": 1, "result": [], "score": 0.5, "model_version": "carcond-0001", "cluster": 3}
PREDICTION |= {"mislabeling": 0.0, "updated_at": STAMP, "neighbors": {"cleanliness": ["clean", 0.4]}}
RESULT = [{**region, "origin": "prediction"} for region in BINDING.result({"damage": ("damaged", 0.9)})]
ANNOTATION = {"id": 5, "completed_by": 1, "was_cancelled": False, "updated_at": STAMP, "result": RESULT, "task": 1}
TASKS = [
    {"id": number, "data": {"image": "/data/upload/1/a.jpg"}, "updated_at": STAMP}
    | {"annotations": [ANNOTATION, ANNOTATION | {"completed_by": {"id": 2}}], "predictions": [PREDICTION]}
    for number in (1, 2)
]
PROJECT = {"id": 1, "title": "Cars", "label_config": ENGLISH, "model_version": "carcond-0001", "sampling": "x"}
PROJECT |= {"task_number": 2, "total_predictions_number": 2, "maximum_annotations": 1}
TABS = [{"id": 1, "data": {"title": "Default", "filters": {"conjunction": "and", "items": []}, "ordering": []}}]
ANSWERS = {
    ("GET", "/api/projects/1/"): PROJECT,
    ("GET", "/api/projects/"): {"count": 1, "results": [PROJECT]},
    ("POST", "/api/projects/"): PROJECT,
    ("GET", "/api/tasks/"): {"total": 2, "total_annotations": 4, "tasks": TASKS},
    ("GET", "/api/tasks/1/"): TASKS[0],
    ("POST", "/api/predictions/"): PREDICTION,
    ("PATCH", "/api/predictions/9/"): PREDICTION,
    ("GET", "/api/webhooks/"): [{"id": 4, "project": 1, **wanted_webhook(BACKEND)}],
    ("GET", "/api/ml/"): [
        {"id": 3, "title": "carcond", "url": BACKEND.url, "state": "CO", "auth_method": "BASIC_AUTH"}
    ],
    ("GET", "/api/dm/views/"): TABS,
    ("POST", "/api/dm/views/"): TABS[0],
    ("GET", "/api/users/"): [{"id": 1, "first_name": "Ann", "last_name": None, "email": "a@example.com"}],
    ("GET", "/api/invite"): {"invite_url": "/user/signup/?token=x"},
}


class AlmostLabelStudio(LabelStudioApi):
    """Answers each request with damaged JSON, and now and then with an error or no JSON."""

    def __init__(self, data: st.DataObject | None = None) -> None:
        self.url = "http://label-studio.example"  # and no client, which would take 0.1 s to make
        self._data = data

    def _send(self, method: str, path: str, content: Mapping[str, Any]) -> httpx.Response:
        answer = ANSWERS.get((method, path), {})
        status, answered = 200, as_json(answer)
        if self._data:
            status = self._data.draw(st.sampled_from([*[200] * 12, 404, 500]))
            damaged = damaged_json(answer) | json_values | st.just(answer)
            answered = self._data.draw(damaged.map(as_json) | st.sampled_from([b"", b"null", b"\xff", b"[" * 100_000]))
        return httpx.Response(status, content=answered)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def check_project(api: LabelStudioApi) -> None:
    info = api.project(1)
    assert types(info.id, info.task_count, info.prediction_count) == {int}
    assert types(info.title, info.label_config, info.model_version, info.sampling) == {str}


def check_task(task: LabelStudioTask) -> None:
    assert types(task.id) == {int}
    assert types(task.data) == {dict}
    for annotation in task.annotations:
        assert types(annotation.id, annotation.annotator) == {int}
        assert types(annotation.updated_at, task.updated_at) == {str}
        assert set(BINDING.labels(annotation.result)) <= {"cleanliness", "damage"}
        for class_key, confidence, shown in read_prelabels(BINDING, annotation.result, task.predictions).values():
            assert (types(class_key) <= {str, type(None)}, types(confidence), types(shown)) == (True, {float}, {bool})
            assert 0 <= confidence <= 1
    for prediction in task.predictions:
        check_prediction(prediction)


def check_prediction(prediction: StoredPrediction) -> None:
    assert types(prediction.id, prediction.task_id) == {int}
    assert types(prediction.slot) <= {int, type(None)}
    assert types(prediction.score) <= {float, type(None)}
    assert types(prediction.mislabeling) == {float}
    assert types(prediction.model_version, prediction.updated_at) == {str}


def check_tasks(api: LabelStudioApi) -> None:
    for task in api.tasks(1, changed_since=STAMP):
        check_task(task)


def check_found_tasks(api: LabelStudioApi) -> None:
    count, tasks = api.find_tasks(1, count=2)
    assert types(count) == {int}
    for task in tasks:
        check_task(task)


def check_written_predictions(api: LabelStudioApi) -> None:
    draft = PredictionDraft(1, [], 0.5, "carcond-0002", 1)
    for written in (
        api.create_prediction(draft),
        api.update_prediction(9, draft),
        api.set_slot(9, None),
        api.set_version(9, "carcond-0002"),
    ):
        check_prediction(written)


def check_backends(api: LabelStudioApi) -> None:
    ours = find_ours(read_backends(api, 1))
    assert ours is None or types(is_connected(ours, BACKEND)) == {bool}


def check_people(api: LabelStudioApi) -> None:
    assert types(*known_names(api), 0) == {int}
    assert types(*names(api).values(), "") == {str}
    assert invite_link(api, "http://x/").startswith("http://x/")


def check_state(api: LabelStudioApi) -> None:
    info = ProjectInfo(1, "Cars", ENGLISH, "", "", 2, 2, 0, PROJECT)
    assert present_state(api, info, BACKEND.url)


def types(*values: object) -> set[type]:
    return {type(value) for value in values}


CHECKS: dict[str, Callable[[LabelStudioApi], object]] = {
    "project": check_project,
    "tasks": check_tasks,
    "task ids": lambda api: api.task_ids(1),
    "found tasks": check_found_tasks,
    "written predictions": check_written_predictions,
    "webhooks": lambda api: (read_webhooks(api, 1), ensure_webhook(api, BACKEND, 1)),
    "stale webhooks": lambda api: remove_stale_webhooks(api, BACKEND, 1, "http://old.example"),
    "ml backends": check_backends,
    "tabs": lambda api: (read_tabs(api, 1), put_first_tab(api, 1, NEXT_TO_LABEL)),
    "members": check_people,
    "a project by its title": lambda api: find_or_create_project(api, "Cars"),
    "a project by its number": lambda api: find_or_create_project(api, "Cars", 1),
    "setting up": lambda api: provision(api, BACKEND, "Cars", 1),
    "the state before connecting": check_state,
}


@pytest.mark.parametrize("name", CHECKS)
def test_each_answer_as_it_should_be_is_read(name: str) -> None:
    CHECKS[name](AlmostLabelStudio())


@pytest.mark.parametrize("name", CHECKS)
@settings(max_examples=settings().max_examples // 4)
@given(data=st.data())
def test_each_damaged_answer_is_read_or_is_one_error_of_one_sentence(name: str, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backend.label_studio.client._RETRY_WAITS_S", ())
        try:
            CHECKS[name](AlmostLabelStudio(data))
        except LabelStudioError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either is right
            assert "s3cret-password" not in str(error)  # noqa: PT017
        except LabelConfigError:
            assert "project" in name or name == "setting up"


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("content", [b"null", b"[null]", b"[[]]", b'"text"', b"1", b"NaN", b'{"tasks": null}'])
def test_an_answer_of_another_kind_is_an_error_that_says_what_was_expected(name: str, content: bytes) -> None:
    class Other(AlmostLabelStudio):
        def _send(self, *_: Any) -> httpx.Response:
            return httpx.Response(200, content=content)

    with pytest.raises(LabelStudioError, match=r"expected .* from Label Studio, got"):
        CHECKS[name](Other())


def test_a_list_of_tasks_that_never_ends_is_an_error() -> None:
    class Endless(AlmostLabelStudio):
        def _send(self, *_: Any) -> httpx.Response:
            return httpx.Response(200, content=as_json({"total": 10, "tasks": TASKS}))

    with pytest.raises(LabelStudioError, match="expected tasks after number 2 from Label Studio, got number 1"):
        Endless().task_ids(1)


def test_a_region_that_is_none_answers_nothing_and_stops_nothing() -> None:
    class Odd(AlmostLabelStudio):
        def _send(self, *_: Any) -> httpx.Response:
            odd = [*RESULT, None, 1, "text", ["list"]]
            annotations = [ANNOTATION | {"result": odd}, ANNOTATION | {"result": "text"}]
            return httpx.Response(
                200, content=as_json({"total": 1, "tasks": [TASKS[0] | {"annotations": annotations}]})
            )

    (task,) = Odd().tasks(1)
    assert [BINDING.labels(annotation.result) for annotation in task.annotations] == [{"damage": "damaged"}, {}]
