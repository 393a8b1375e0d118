"""The requests that stand-ins make, held against those that the page was seen to make (Label Studio 1.23.2)."""

from typing import Any

from scripts.page_requests import next_task_request, page_result, submit_request, update_request

TASK: dict[str, Any] = {
    "id": 46,
    "project": 1,
    "predictions": [
        {
            "id": 207,
            "result": [
                {
                    "id": "carcond-cleanliness",
                    "from_name": "cleanliness",
                    "to_name": "image",
                    "type": "choices",
                    "value": {"choices": ["very dirty"]},
                    "score": 0.5341,
                },
                {
                    "id": "carcond-damage",
                    "from_name": "damage",
                    "to_name": "image",
                    "type": "choices",
                    "value": {"choices": ["damaged"]},
                    "score": 0.7548,
                },
            ],
        }
    ],
}


def chosen(from_name: str, word: str) -> dict[str, Any]:
    return {"from_name": from_name, "to_name": "image", "type": "choices", "value": {"choices": [word]}, "score": 1.0}


def test_the_next_photo_is_asked_for_as_label_all_tasks_does() -> None:
    assert next_task_request(1) == ("/api/dm/actions?id=next_task&project=1", {"project": "1"})


def test_a_submit_names_the_prediction_that_the_photo_was_opened_with() -> None:
    path, body = submit_request(TASK, [], lead_time_s=2.2341)
    assert path == "/api/tasks/46/annotations?project=1"
    assert body.keys() == {
        *("lead_time", "result", "draft_id", "parent_prediction", "parent_annotation", "started_at", "unique_id"),
        "project",
    }
    assert (body["parent_prediction"], body["lead_time"], body["draft_id"]) == (207, 2.234, 0)
    assert (body["parent_annotation"], body["project"]) == (None, "1")


def test_a_photo_without_a_prediction_is_submitted_without_a_parent() -> None:
    assert submit_request({"id": 1, "project": 1, "predictions": []}, [], lead_time_s=1)[1]["parent_prediction"] is None


def test_only_a_skip_is_cancelled() -> None:
    assert "was_cancelled" not in submit_request(TASK, [], lead_time_s=1)[1]
    assert submit_request(TASK, [], lead_time_s=1, skipped=True)[1]["was_cancelled"] is True


def test_two_submits_have_ids_of_their_own() -> None:
    first, second = (submit_request(TASK, [], lead_time_s=1)[1]["unique_id"] for _ in range(2))
    assert first != second


def test_an_update_has_no_id_of_its_own_and_keeps_its_parent() -> None:
    annotation = {"id": 3, "task": 116, "project": 1, "parent_prediction": 21}
    path, body = update_request(annotation, [], lead_time_s=12.334)
    assert path == "/api/annotations/3?taskID=116&project=1"
    assert body.keys() == {
        *("lead_time", "result", "draft_id", "parent_prediction", "parent_annotation", "started_at", "project")
    }
    assert body["parent_prediction"] == 21


def test_regions_say_whether_the_pre_label_was_accepted() -> None:
    result = page_result(TASK, [chosen("cleanliness", "very dirty"), chosen("damage", "intact")])
    assert [(region["id"], region["origin"], region["score"]) for region in result] == [
        ("carcond-cleanliness", "prediction", 0.5341),
        ("carcond-damage", "prediction-changed", 0.7548),
    ]
    assert [region["value"]["choices"] for region in result] == [["very dirty"], ["intact"]]


def test_a_region_without_a_pre_label_is_manual_and_has_no_score() -> None:
    [region] = page_result(TASK | {"predictions": []}, [chosen("damage", "intact")])
    assert region.keys() == {"id", "from_name", "to_name", "type", "value", "origin"}
    assert region["origin"] == "manual"


def test_a_manual_region_stays_manual_when_it_is_updated() -> None:
    earlier = page_result({"predictions": []}, [chosen("damage", "intact")])
    [region] = page_result({"predictions": [{"result": earlier}]}, [chosen("damage", "damaged")])
    assert (region["origin"], region["value"]) == ("manual", {"choices": ["damaged"]})
    assert region["id"] == earlier[0]["id"]
