"""Photos that the worker could not read. How a few are tried is in tests/e2e/test_doctor.py."""

from backend.doctor.examination import Examination, ProjectExamination
from backend.doctor.photos import check_known_problems
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import Reply


def test_photos_that_the_worker_could_not_read_are_told_with_the_reason_and_where_the_rest_is(garage: Garage) -> None:
    garage.add_photos(3)
    task = garage.add_bad_photo("/data/notes.jpg", Reply(b"no photo"))
    garage.turn()
    with Examination(garage.services.settings, "http://127.0.0.1:9090") as whole:
        (found,) = check_known_problems(ProjectExamination(whole, PROJECT))
    assert found.name == "photos-unreadable"
    assert found.what.startswith(f"1 of 4 photos could not be read, like task {task}: ")
    assert found.fix.endswith(f"carcond quality --project {PROJECT}")


def test_photos_that_were_all_read_are_fine(garage: Garage) -> None:
    garage.add_photos(3)
    garage.turn()
    with Examination(garage.services.settings, "http://127.0.0.1:9090") as whole:
        (found,) = check_known_problems(ProjectExamination(whole, PROJECT))
    assert (found.level, found.what) == ("fine", "nothing wrong with 3 photos")
