"""The loop against a real Label Studio, Redis, worker and gunicorn, each a process of its own."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk.label_interface.interface import LabelInterface

from backend.label_studio.label_config import CONFIDENCE_TAG, SHOWN_TAG
from backend.loop.predictions import chosen_classes
from carcond.registry.registry import Version
from carcond.store.store import Store
from scripts.stack import Stack
from tests.e2e.scenario import Scenario, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

PHOTOS = 90
LABELS = 40

RUSSIAN_CONFIG = """
<View>
  <Choices name="состояние" toName="фото"><Choice value="Битый"/><Choice value="Целый"/></Choices>
  <Choices name="грязь" toName="фото">
    <Choice value="Грязный"/><Choice value="Пыльный"/><Choice value="Чистый"/>
  </Choices>
  <Image name="фото" value="$image"/>
</View>
"""


@pytest.fixture(scope="module")
def cold(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """A project whose photos are embedded and which nobody has labelled yet."""
    scenario = Scenario(stack, "loop", tmp_path_factory.mktemp("loop"), PHOTOS)
    wait_until(lambda: scenario.model_version() == "carcond-0000" and not scenario.stale_tasks(), "the first queue")
    return scenario


@pytest.fixture(scope="module")
def learned(cold: Scenario) -> Scenario:
    """The same project after `LABELS` labels, given at a person's pace of one or two a version."""
    for number in range(LABELS):
        cold.label_next()
        if number % 2:
            wait_until(
                # Ten labels show two classes of a task: from then on there is a version to wait for.
                lambda: (
                    (number < 9 and cold.registry.current() is None)  # noqa: B023 - called in this round
                    or cold.labels_in_version().keys() == cold.labels_in_label_studio()
                ),
                "the labels so far to be learned",
            )
    cold.wait_until_quiet()
    return cold


def _has_learned(scenario: Scenario) -> bool:
    """Whether the served version knows all labels, or they are too few for a first version."""
    return (
        scenario.registry.current() is None or scenario.labels_in_version().keys() == scenario.labels_in_label_studio()
    )


@pytest.fixture
def stopped_worker(stack: Stack) -> Iterator[None]:
    """The worker stands still, so that the order stays as it is."""
    pid = stack.pids["worker"]
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


def test_the_queue_begins_with_empty_pre_labels_that_pretend_nothing(cold: Scenario) -> None:
    for task in cold.tasks():
        prediction = cold.prediction(task.id)
        assert prediction["result"] == []
        assert prediction["model_version"] == "carcond-0000"
        assert (prediction["score"] < 0.01) != (prediction["cluster"] == 0)  # the hold-out has random numbers


def test_labels_make_versions_and_the_order_follows_them(learned: Scenario) -> None:
    versions = [served.project_version for served in learned.served]
    assert versions[0] == "carcond-0000"
    assert len(set(versions)) >= 10
    assert learned.model_version() == learned.version().name


def test_a_served_photo_opens_with_the_pre_label_of_the_version_at_that_time(learned: Scenario) -> None:
    # Each is asked for right after a label was learned, while the version moves.
    for served in learned.served:
        assert served.labelled.prediction is not None
        assert served.labelled.prediction["model_version"] >= served.project_version


def test_pre_labels_of_all_other_photos_are_those_of_the_new_version(learned: Scenario) -> None:
    assert learned.stale_tasks() == []


def test_every_unlabelled_task_has_one_or_two_predictions_of_different_versions(learned: Scenario) -> None:
    for task in learned.tasks():
        versions = [prediction.model_version for prediction in task.predictions]
        assert task.annotations or len(versions) == len(set(versions)) in (1, 2)


def test_pre_labels_are_valid_against_the_label_config(learned: Scenario) -> None:
    interface = LabelInterface(learned.api.project(learned.project_id).label_config)
    unlabelled = [task for task in learned.tasks() if not task.annotations]
    for task in unlabelled[:10]:
        prediction = learned.prediction(task.id)
        names = {region["from_name"] for region in prediction["result"]}
        assert names == {"cleanliness", "damage", CONFIDENCE_TAG, SHOWN_TAG}
        errors = interface.validate_prediction(prediction, return_errors=True)  # type: ignore[no-untyped-call]
        assert errors == []


def test_the_last_label_is_in_the_training_snapshot(learned: Scenario) -> None:
    last = learned.served[-1].labelled.task_id
    assert last in learned.labels_in_version()
    assert learned.labels_in_version().keys() == {served.labelled.task_id for served in learned.served}


