import numpy as np
import pytest

from backend.loop.predictions import queue_settings
from backend.snapshot import Snapshot
from carcond.analysis import live_replay
from carcond.analysis.live_replay import LiveReplay, LiveSettings
from carcond.analysis.replay_set import ReplayDataset
from carcond.data.label_table import TaskLabels
from carcond.query.live_queue import Pool
from carcond.taxonomy import TASKS
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage


def label_as_served(garage: Garage, count: int) -> None:
    """Label photos as Label Studio serves them: of the slot with the fewest labels, the lowest score."""
    for _ in range(count):
        tasks = list(garage.studio.tasks(PROJECT))
        solved = [max(p.slot or 0 for p in task.predictions) for task in tasks if task.annotations]
        waiting = [
            (solved.count(p.slot or 0), p.score, task.id)
            for task in tasks
            if not task.annotations
            for p in task.predictions
            if p.model_version == garage.studio.model_version
        ]
        garage.label(min(waiting)[-1])


def test_temperatures_are_chosen_on_the_holdout_too(garage: Garage) -> None:
    ids = garage.add_photos(80)
    garage.settle()
    garage.label(*ids[:60])
    garage.settle()
    version = garage.services.registry(PROJECT).current()
    assert version
    assert version.card.labels.holdout
    for key, head in version.heads.by_task.items():
        assert head.fold_temperatures is not None
        assert version.card.calibration[key].photos == 60


def test_the_replayed_service_labels_the_photos_that_the_loop_serves(
    garage: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    garage.add_photos(80)
    garage.settle()
    snapshot = Snapshot.take(garage.services, PROJECT, garage.services.encoder_id())
    pool = snapshot.pool()
    labels = {}
    for task in TASKS:
        truth = [garage.truth[task_id][task.key] for task_id in snapshot.task_ids.tolist()]
        labels[task.key] = TaskLabels(task, np.array([task.class_keys.index(each) for each in truth]))
    groups = snapshot.facts.groups[snapshot.positions]
    dataset = ReplayDataset(snapshot.embeddings[np.arange(80)], labels, groups, np.zeros(80, dtype=np.bool_))

    def same_draw(*arguments: object) -> Pool:
        embeddings, unlabelled, _, _, kept_slots = arguments
        return Pool(embeddings, unlabelled, pool.holdout, pool.draws, kept_slots)  # type: ignore[arg-type]

    monkeypatch.setattr(live_replay, "_draw_holdout", lambda *_: pool.holdout)
    monkeypatch.setattr(live_replay, "Pool", same_draw)
    service = LiveReplay(dataset, LiveSettings(queue_settings(garage.services.settings), publish_every=5), seed=0)
    common = []
    for done in range(5, 41, 5):
        label_as_served(garage, 5)
        garage.settle()
        service.label(done)
        served = {task.id for task in garage.studio.tasks(PROJECT) if task.annotations}
        common.append(len(served & set(snapshot.task_ids[service.labelled].tolist())))
    # Later the loop keeps photos that may be open on a page in their slots; the replay has no pages.
    assert common[:2] == [5, 10]
    assert common[-1] >= 30
