from dataclasses import replace

import pytest

from backend.label_studio.client import StoredPrediction
from backend.project.label_review import TAB, DoubtfulPhoto, clear_review, review_labels, write_review
from carcond.analysis.label_errors import Suspect
from carcond.data.split import HOLDOUT
from carcond.errors import LabelStudioError
from carcond.registry.registry import is_ours
from tests.backend.fake_label_studio import PROJECT, FakeLabelStudio
from tests.backend.garage import Garage

Trained = tuple[Garage, list[int]]


@pytest.fixture
def trained(garage: Garage) -> Trained:
    """Forty photos, twelve of them labelled from the queue, so that they have predictions too."""
    ids = garage.add_photos(40)
    garage.settle()
    garage.label(*ids[:12])
    assert garage.settle().version == "carcond-0001"
    return garage, ids


def photo(task_id: int, suspicion: float) -> DoubtfulPhoto:
    return DoubtfulPhoto(task_id, [Suspect(0, "damage", "intact", "damaged", suspicion)])


def doubts(*task_ids: int) -> list[DoubtfulPhoto]:
    """These photos, the first the most suspicious."""
    return [photo(task_id, 0.9 - i / 100) for i, task_id in enumerate(task_ids)]


def show(studio: FakeLabelStudio, photos: list[DoubtfulPhoto], top: int = 50) -> int | None:
    tab, _ = write_review(studio, PROJECT, photos, top)
    return tab


def marks(studio: FakeLabelStudio) -> dict[int, float]:
    return {
        task.id: prediction.mislabeling
        for task in studio.tasks(PROJECT)
        for prediction in task.predictions
        if prediction.mislabeling
    }


def told(studio: FakeLabelStudio, task_id: int) -> StoredPrediction:
    """The prediction that says what is doubted."""
    (found,) = [p for p in studio.predictions_of(task_id) if p.model_version.startswith("doubt: ")]
    return found


def test_the_tab_shows_doubtful_photos_most_suspicious_first(trained: Trained) -> None:
    garage, ids = trained
    tab = show(garage.studio, doubts(ids[5], ids[0], ids[9]))
    assert garage.studio.listed(TAB) == [ids[5], ids[0], ids[9]]
    assert marks(garage.studio) == {ids[5]: 0.9, ids[0]: 0.89, ids[9]: 0.88}
    assert tab in garage.studio.tabs


def test_predictions_of_other_models_are_not_marked(garage: Garage) -> None:
    ids = garage.add_photos(3)
    garage.studio.predict_by_another(*ids)
    garage.label(*ids)
    theirs = [garage.studio.predictions_of(i)[0].mislabeling for i in ids]
    show(garage.studio, doubts(*ids))
    assert garage.studio.listed(TAB) == ids
    clear_review(garage.studio, PROJECT)
    assert [garage.studio.predictions_of(i)[0].mislabeling for i in ids] == theirs == [0.0, 0.0, 0.0]


def test_a_second_review_replaces_the_first(trained: Trained) -> None:
    garage, ids = trained
    first = show(garage.studio, doubts(ids[5], ids[0], ids[9]))
    garage.studio.tabs[first or 0]["columnsWidth"] = {"tasks:id": 50}
    second = show(garage.studio, doubts(ids[2], ids[5]))
    assert garage.studio.listed(TAB) == [ids[2], ids[5]]
    assert marks(garage.studio) == {ids[2]: 0.9, ids[5]: 0.89}
    assert second == first
    assert garage.studio.tabs[first or 0]["columnsWidth"] == {"tasks:id": 50}


def test_a_photo_labelled_anew_leaves_the_tab_at_once(trained: Trained) -> None:
    garage, ids = trained
    studio = garage.studio
    show(studio, doubts(ids[5], ids[0], ids[9]))
    (annotation,) = next(task for task in studio.tasks(PROJECT) if task.id == ids[0]).annotations
    studio.wait(5)
    studio.change_annotation(ids[0], annotation.id, damage="damaged")
    assert studio.listed(TAB) == [ids[5], ids[9]]


def test_a_photo_that_two_people_labelled_is_shown_once(trained: Trained) -> None:
    garage, ids = trained
    garage.label(ids[3], annotator=2)
    show(garage.studio, doubts(ids[3], ids[4]))
    assert garage.studio.listed(TAB) == [ids[3], ids[4]]


def test_each_photo_says_what_was_labelled_and_what_it_looks_like(trained: Trained) -> None:
    garage, ids = trained
    studio, slot = garage.studio, garage.studio.prediction(ids[5]).slot
    several = DoubtfulPhoto(
        ids[0], [Suspect(0, "damage", "intact", "damaged", 0.8), Suspect(0, "cleanliness", "clean", "very_dirty", 0.7)]
    )
    show(studio, [*doubts(ids[5]), several])
    first, second = (told(studio, ids[i]) for i in (5, 0))
    assert (first.model_version, first.score, first.slot) == ("doubt: labelled intact but looks damaged", 0.9, slot)
    assert second.model_version == "doubt: labelled intact but looks damaged / labelled clean but looks very dirty"
    answers = studio.result_of(second)
    assert {region["from_name"] for region in answers} == {"damage", "cleanliness"}
    assert [region["score"] for region in answers] == [0.8, 0.7]