def test_the_exploration_slot_gets_its_share_over_many_versions(learned: Scenario) -> None:
    slots = Counter(served.slots[0] for served in learned.served)
    assert set(slots) <= set(range(10))
    assert 2 <= slots[0] <= 7  # a tenth of 40 labels


def test_photos_from_the_exploration_slot_are_held_out_and_all_others_train(learned: Scenario) -> None:
    rows = learned.labels_in_version()
    drawn = {served.labelled.task_id for served in learned.served if served.slots[0] == 0}
    held_out = {task_id for task_id, row in rows.items() if row["side"] == "holdout"}
    assert drawn <= held_out
    sides = learned.sides()
    assert all(row["side"] == sides[task_id] for task_id, row in rows.items())


def test_served_order_is_least_solved_slot_then_ascending_score(learned: Scenario, stopped_worker: None) -> None:
    version = learned.model_version()
    tasks = learned.tasks()
    waiting = {
        task.id: (prediction.slot, prediction.score)
        for task in tasks
        for prediction in task.predictions
        if not task.annotations and prediction.model_version == version
    }
    solved: Counter[int | None] = Counter(
        max(p.slot or 0 for p in task.predictions) for task in tasks if task.annotations
    )
    for _ in range(20):
        served = learned.label_next().labelled.task_id
        slot, score = waiting.pop(served)
        least = min(solved[other_slot] for other_slot, _ in [(slot, score), *waiting.values()])
        assert solved[slot] == least
        assert score is not None
        assert all(score <= (other or 0.0) for other_slot, other in waiting.values() if other_slot == slot)
        solved[slot] += 1


def test_nothing_is_lost_when_the_worker_is_killed_in_the_middle_of_a_turn(learned: Scenario, stack: Stack) -> None:
    learned.wait_until_learned()
    before = learned.version().number
    learned.label_next()
    learned.label_next()
    time.sleep(1.0)  # the turn has begun
    os.kill(stack.pids["worker"], signal.SIGKILL)
    learned.label_next()
    stack.restart("worker")
    learned.wait_until_quiet()
    assert learned.version().number > before


def test_a_skipped_photo_is_no_label_and_is_not_served_again(learned: Scenario) -> None:
    task = learned.oracle.next_task()
    assert task is not None
    learned.oracle.submit(task, {}, skipped=True)
    learned.label_next()
    learned.wait_until_learned()
    assert task["id"] not in learned.labels_in_version()
    following = learned.oracle.next_task()
    assert following is not None
    assert following["id"] != task["id"]


def test_a_deleted_annotation_is_unlearned_and_its_photo_comes_back(learned: Scenario) -> None:
    learned.wait_until_learned()
    task_id = next(t for t, row in learned.labels_in_version().items() if row["side"] == "train")
    (annotation,) = learned.task(task_id).annotations
    learned.api.request("DELETE", f"/api/annotations/{annotation.id}/")
    learned.wait_until_quiet()
    assert task_id not in learned.labels_in_version()
    assert task_id not in learned.stale_tasks()


def test_a_changed_annotation_is_learned_anew(learned: Scenario) -> None:
    learned.wait_until_learned()
    task_id, row = next((t, r) for t, r in learned.labels_in_version().items() if "damage" in r["classes"])
    other = "intact" if row["classes"]["damage"] == "damaged" else "damaged"
    (annotation,) = learned.task(task_id).annotations
    learned.oracle.update(annotation.id, {"damage": other})
    wait_until(lambda: learned.labels_in_version()[task_id]["classes"] == {"damage": other}, "the change to be learned")


def test_a_deleted_task_leaves_the_training_snapshot(learned: Scenario) -> None:
    learned.wait_until_learned()
    task_id = max(learned.labels_in_version())
    learned.api.request("DELETE", f"/api/tasks/{task_id}/")
    learned.wait_until_learned()
    assert task_id not in learned.labels_in_version()


def test_predictions_deleted_by_hand_are_made_again(learned: Scenario) -> None:
    learned.wait_until_quiet()
    task = next(task for task in learned.tasks() if not task.annotations)
    for prediction in task.predictions:
        learned.api.delete_prediction(prediction.id)
    learned.label_next()
    learned.wait_until_quiet()


