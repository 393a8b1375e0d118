"""People who label past the queue, and people who do not."""

import json
from collections.abc import Iterator, Mapping

import pytest
from scipy.stats import binomtest

from backend.doctor.annotators import DrawnShare, check_annotators, drawn_shares
from backend.doctor.examination import Examination, ProjectExamination
from backend.doctor.finding import Finding
from carcond.data.split import HOLDOUT
from carcond.store.store import Store, TaskMirror
from carcond.store.tables import AnnotationRow, PredictionRow
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.http_server import HttpServer, Reply

ANNA, BEN = 3, 4
_PEOPLE = [{"id": ANNA, "email": "anna@example.com"}, {"id": BEN, "first_name": "Ben", "email": "ben@example.com"}]


class Project:
    """Photos in the order in which they were labelled, each by somebody, some of them drawn.

    Attributes:
        waiting: number of photos of the hold-out that are left to label.
    """

    def __init__(self, settings: Mapping[str, str], make_settings: MakeSettings) -> None:
        self.settings = make_settings(**settings)
        self.store = Store(self.settings.database_url)
        self.labels: list[tuple[int, bool]] = []
        self.waiting = 50

    def label(self, annotator: int, count: int, drawn: int) -> None:
        self.labels += [(annotator, i < drawn) for i in range(count)]

    def findings(self) -> list[Finding]:
        tasks = [
            TaskMirror(i, f"/data/{i}.jpg", [_annotation(i, who)], [_prediction(i)])
            for i, (who, _) in enumerate(self.labels, 1)
        ]
        self.store.mirror_tasks(PROJECT, tasks)
        waiting = range(1000, 1000 + self.waiting)
        self.store.mirror_tasks(PROJECT, [TaskMirror(i, f"/data/{i}.jpg", [], [_prediction(i)]) for i in waiting])
        held = [*(i for i, (_, is_held) in enumerate(self.labels, 1) if is_held), *waiting]
        self.store.update_photos(PROJECT, [{"task_id": i, "side": HOLDOUT} for i in held])
        with Examination(self.settings, "http://127.0.0.1:9090") as whole:
            return list(check_annotators(ProjectExamination(whole, PROJECT)))


@pytest.fixture
def project(server: HttpServer, make_settings: MakeSettings) -> Iterator[Project]:
    server.answers["/api/users/"] = Reply(json.dumps(_PEOPLE).encode(), headers={"Content-Type": "application/json"})
    made = Project({"LABEL_STUDIO_URL": server.url, "LABEL_STUDIO_HOST": "http://ls.example.com"}, make_settings)
    yield made
    made.store.close()


def _annotation(task: int, annotator: int, number: int | None = None, cancelled: bool = False) -> AnnotationRow:
    return AnnotationRow(
        project_id=PROJECT,
        annotation_id=number or task,
        task_id=task,
        annotator=annotator,
        updated_at="2026-01-01T00:00:00Z",
        cancelled=cancelled,
        classes={},
    )


def _prediction(task: int) -> PredictionRow:
    return PredictionRow(
        project_id=PROJECT, prediction_id=task, task_id=task, model_version="carcond-0001", score=0.5, slot=1
    )


def test_who_labels_past_the_queue_is_named_with_what_to_click(project: Project) -> None:
    project.label(ANNA, 90, drawn=0)
    project.label(BEN, 90, drawn=9)
    (found,) = project.findings()
    assert found.name == "labels-past-the-queue"
    assert found.what == (
        "1 of 2 people label past the queue: anna@example.com (0 of the newest 90 labels are of drawn photos, "
        "9 expected)."
    )
    assert f"http://ls.example.com/projects/{PROJECT}/data" in found.fix
    assert "Label All Tasks" in found.fix


def test_who_follows_the_queue_is_not_named(project: Project) -> None:
    project.label(ANNA, 90, drawn=4)  # unlucky, and no more than that
    project.label(BEN, 20, drawn=0)  # too few to tell
    (found,) = project.findings()
    assert (found.level, found.what) == ("fine", "1 of 2 have labelled enough to tell")


def test_who_came_back_to_the_queue_is_not_named_any_more(project: Project) -> None:
    project.label(ANNA, 90, drawn=0)
    project.label(ANNA, 100, drawn=10)
    assert [found.level for found in project.findings()] == ["fine"]


def test_nobody_is_named_once_the_holdout_is_used_up(project: Project) -> None:
    project.waiting = 1  # a photo that arrived just now
    project.label(ANNA, 90, drawn=0)
    assert [found.level for found in project.findings()] == ["fine"]


def test_people_are_numbers_where_label_studio_does_not_name_them(project: Project, server: HttpServer) -> None:
    server.answers["/api/users/"] = Reply(status=403)
    project.label(BEN, 90, drawn=0)
    assert "user 4 (0 of the newest 90" in project.findings()[0].what


def test_the_share_follows_the_number_of_slots(make_settings: MakeSettings, project: Project) -> None:
    project.settings = project.settings.model_copy(update={"slots": 49})
    project.label(ANNA, 90, drawn=0)
    assert [found.level for found in project.findings()] == ["fine"]


def test_only_the_first_answer_to_a_photo_of_the_queue_counts() -> None:
    rows = [
        _annotation(1, ANNA, 1),
        _annotation(2, ANNA, 2, cancelled=True),
        _annotation(2, BEN, 3),  # the first answer: the other was a skip
        _annotation(1, BEN, 4),  # looked at again
        _annotation(9, BEN, 5),  # imported, or labelled before it was served
    ]
    assert drawn_shares(rows, served={1, 2}, drawn={2}) == [DrawnShare(ANNA, 1, 0), DrawnShare(BEN, 1, 1)]


@pytest.mark.parametrize("share", [0.1, 1 / 4])
def test_the_test_is_the_exact_one_of_scipy(share: float) -> None:
    for labels in (30, 66, 100):
        for drawn in range(15):
            expected = binomtest(drawn, labels, share, alternative="less").pvalue < 0.001
            assert DrawnShare(ANNA, labels, drawn).is_too_small(share) == expected


def test_few_labels_say_nothing() -> None:
    assert not DrawnShare(ANNA, 29, 0).is_too_small(0.5)
    assert DrawnShare(ANNA, 30, 0).is_too_small(0.5)
