"""A project in any order of what people do and of what breaks: no label is lost, and the right version serves."""

import shutil
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from redis import Redis

from backend.project.promotion import pin_version, serve_version, unpin_version
from carcond.errors import CarcondError, RegistryError
from carcond.registry.registry import Registry
from carcond.store.store import Store
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import CLEANLINESS, DAMAGE
from tests.backend.stateful import promises
from tests.backend.stateful.faults import Fault, Killed, Steps, disk_is_full, label_studio_is_gone, redis_is_gone
from tests.backend.stateful.site import PICTURES, UNREADABLE, Site, fit_means

pytestmark = pytest.mark.slow

T = TypeVar("T")

RUNS, RULES_PER_RUN = {"long": (2_000, 40)}.get(settings.get_current_profile_name(), (12, 30))

which = st.integers(0, 99)
steps = st.integers(0, 120)
fates = st.sampled_from(["delivered", "lost", "doubled", "late", "without Redis"])
people = st.integers(1, 3)
photos = st.integers(0, PICTURES).map(lambda number: f"/{number}.jpg" if number < PICTURES else UNREADABLE)
answers = st.fixed_dictionaries(
    {}, optional={"cleanliness": st.sampled_from(CLEANLINESS), "damage": st.sampled_from(DAMAGE)}
)


class LoopMachine(RuleBasedStateMachine):
    """People label, processes die, webhooks are lost; whenever all is at rest, the promises hold."""

    def __init__(self, site: Site, faults: Steps) -> None:
        super().__init__()
        self.site = site
        self.faults = faults
        self.pinned: int | None = None
        self.predicted: dict[int, int] = {}

    @property
    def registry(self) -> Registry:
        return self.site.services.registry(PROJECT)

    # People

    @initialize(first=st.lists(photos, min_size=4, max_size=12), labels=st.lists(answers, max_size=8))
    def begin(self, first: list[str], labels: list[dict[str, Any]]) -> None:
        ids = self.site.studio.import_photos(*first)
        for task_id, classes in zip(ids, labels, strict=False):
            self.site.studio.annotate(task_id, 1, **classes)
        self.site.services.store.add_project(PROJECT)
        self.site.queue.request_turn(PROJECT)

    @rule(added=st.lists(photos, min_size=1, max_size=5), fate=fates)
    def import_tasks(self, added: list[str], fate: str) -> None:
        self.site.studio.import_photos(*added)
        self.send("TASKS_CREATED", fate)

    @precondition(lambda self: self.tasks())
    @rule(n=which, person=people, classes=answers, fate=fates)
    def label(self, n: int, person: int, classes: dict[str, Any], fate: str) -> None:
        self.site.studio.annotate(self.task(n), person, **classes)
        self.send("ANNOTATION_CREATED", fate)

    @precondition(lambda self: self.tasks())
    @rule(n=which, person=people, fate=fates)
    def skip(self, n: int, person: int, fate: str) -> None:
        self.site.studio.annotate(self.task(n), person, cancelled=True)
        self.send("ANNOTATION_CREATED", fate)

    @precondition(lambda self: self.annotations())
    @rule(n=which, classes=answers, fate=fates)
    def change_label(self, n: int, classes: dict[str, Any], fate: str) -> None:
        self.site.studio.change_annotation(*pick(self.annotations(), n), **classes)
        self.send("ANNOTATION_UPDATED", fate)

    @precondition(lambda self: self.annotations())
    @rule(n=which, fate=fates)
    def delete_label(self, n: int, fate: str) -> None:
        self.site.studio.delete_annotation(*pick(self.annotations(), n))
        self.send("ANNOTATIONS_DELETED", fate)

    @precondition(lambda self: self.tasks())
    @rule(n=which, fate=fates)
    def delete_task(self, n: int, fate: str) -> None:
        self.site.studio.delete_task(self.task(n))
        self.send("TASKS_DELETED", fate)

    @precondition(lambda self: self.tasks())
    @rule(n=which, photo=photos)
    def exchange_photo(self, n: int, photo: str) -> None:
        self.site.studio.change_photo(self.task(n), photo)

    @precondition(lambda self: self.predicted_tasks())
    @rule(n=which)
    def open_task_in_two_browsers(self, n: int) -> None:
        self.site.studio.copy_prediction(pick(self.predicted_tasks(), n))

    @precondition(lambda self: self.tasks())
    @rule(n=which)
    def have_another_model_predict(self, n: int) -> None:
        self.site.studio.predict_by_another(self.task(n))

    @rule()
    def delete_all_predictions(self) -> None:
        self.site.studio.delete_predictions_in_bulk()
        self.predicted.clear()

    # Webhooks

    def send(self, action: str, fate: str) -> None:
        event = {"action": action, "project": {"id": PROJECT}}
        if fate == "late":
            self.site.events.append(event)
        elif fate == "without Redis":
            assert self.site.post_without_redis(event) == 503
        elif fate != "lost":
            for _ in range(2 if fate == "doubled" else 1):
                assert self.site.post(event) == 201

    @precondition(lambda self: self.site.events)
    @rule(n=which)
    def late_webhook_arrives(self, n: int) -> None:
        assert self.site.post(self.site.events.pop(n % len(self.site.events))) == 201

    # Processes

    @rule()
    def run_a_job(self) -> None:
        self.site.run_next_job()

    @rule()
    def restart_worker(self) -> None:
        self.site.start_worker()

    @rule()
    def restart_web(self) -> None:
        self.site.start_web()

    @rule()
    def restart_redis_without_its_data(self) -> None:
        self.site.queue.redis.flushall()

    @rule(step=steps)
    def kill_worker(self, step: int) -> None:
        served = self.site.studio.served()

        def kill(_: str, first: bool) -> None:
            if first:
                self.site.freeze()
            raise Killed

        self.site.queue.request_turn(PROJECT)
        with self.faults.fault(step, kill) as struck, suppress(Killed):
            self.site.run_next_job()
        if struck():
            self.site.thaw()
        assert self.site.studio.served() or not served, "expected served tasks after a kill, got none"

    @rule(step=steps, fault=st.sampled_from([redis_is_gone, label_studio_is_gone, disk_is_full]))
    def lose_something_in_a_job(self, step: int, fault: Fault) -> None:
        self.site.queue.request_turn(PROJECT)
        with self.faults.fault(step, fault), suppress(CarcondError):
            self.site.run_next_job()

    @precondition(lambda self: self.tasks())
    @rule(step=steps, n=which, classes=answers, fate=fates)
    def label_while_a_job_runs(self, step: int, n: int, classes: dict[str, Any], fate: str) -> None:
        def label(_: str, first: bool) -> None:
            if first:
                self.label(n, 1, classes, fate)

        self.site.queue.request_turn(PROJECT)
        with self.faults.fault(step, label):
            self.site.run_next_job()

    # Versions

    @precondition(lambda self: self.registry.numbers())
    @rule(n=which)
    def promote(self, n: int) -> None:
        self.serve(pick(self.registry.numbers(), n), "promote")

    @precondition(lambda self: self.registry.numbers())
    @rule()
    def roll_back(self) -> None:
        with suppress(RegistryError):  # there is nothing to go back to
            self.serve(self.registry.previous().number, "rollback")

    def serve(self, number: int, action: Any) -> None:
        with suppress(RegistryError):  # it serves already
            version = self.registry.load(number)
            serve_version(self.site.services, self.site.queue, PROJECT, version, action=action, who="anna", why="test")
            self.pinned = number

    @precondition(lambda self: self.registry.numbers())
    @rule(n=which)
    def pin(self, n: int) -> None:
        number = pick(self.registry.numbers(), n)
        with suppress(RegistryError):  # it is pinned already
            pin_version(self.site.services, self.site.queue, PROJECT, number, who="anna", why="test")
            self.pinned = number

    @precondition(lambda self: self.pinned)
    @rule()
    def unpin(self) -> None:
        unpin_version(self.site.services, self.site.queue, PROJECT, who="anna", why="test")
        self.pinned = None

    # Promises

    @rule()
    def come_to_rest(self) -> None:
        self.site.recover()
        promises.check_labels(self.site)
        promises.check_predictions(self.site)
        promises.check_web(self.site)
        if self.pinned:
            assert self.registry.pointed() == self.pinned
        there = {p.id: task.id for task in self.site.studio.tasks(PROJECT) for p in task.predictions}
        assert not {i for i, task_id in self.predicted.items() if task_id in self.tasks()} - there.keys()
        self.predicted |= there

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.come_to_rest()
        finally:
            self.site.close()

    # What there is

    def tasks(self) -> list[int]:
        return sorted(self.site.studio.task_ids(PROJECT))

    def task(self, n: int) -> int:
        return pick(self.tasks(), n)

    def annotations(self) -> list[tuple[int, int]]:
        return [(task.id, each.id) for task in self.site.studio.tasks(PROJECT) for each in task.annotations]

    def predicted_tasks(self) -> list[int]:
        return [task.id for task in self.site.studio.tasks(PROJECT) if task.predictions and not task.annotations]