def test_a_second_review_says_the_doubt_anew_in_place(trained: Trained) -> None:
    garage, ids = trained
    show(garage.studio, doubts(ids[5], ids[0]))
    before = told(garage.studio, ids[5])
    show(garage.studio, [DoubtfulPhoto(ids[5], [Suspect(0, "damage", "damaged", "intact", 0.5)])])
    after = told(garage.studio, ids[5])
    assert (after.id, after.model_version, after.score) == (before.id, "doubt: labelled damaged but looks intact", 0.5)
    assert len(garage.studio.predictions_of(ids[0])) == 1


def test_doubts_of_a_photo_without_its_label_are_left_for_pages_that_are_open(trained: Trained) -> None:
    garage, ids = trained
    studio = garage.studio
    show(studio, doubts(ids[5]))
    (annotation,) = next(task for task in studio.tasks(PROJECT) if task.id == ids[5]).annotations
    studio.delete_annotation(ids[5], annotation.id)
    clear_review(studio, PROJECT)
    assert told(studio, ids[5])
    assert marks(studio) == {}


def test_a_photo_without_a_prediction_is_shown_and_gets_none_but_the_doubt(trained: Trained) -> None:
    garage, ids = trained
    garage.studio.delete_prediction(garage.studio.prediction(ids[4]).id)
    show(garage.studio, doubts(ids[5], ids[4], ids[3]))
    assert garage.studio.listed(TAB) == [ids[5], ids[4], ids[3]]
    (doubt,) = garage.studio.predictions_of(ids[4])
    assert (doubt.model_version, doubt.slot) == ("doubt: labelled intact but looks damaged", None)


def test_photos_deleted_or_without_their_label_are_left_out(trained: Trained) -> None:
    garage, ids = trained
    studio = garage.studio
    (annotation,) = next(task for task in studio.tasks(PROJECT) if task.id == ids[2]).annotations
    studio.delete_annotation(ids[2], annotation.id)
    studio.delete_task(ids[3])
    studio.annotate(ids[30], cancelled=True)
    show(studio, doubts(ids[2], ids[3], ids[30], ids[4]))
    assert studio.listed(TAB) == [ids[4]]


def test_without_a_doubtful_photo_there_is_no_tab(trained: Trained) -> None:
    garage, ids = trained
    show(garage.studio, doubts(ids[5]))
    assert show(garage.studio, []) is None
    assert TAB not in [data["title"] for data in garage.studio.tabs.values()]
    assert marks(garage.studio) == {}


def test_clearing_takes_back_all_that_was_written(trained: Trained) -> None:
    garage, ids = trained
    studio = garage.studio
    before = everything(studio)
    show(studio, doubts(ids[5], ids[0]))
    clear_review(studio, PROJECT)
    assert everything(studio) == before
    assert [data["title"] for data in studio.tabs.values()] == ["Default"]


def test_other_tabs_stay_and_the_project_never_loses_its_own(trained: Trained) -> None:
    garage, ids = trained
    studio = garage.studio
    studio.request("POST", "/api/dm/views/", json={"project": PROJECT, "data": {"title": "mine"}})
    show(studio, doubts(ids[5]))
    assert [data["title"] for data in studio.tabs.values()] == ["mine", TAB]
    clear_review(studio, PROJECT)
    assert [data["title"] for data in studio.tabs.values()] == ["mine"]


def ours(studio: FakeLabelStudio) -> dict[int, tuple[str, float | None, int | None]]:
    """All that predictions of ours say to the queue."""
    found = [p for task in studio.tasks(PROJECT) for p in task.predictions if is_ours(p.model_version)]
    return {p.id: (p.model_version, p.score, p.slot) for p in found}


def test_a_review_neither_moves_the_queue_nor_makes_a_version(trained: Trained) -> None:
    garage, ids = trained
    studio = garage.studio
    served = studio.served()
    queue = ours(studio)
    show(studio, doubts(*ids[:12]))
    assert studio.served() == served
    studio.writes.clear()
    report = garage.settle()
    assert (report.version, report.refitted, report.stale) == ("carcond-0001", False, 0)
    assert studio.writes == []
    assert ours(studio) == queue
    for task_id in ids[:12]:  # the greatest slot of a photo is what Label Studio counts
        assert len({p.slot for p in studio.predictions_of(task_id)}) == 1


def test_a_review_that_was_cut_off_is_made_whole_by_the_next(trained: Trained) -> None:
    garage, ids = trained
    studio = garage.studio
    show(studio, doubts(ids[5], ids[0], ids[9]))
    studio.writes_until_failure = 2
    with pytest.raises(LabelStudioError):
        show(studio, doubts(ids[1], ids[2], ids[3]))
    studio.writes_until_failure = None
    show(studio, doubts(ids[1], ids[2], ids[3]))
    assert studio.listed(TAB) == [ids[1], ids[2], ids[3]]
    assert set(marks(studio)) == {ids[1], ids[2], ids[3]}