def test_the_start_training_button_makes_a_turn(learned: Scenario) -> None:
    learned.wait_until_learned()
    (connected,) = learned.api.request("GET", "/api/ml/", params={"project": learned.project_id})
    learned.api.request("POST", f"/api/ml/{connected['id']}/train", json={})
    learned.wait_until_learned()


def words(result: list[dict[str, Any]]) -> dict[str, list[str]]:
    answers = [region for region in result if region["from_name"] not in (CONFIDENCE_TAG, SHOWN_TAG)]
    return {region["from_name"]: region["value"]["choices"] for region in answers}


def pre_labels_by(version: Version, scenario: Scenario) -> dict[int, dict[str, list[str]]]:
    """Task id -> the words that a version's heads have for its photo."""
    store = Store(scenario.stack.environment["DATABASE_URL"])
    task_ids, embeddings = store.embeddings(scenario.project_id, version.heads.encoder_id)
    store.close()
    classes = chosen_classes(version.heads.probabilities(embeddings))
    return {
        task_id: words(scenario.oracle.binding.result(each))
        for task_id, each in zip(task_ids.tolist(), classes, strict=True)
    }


def test_a_rollback_serves_at_once_and_order_and_pre_labels_follow(learned: Scenario) -> None:
    learned.wait_until_quiet()
    given_up, earlier = learned.version(), learned.registry.previous()
    assert learned.version_told_by_backend() == given_up.name
    why = "calls wet cars dirty"
    learned.carcond("versions", "rollback", "--project", str(learned.project_id), "--why", why, "--by", "anna")
    assert learned.version_told_by_backend() == earlier.name
    wait_until(
        lambda: learned.model_version() == earlier.name and not learned.stale_tasks(),
        "the earlier version's pre-labels",
    )
    unlabelled = [task.id for task in learned.tasks() if not task.annotations]
    expected = pre_labels_by(earlier, learned)
    assert unlabelled
    for task_id in unlabelled:
        assert words(learned.prediction(task_id)["result"]) == expected[task_id]
    record = learned.registry.promotions()[-1]
    assert (record.action, record.before, record.version) == ("rollback", given_up.number, earlier.number)
    assert (record.who, record.why) == ("anna", why)
    served = learned.label_next()
    assert served.labelled.prediction is not None
    assert served.labelled.prediction["model_version"] == earlier.name

    # It is pinned: what the next label teaches is fitted and judged, and serves once it is unpinned.
    def labels_of_the_newest() -> set[int]:
        return {row["task"] for row in learned.registry.labels(learned.registry.numbers()[-1])}

    wait_until(lambda: labels_of_the_newest() == learned.labels_in_label_studio(), "a candidate that knows the label")
    learned.label_next()
    wait_until(lambda: labels_of_the_newest() == learned.labels_in_label_studio(), "the next candidate")
    assert (learned.version().name, learned.model_version()) == (earlier.name, earlier.name)
    newest = learned.registry.numbers()[-1]
    learned.carcond(
        "versions", "unpin", "--project", str(learned.project_id), "--why", "the cars are dry", "--by", "anna"
    )
    learned.wait_until_learned()
    assert learned.version().number == newest


def test_words_order_and_tag_names_come_from_the_projects_own_config(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scenario = Scenario(stack, "по-русски", tmp_path_factory.mktemp("russian"), 16, RUSSIAN_CONFIG)
    wait_until(lambda: scenario.model_version() == "carcond-0000", "the first queue")
    for _ in range(8):
        scenario.label_next()
    scenario.wait_until_quiet()
    words = {
        (region["from_name"], region["value"]["choices"][0])
        for task in scenario.tasks()
        if not task.annotations
        for region in scenario.prediction(task.id)["result"]
    }
    assert {name for name, _ in words} == {"состояние", "грязь"}
    assert {word for _, word in words} <= {"Битый", "Целый", "Грязный", "Пыльный", "Чистый"}


def test_pre_labels_are_served_while_redis_and_the_worker_are_down(learned: Scenario, stack: Stack) -> None:
    learned.wait_until_quiet()
    os.kill(stack.pids["worker"], signal.SIGKILL)
    os.kill(stack.pids["redis"], signal.SIGKILL)
    served = learned.label_next()
    assert served.labelled.prediction is not None
    assert Path(stack.environment["CARCOND_MODELS_DIR"]).is_dir()
    stack.restart("redis")
    stack.restart("worker")
    learned.wait_until_quiet()
    assert served.labelled.task_id in learned.labels_in_version()