def pick(items: list[T], n: int) -> T:
    return items[n % len(items)]


def test_whatever_people_do_and_whatever_breaks_no_label_is_lost(
    redis: Redis,
    redis_url: str,
    models_dir: Path,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("CRITICAL")  # else all the lines of all runs are kept
    template, numbers = tmp_path / "template", count()
    shutil.copytree(models_dir, template / "models")
    Store(f"sqlite:///{template}/store.sqlite3").close()
    monkeypatch.setattr("backend.loop.refit.fit_heads", fit_means)
    monkeypatch.setattr("carcond.data.split.LEAST_IMPORTED", 5)
    monkeypatch.setattr("carcond.registry.pruning.NEWEST", 3)
    monkeypatch.setattr("carcond.registry.pruning.GRACE_S", 0.0)
    faults = Steps(monkeypatch)

    def machine() -> LoopMachine:
        redis.flushall()
        site = tmp_path / str(next(numbers))
        shutil.copytree(template, site)
        made = make_settings(
            REDIS_URL=redis_url,
            DATABASE_URL=f"sqlite:///{site}/store.sqlite3",
            CARCOND_MODELS_DIR=str(site / "models"),
            CARCOND_QUEUE_SIZE="10",
            CARCOND_SLOTS="3",
            CARCOND_PUBLISH_CONNECTIONS="1",
            CARCOND_COLD_START_LABELS="3",
        )
        return LoopMachine(Site(made, site), faults)

    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]  # anything that makes a machine
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=RULES_PER_RUN,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
