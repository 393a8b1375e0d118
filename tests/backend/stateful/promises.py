"""Promises of the loop, held against a site at rest. What Label Studio holds is read here in a way of our own."""

from collections import Counter
from typing import Any

import numpy as np

from backend.label_studio.client import LabelStudioTask
from backend.label_studio.label_config import bind_label_config
from backend.loop.predictions import is_blank
from carcond.data.split import HOLDOUT, TRAIN, photo_draw
from carcond.query.slots import EXPLORATION_SLOT
from carcond.registry.registry import COLD_START_VERSION, Registry, Version, is_ours
from tests.backend.fake_label_studio import PROJECT
from tests.backend.stateful.site import UNREADABLE, Site

# Embeddings are kept in half precision: of two classes that are as probable, either may be named.
_HALF_PRECISION = 0.02


def merged(task: LabelStudioTask, label_config: str) -> dict[str, str] | None:
    """The label of a task: the majority of everybody's latest word. None where nobody labelled it."""
    latest = {}
    for annotation in sorted(task.annotations, key=lambda each: each.updated_at):
        if not annotation.cancelled:
            latest[annotation.annotator] = bind_label_config(label_config).labels(annotation.result)
    if not latest:
        return None
    label = {}
    for question in {question for classes in latest.values() for question in classes}:
        votes = Counter(classes[question] for classes in latest.values() if question in classes).most_common(2)
        if len(votes) == 1 or votes[0][1] > votes[1][1]:
            label[question] = votes[0][0]
    return label


def check_labels(site: Site) -> None:
    """Labels in Label Studio = trained + held out + said to be left out, and none twice."""
    tasks = {task.id: task for task in site.studio.tasks(PROJECT)}
    given = [(a.id, task.id, a.annotator, a.cancelled) for task in tasks.values() for a in task.annotations]
    kept = site.services.store.annotations(PROJECT)
    assert [(a.annotation_id, a.task_id, a.annotator, a.cancelled) for a in kept] == sorted(given)

    labels = {
        key: label for key, task in tasks.items() if (label := merged(task, site.studio.label_config)) is not None
    }
    unreadable = {key for key in labels if tasks[key].data["image"] == UNREADABLE}
    split = {photo.task_id: photo.side for photo in site.services.store.photos(PROJECT)}
    assert all(split[key] in (TRAIN, HOLDOUT) for key in labels.keys() - unreadable)
    if not _can_train([label for key, label in labels.items() if key not in unreadable and split[key] == TRAIN]):
        return  # the log says that there are too few labels
    registry = site.services.registry(PROJECT)
    version, rows = _version_of(registry, labels)
    assert len(rows) == len(labels)
    assert {row["task"] for row in rows if row["problem"]} == unreadable
    used = Counter(row["side"] for row in rows if not row["problem"])
    assert all(row["side"] == split[row["task"]] for row in rows if not row["problem"])
    stated = version.card.labels
    assert (stated.train, stated.holdout, stated.unusable) == (used[TRAIN], used[HOLDOUT], len(unreadable))


def _can_train(labels: list[dict[str, str]]) -> bool:
    return any(len({label[question] for label in labels if question in label}) > 1 for question in _QUESTIONS)


_QUESTIONS = ("cleanliness", "damage")


def _version_of(registry: Registry, labels: dict[int, dict[str, str]]) -> tuple[Version, list[dict[str, Any]]]:
    """The version of exactly these labels: the one that serves, or the newest, which was refused or is held back."""
    found = []
    for version in (registry.current(), registry.newest()):
        if version:
            rows = registry.labels(version.number)
            found.append({row["task"]: row["classes"] for row in rows})
            if found[-1] == labels:
                return version, rows
    raise AssertionError(f"expected a version of the labels {labels}, got versions of {found}")


def check_predictions(site: Site) -> None:
    """Each unlabelled task has one prediction of the version that serves, which is what this version says, or blank."""
    version = site.services.registry(PROJECT).current()
    name = version.name if version else COLD_START_VERSION
    waiting = [task for task in site.studio.tasks(PROJECT) if not task.annotations]
    readable = [task for task in waiting if task.data["image"] != UNREADABLE]
    if readable:
        assert site.studio.model_version == name
    split = {photo.task_id: photo.side for photo in site.services.store.photos(PROJECT)}
    for task in readable:
        ours = [prediction for prediction in task.predictions if is_ours(prediction.model_version)]
        assert [prediction.model_version for prediction in ours].count(name) == 1
        assert len({prediction.slot for prediction in ours if prediction.slot is not None}) == 1
        (served,) = (prediction for prediction in ours if prediction.model_version == name)
        said = bind_label_config(site.studio.label_config).labels(site.studio.result_of(served))
        blank = is_blank(split[task.id] == HOLDOUT, photo_draw(PROJECT, task.id))
        assert said.keys() == (version.heads.by_task.keys() if version and not blank else set())
        assert (served.slot == EXPLORATION_SLOT) == (split[task.id] == HOLDOUT)
        if version and not blank:
            embedding = site.embed(task.data["image"])
            for question, rows in version.heads.probabilities(embedding[np.newaxis]).items():
                classes = version.heads.by_task[question].task.class_keys
                assert rows[0][classes.index(said[question])] >= rows[0].max() - _HALF_PRECISION, f"task {task.id}"
    for task in waiting:
        if task.data["image"] == UNREADABLE:
            assert not any(site.studio.result_of(p) for p in task.predictions if is_ours(p.model_version))


def check_web(site: Site) -> None:
    """A web process names the version that serves, and predicts with it."""
    version = site.services.registry(PROJECT).current()
    name = version.name if version else COLD_START_VERSION
    assert site.web.post("/setup", json={"project": f"{PROJECT}.1"}).get_json() == {"model_version": name}
    tasks: list[dict[str, Any]] = [{"id": task.id, "data": task.data} for task in site.studio.tasks(PROJECT)]
    body = {"project": f"{PROJECT}.1", "tasks": tasks, "label_config": site.studio.label_config}
    answer = site.web.post("/predict", json=body).get_json()
    split = {photo.task_id: photo.side for photo in site.services.store.photos(PROJECT)}
    assert [bool(each["result"]) for each in answer["results"]] == [
        version is not None
        and task["data"]["image"] != UNREADABLE
        and not is_blank(split[task["id"]] == HOLDOUT, photo_draw(PROJECT, task["id"]))
        for task in tasks
    ]
