import pytest

from backend.demo.rollback import roll_back
from backend.jobs import JobQueue, get_job_queue
from carcond.errors import CarcondError, RegistryError
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage


@pytest.fixture
def two_versions(trained: tuple[Garage, list[int]]) -> Garage:
    """Version 2 serves, version 1 did before."""
    garage, ids = trained
    garage.label(*ids[12:16])
    assert garage.settle().version == "carcond-0002"
    return garage


def test_the_version_before_serves_and_who_and_why_are_recorded(two_versions: Garage, job_queue: JobQueue) -> None:
    change = roll_back(two_versions.services, job_queue, PROJECT, 2, who=" Anna ", why="calls wet cars dirty")
    registry = two_versions.fresh_services().registry(PROJECT)
    version = registry.current()
    assert version
    assert (version.number, change.problem) == (1, "")
    last = registry.promotions()[-1]
    assert (last.action, last.before, last.version, last.who, last.why) == (
        *("rollback", 2, 1),
        *("Anna", "calls wet cars dirty"),
    )
    assert next(queue.count for queue in job_queue.queues()) == 1


@pytest.mark.parametrize(("who", "why"), [("", "a reason"), ("Anna", " "), ("", "")])
def test_nobody_goes_back_without_a_name_and_a_reason(two_versions: Garage, who: str, why: str) -> None:
    with pytest.raises(RegistryError, match="expected your name and a reason"):
        roll_back(two_versions.services, get_job_queue(), PROJECT, 2, who=who, why=why)
    assert two_versions.services.registry(PROJECT).promotions()[-1].version == 2


def test_a_version_that_began_to_serve_meanwhile_is_not_rolled_back(two_versions: Garage) -> None:
    with pytest.raises(RegistryError, match="carcond-0001 does not serve any more, carcond-0002 does"):
        roll_back(two_versions.services, get_job_queue(), PROJECT, 1, who="Anna", why="a reason")
    assert two_versions.services.registry(PROJECT).promotions()[-1].version == 2


def test_without_redis_it_serves_all_the_same_and_says_what_waits(two_versions: Garage) -> None:
    change = roll_back(two_versions.services, get_job_queue(), PROJECT, 2, who="Anna", why="a reason")
    assert "Redis" in change.problem
    assert two_versions.services.registry(PROJECT).promotions()[-1].version == 1


def test_there_is_nothing_before_the_first_version(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    with pytest.raises(CarcondError, match="expected a version that served before"):
        roll_back(garage.services, get_job_queue(), PROJECT, 1, who="Anna", why="a reason")