def everything(studio: FakeLabelStudio) -> list[object]:
    """All of the tasks but when they changed."""
    return [
        (task.id, task.data, task.annotations, [replace(p, updated_at="") for p in task.predictions])
        for task in studio.tasks(PROJECT)
    ]


def answer_again(studio: FakeLabelStudio, task_id: int, **classes: str) -> None:
    (annotation,) = next(task for task in studio.tasks(PROJECT) if task.id == task_id).annotations
    studio.wait(5)
    studio.change_annotation(task_id, annotation.id, **classes)


def test_a_label_that_somebody_confirmed_is_not_shown_again(trained: Trained) -> None:
    garage, ids = trained
    studio = garage.studio
    show(studio, doubts(ids[5], ids[0], ids[9]))
    answer_again(studio, ids[0], **garage.truth[ids[0]])
    for _ in range(2):
        show(studio, doubts(ids[5], ids[0], ids[9]))
        assert studio.listed(TAB) == [ids[5], ids[9]]
    clear_review(studio, PROJECT)
    show(studio, doubts(ids[5], ids[0], ids[9]))
    assert studio.listed(TAB) == [ids[5], ids[0], ids[9]]


def test_a_label_that_was_doubted_once_may_be_doubted_again_later(trained: Trained) -> None:
    garage, ids = trained
    studio = garage.studio
    show(studio, doubts(ids[5], ids[0]))
    answer_again(studio, ids[0], damage="damaged")
    show(studio, doubts(ids[5]))  # put right: no doubt is left, and nothing to be remembered
    show(studio, doubts(ids[5], ids[0]))
    assert studio.listed(TAB) == [ids[5], ids[0]]


def test_a_photo_whose_label_was_taken_back_after_it_was_shown_is_let_go(trained: Trained) -> None:
    garage, ids = trained
    studio = garage.studio
    show(studio, doubts(ids[5], ids[0]))
    (annotation,) = next(task for task in studio.tasks(PROJECT) if task.id == ids[0]).annotations
    studio.delete_annotation(ids[0], annotation.id)
    show(studio, doubts(ids[5], ids[0]))
    assert studio.listed(TAB) == [ids[5]]
    assert set(marks(studio)) == {ids[5]}


def test_photos_that_were_looked_at_leave_their_places_to_others(trained: Trained) -> None:
    garage, ids = trained
    studio = garage.studio
    show(studio, doubts(ids[5], ids[0], ids[9]), top=2)
    assert studio.listed(TAB) == [ids[5], ids[0]]
    answer_again(studio, ids[5], **garage.truth[ids[5]])
    show(studio, doubts(ids[5], ids[0], ids[9]), top=2)
    assert studio.listed(TAB) == [ids[0], ids[9]]


@pytest.fixture
def mistaken(garage: Garage) -> tuple[Garage, int]:
    """Sixty labelled photos, one of them with the wrong cleanliness."""
    ids = garage.add_photos(60)
    wrong = ids[30]
    garage.label(*(i for i in ids if i != wrong))
    garage.studio.annotate(wrong, cleanliness="very_dirty", damage=garage.truth[wrong]["damage"])
    assert garage.truth[wrong]["cleanliness"] == "clean"
    garage.turn()
    return garage, wrong


def test_a_wrong_label_is_found_and_told(mistaken: tuple[Garage, int]) -> None:
    garage, wrong = mistaken
    photos = review_labels(garage.services, PROJECT).photos
    assert photos[0].task_id == wrong
    doubt = photos[0].doubts[0]
    assert (doubt.task, doubt.given, doubt.likely) == ("cleanliness", "very_dirty", "clean")
    assert 0.5 < photos[0].suspicion <= 1


def test_a_label_put_right_is_doubted_no_longer(mistaken: tuple[Garage, int]) -> None:
    garage, wrong = mistaken
    studio = garage.studio
    (annotation,) = next(task for task in studio.tasks(PROJECT) if task.id == wrong).annotations
    studio.change_annotation(wrong, annotation.id, **garage.truth[wrong])
    garage.turn()
    assert wrong not in [photo.task_id for photo in review_labels(garage.services, PROJECT).photos]


def test_labels_of_the_hold_out_are_judged_too(mistaken: tuple[Garage, int]) -> None:
    garage, wrong = mistaken
    garage.services.store.update_photos(PROJECT, [{"task_id": wrong, "side": HOLDOUT}])
    assert review_labels(garage.services, PROJECT).photos[0].task_id == wrong


def test_too_few_labels_are_named_and_nothing_is_doubted(trained: Trained) -> None:
    garage, _ = trained
    found = review_labels(garage.services, PROJECT)
    assert found.suspicions["cleanliness"].too_few == ("clean", "slightly_dirty", "very_dirty")
    assert not found.suspicions["cleanliness"].judged.any()
