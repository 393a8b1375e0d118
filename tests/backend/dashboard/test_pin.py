import pytest

from backend.dashboard.pin import serve_and_pin, unpin
from backend.jobs.queue import JobQueue, get_job_queue
from carcond.errors import RegistryError
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage


@pytest.fixture
def two_versions(trained: tuple[Garage, list[int]]) -> Garage:
    """Version 2 serves, version 1 did before."""
    garage, ids = trained
    garage.label(*ids[12:16])
    assert garage.settle().version == "carcond-0002"
    return garage


def test_the_chosen_version_serves_and_who_and_why_are_recorded(two_versions: Garage, job_queue: JobQueue) -> None:
    change = serve_and_pin(two_versions.services, job_queue, PROJECT, 1, who=" Anna ", why="calls wet cars dirty")
    registry = two_versions.fresh_services().registry(PROJECT)
    version = registry.current()
    assert version
    assert (version.number, change.problem) == (1, "")
    assert registry.pin() == registry.promotions()[-1]
    last = registry.promotions()[-1]
    assert (last.before, last.version, last.who, last.why) == (2, 1, "Anna", "calls wet cars dirty")
    assert next(queue.count for queue in job_queue.queues()) == 1


@pytest.mark.parametrize(("who", "why"), [("", "a reason"), ("Anna", " "), ("", "")])
def test_nobody_chooses_without_a_name_and_a_reason(two_versions: Garage, who: str, why: str) -> None:
    with pytest.raises(RegistryError, match="expected your name and a reason"):
        serve_and_pin(two_versions.services, get_job_queue(), PROJECT, 1, who=who, why=why)
    with pytest.raises(RegistryError, match="expected your name and a reason"):
        unpin(two_versions.services, get_job_queue(), PROJECT, who=who, why=why)
    assert two_versions.services.registry(PROJECT).history()[-1].version == 2


def test_a_version_that_began_to_serve_meanwhile_does_not_stop_the_choice(two_versions: Garage) -> None:
    garage = two_versions
    garage.label(next(task.id for task in garage.studio.tasks(PROJECT) if not task.annotations))
    assert garage.turn().version == "carcond-0003"
    serve_and_pin(garage.services, get_job_queue(), PROJECT, 2, who="Anna", why="a reason")
    assert garage.turn().version == "carcond-0002"


def test_without_redis_it_serves_all_the_same_and_says_what_waits(two_versions: Garage) -> None:
    change = serve_and_pin(two_versions.services, get_job_queue(), PROJECT, 1, who="Anna", why="a reason")
    assert "Redis" in change.problem
    assert two_versions.services.registry(PROJECT).promotions()[-1].version == 1


def test_what_serves_can_be_pinned_once_and_unpinned_once(two_versions: Garage) -> None:
    services = two_versions.services
    serve_and_pin(services, get_job_queue(), PROJECT, 2, who="Anna", why="a reason")
    with pytest.raises(RegistryError, match="carcond-0002 is pinned by Anna: a reason already"):
        serve_and_pin(services, get_job_queue(), PROJECT, 2, who="Ben", why="another")
    unpin(services, get_job_queue(), PROJECT, who="Ben", why="done")
    with pytest.raises(RegistryError, match="expected a pinned version, none is; carcond-0002 serves"):
        unpin(services, get_job_queue(), PROJECT, who="Ben", why="done")
