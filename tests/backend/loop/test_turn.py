import shutil

import pytest

from backend.loop.turn import TurnReport
from backend.services import Services
from carcond.data.split import HOLDOUT, TRAIN
from carcond.errors import LabelConfigError
from carcond.model.version_card import Labels, VersionCard
from carcond.registry.registry import COLD_START_VERSION
from tests.backend import label_configs
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import CLEANLINESS, Garage
from tests.backend.http_server import Reply

pytestmark = pytest.mark.slow


# The first turns


def test_an_empty_project_is_no_trouble(garage: Garage) -> None:
    report = garage.settle()
    assert (report.version, report.labelled, report.photos_left, report.stale) == (COLD_START_VERSION, 0, 0, 0)
    assert garage.studio.writes == []


def test_before_any_label_typical_photos_are_served_with_nothing_filled_in(garage: Garage) -> None:
    ids = garage.add_photos(30)
    report = garage.turn()
    assert report == TurnReport(COLD_START_VERSION, False, 0, 0, 30 - 20, report.seconds)
    assert garage.studio.model_version == COLD_START_VERSION
    served = garage.studio.served()
    assert len(served) == garage.services.settings.queue_size
    assert all(garage.studio.words(task_id) == {} for task_id in served)
    typical = {cleanliness: 0 for cleanliness in CLEANLINESS}
    for task_id in served[:9]:
        typical[garage.truth[task_id]["cleanliness"]] += 1
    assert all(typical.values()), f"expected photos of each kind among {ids}"


def test_labels_of_one_class_make_no_version(garage: Garage) -> None:
    ids = garage.add_photos(20)
    garage.studio.annotate(ids[0], cleanliness="clean", damage="intact")
    garage.studio.annotate(ids[1], cleanliness="clean", damage="intact")
    assert garage.turn().version == COLD_START_VERSION


def test_two_classes_of_one_task_make_the_first_version(garage: Garage) -> None:
    ids = garage.add_photos(20)
    garage.studio.annotate(ids[0], damage="intact")
    garage.studio.annotate(ids[1], damage="damaged")
    report = garage.turn()
    assert (report.version, report.refitted, report.labelled) == ("carcond-0001", True, 2)
    assert garage.studio.model_version == "carcond-0001"


def test_with_only_damage_labelled_only_damage_is_predicted(garage: Garage) -> None:
    ids = garage.add_photos(20)
    for task_id in ids[:8]:
        garage.studio.annotate(task_id, damage=garage.truth[task_id]["damage"])
    garage.settle()
    assert all(set(words) == {"damage"} for words in garage.words(*ids[8:]))


def test_the_loop_learns(garage: Garage) -> None:
    ids = garage.add_photos(60)
    garage.label(*ids[:30])
    garage.settle()
    words = {"clean": "clean", "slightly_dirty": "slightly dirty", "very_dirty": "very dirty"}
    right = [
        garage.studio.words(task_id)
        == {"cleanliness": words[garage.truth[task_id]["cleanliness"]], "damage": garage.truth[task_id]["damage"]}
        for task_id in ids[30:]
        if not garage.opens_blank(task_id)
    ]
    assert sum(right) >= 0.8 * len(right) > 16


# What Label Studio holds


def test_every_unlabelled_task_has_exactly_one_prediction_of_the_version(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    assert {garage.studio.prediction(task_id).model_version for task_id in ids[12:]} == {"carcond-0001"}
    garage.label(*ids[12:20])
    garage.settle()
    assert {garage.studio.prediction(task_id).model_version for task_id in ids[20:]} == {"carcond-0002"}


@pytest.mark.parametrize("name", label_configs.ALL)
def test_every_prediction_is_valid_under_the_projects_config(garage: Garage, name: str) -> None:
    garage.studio.label_config = label_configs.ALL[name].replace("$picture", "$image")
    ids = garage.add_photos(20)
    garage.label(*ids[:8])
    garage.settle()
    assert all(len(words) == 2 for words in garage.words(*ids[8:]))
    for task_id in ids[8:]:
        assert garage.studio.errors(task_id) == []


def test_a_label_makes_a_new_version_that_is_served(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.label(ids[12])
    report = garage.turn()
    assert (report.version, report.refitted, report.labelled) == ("carcond-0002", True, 13)
    assert garage.studio.model_version == "carcond-0002"
    assert set(garage.studio.served()) <= set(ids[13:])


def test_predictions_of_labelled_tasks_are_left_alone(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    before = garage.studio.prediction(ids[12])
    garage.label(ids[12])
    garage.settle()
    assert garage.studio.prediction(ids[12]) == before
    assert before.model_version == "carcond-0001"


def test_of_duplicates_on_an_unlabelled_task_one_is_served_and_none_is_deleted(
    trained: tuple[Garage, list[int]],
) -> None:
    garage, ids = trained
    garage.studio.copy_prediction(ids[20])
    garage.studio.copy_prediction(ids[20])
    assert len(garage.studio.predictions_of(ids[20])) == 3
    there = {prediction.id for prediction in garage.studio.predictions_of(ids[20])}
    garage.settle()
    assert {prediction.id for prediction in garage.studio.predictions_of(ids[20])} == there
    versions = [prediction.model_version for prediction in garage.studio.predictions_of(ids[20])]
    assert versions.count(garage.studio.model_version) == 1


def test_predictions_of_other_models_are_left_alone(garage: Garage) -> None:
    ids = garage.add_photos(40)
    garage.studio.predict_by_another(*ids[::2])
    theirs = {i: garage.studio.predictions_of(i) for i in ids[::2]}
    garage.label(*ids[:12])
    garage.settle()
    for task_id in ids[12:]:
        kept = theirs.get(task_id, [])
        ours = [p for p in garage.studio.predictions_of(task_id) if p not in kept]
        assert garage.studio.predictions_of(task_id) == kept + ours
        assert [p.model_version for p in ours] == ["carcond-0001"]
    garage.studio.writes.clear()
    garage.settle()
    assert garage.studio.writes == []


def test_duplicates_on_a_labelled_task_are_left_alone(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.studio.copy_prediction(ids[12])
    garage.label(ids[12])
    garage.settle()
    assert len(garage.studio.predictions_of(ids[12])) == 2


def test_without_news_nothing_is_made_and_nothing_written(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    garage.studio.writes.clear()
    for _ in range(2):
        report = garage.settle()
        assert (report.version, report.refitted, report.stale) == ("carcond-0001", False, 0)
    assert garage.studio.writes == []


def test_new_photos_get_predictions_without_a_new_version(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    (added,) = garage.add_photos(1)
    report = garage.settle()
    assert (report.version, report.refitted) == ("carcond-0001", False)
    assert garage.studio.prediction(added).model_version == "carcond-0001"


def test_a_fully_labelled_project_is_no_trouble(garage: Garage) -> None:
    garage.label(*garage.add_photos(12))
    assert garage.settle().labelled == 12
    assert garage.studio.writes == []
    garage.settle()


def test_a_refresh_gives_way(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.label(ids[12])
    report = garage.turn()
    assert report.stale > 0
    garage.studio.writes.clear()
    assert garage.loop.refresh(lambda: True) == report.stale
    assert garage.studio.writes == []


# The hold-out


def test_a_tenth_of_the_photos_is_held_out_when_they_arrive_and_waits_in_its_slot(
    trained: tuple[Garage, list[int]],
) -> None:
    garage, ids = trained
    drawn = garage.drawn()
    assert len(drawn) in (2, 3)  # a tenth of the 28 that came without a label
    assert drawn <= set(ids[12:])
    assert garage.explored() == drawn
    garage.label(*[task_id for task_id in ids[12:20] if task_id not in drawn])
    garage.settle()
    assert garage.drawn() == garage.explored() == drawn
    later = garage.add_photos(20)
    garage.settle()
    assert len(garage.drawn() - drawn) == 2
    assert garage.drawn() - drawn <= set(later)


def test_a_photo_that_comes_late_to_a_held_out_group_is_held_out(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    held = min(garage.drawn())
    (copy,) = garage.studio.import_photos(f"/data/{ids.index(held)}.jpg")
    garage.settle()
    assert copy in garage.drawn()
    assert copy in garage.explored()


def test_the_loop_goes_on_when_the_whole_holdout_is_labelled(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.label(*garage.explored())
    report = garage.settle()
    assert garage.explored() == set()
    waiting = set(ids[12:]) - garage.drawn()
    assert set(garage.studio.served()) <= waiting
    garage.label(*waiting)
    assert garage.settle().labelled == 40 > report.labelled


def test_exploration_photos_are_measured_on_and_never_trained_on(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    drawn = garage.drawn()
    garage.label(*drawn)
    garage.settle()
    rows = garage.rows()
    assert {rows[task_id]["side"] for task_id in drawn} == {HOLDOUT}
    assert {rows[task_id]["side"] for task_id in ids[:12]} == {TRAIN}
    version = garage.services.registry(PROJECT).current()
    assert version
    assert version.card.labels == Labels(train=12, holdout=len(drawn), unusable=0)
    assert version.card.holdout["damage"].photos == len(drawn)


def test_an_answer_that_the_model_is_not_sure_of_is_left_to_the_annotator(
    trained: tuple[Garage, list[int]], make_settings: MakeSettings
) -> None:
    garage, ids = trained
    settings = make_settings(LABEL_STUDIO_URL=garage.server.url, CARCOND_PRELABEL_MIN_CONFIDENCE="0.6")
    services = Services(settings)
    services.api = garage.studio
    garage.services = services
    garage.label(next(i for i in ids[12:] if not garage.opens_blank(i)))
    garage.settle()
    version = services.registry(PROJECT).current()
    assert version
    task_ids, embeddings = services.store.embeddings(PROJECT, version.heads.encoder_id)
    sure = dict(
        zip(task_ids.tolist(), version.heads.probabilities(embeddings)["damage"].max(axis=1) >= 0.6, strict=True)
    )
    waiting = [i for i in ids[12:] if not garage.opens_blank(i) and i not in garage.rows()]
    for task_id in waiting:
        assert ("damage" in garage.studio.words(task_id)) == sure[task_id]
    assert {bool(sure[task_id]) for task_id in waiting} == {True, False}
    services.store.close()


def test_the_card_of_a_version_is_checked_and_read_back_as_it_was_written(
    trained: tuple[Garage, list[int]],
) -> None:
    garage, ids = trained
    garage.label(*ids[12:30], *garage.explored())
    garage.settle()
    registry = garage.services.registry(PROJECT)
    written = registry.card(registry.numbers()[-1])
    assert written["holdout"]
    assert written["gate"]["against"]
    checked = VersionCard(**written)
    assert checked.facts() == written
    assert checked == VersionCard.read(written)


def test_a_label_on_the_holdout_leaves_the_heads_as_they_are(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    one = min(garage.explored())
    before = {task_id: garage.studio.words(task_id) for task_id in ids[12:] if task_id != one}
    garage.label(one)
    garage.settle()
    assert {task_id: garage.studio.words(task_id) for task_id in before} == before


# What annotators do


def test_a_skipped_annotation_is_no_label_and_the_photo_leaves_the_queue(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    skipped = next(task_id for task_id in garage.studio.served() if task_id not in garage.drawn())
    garage.studio.annotate(skipped, cancelled=True)
    garage.label(next(task_id for task_id in ids[12:] if task_id != skipped))
    report = garage.settle()
    assert report.labelled == 13
    assert skipped not in garage.rows()
    assert garage.studio.prediction(skipped).model_version == "carcond-0001" != garage.studio.model_version


def test_a_skipped_photo_that_another_annotator_labels_counts(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.studio.annotate(ids[20], annotator=1, cancelled=True)
    garage.label(ids[20], annotator=2)
    assert garage.turn().labelled == 13


def test_a_deleted_annotation_makes_the_photo_wait_again_and_a_new_version(garage: Garage) -> None:
    ids = garage.add_photos(30)
    garage.label(*ids[:12])
    annotation = garage.studio.annotate(ids[12], 1, False, **garage.truth[ids[12]])
    garage.settle()
    garage.studio.delete_annotation(ids[12], annotation)
    report = garage.settle()
    assert (report.version, report.refitted, report.labelled) == ("carcond-0002", True, 12)
    assert garage.studio.prediction(ids[12]).model_version == "carcond-0002"
    assert ids[12] not in garage.rows()


def test_a_changed_annotation_makes_a_new_version(garage: Garage) -> None:
    ids = garage.add_photos(30)
    garage.label(*ids[1:12])
    annotation = garage.studio.annotate(ids[0], cleanliness="clean", damage="intact")
    garage.settle()
    garage.studio.change_annotation(ids[0], annotation, cleanliness="very_dirty", damage="intact")
    assert garage.settle().version == "carcond-0002"
    assert garage.rows()[ids[0]]["classes"] == {"cleanliness": "very_dirty", "damage": "intact"}


def test_a_deleted_task_is_forgotten(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    waiting = next(task_id for task_id in ids[12:] if task_id not in garage.drawn())
    garage.studio.delete_task(ids[0])
    garage.studio.delete_task(waiting)
    report = garage.settle()
    assert (report.version, report.labelled) == ("carcond-0002", 11)
    assert ids[0] not in garage.rows()


def test_the_majority_of_annotators_decides(garage: Garage) -> None:
    ids = garage.add_photos(20)
    garage.label(*ids[1:10])
    for annotator, damage in enumerate(("damaged", "intact", "damaged")):
        garage.studio.annotate(ids[0], annotator, damage=damage)
    garage.turn()
    row = garage.rows()[ids[0]]
    assert row["classes"] == {"damage": "damaged"}
    assert row["agreement"]["damage"] == pytest.approx(2 / 3)


def test_a_tie_is_left_out_and_listed(garage: Garage) -> None:
    ids = garage.add_photos(20)
    garage.label(*ids[1:10])
    garage.studio.annotate(ids[0], 1, cleanliness="clean", damage="intact")
    garage.studio.annotate(ids[0], 2, cleanliness="clean", damage="damaged")
    garage.turn()
    row = garage.rows()[ids[0]]
    assert (row["classes"], row["ties"]) == ({"cleanliness": "clean"}, ["damage"])


# What administrators do


def test_after_a_change_of_words_the_next_predictions_use_them(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.studio.label_config = label_configs.RUSSIAN
    garage.label(*ids[12:15])
    garage.settle()
    assert all(garage.studio.errors(task_id) == [] for task_id in ids[15:])
    assert garage.rows()[ids[0]]["classes"] == garage.truth[ids[0]]


def test_after_a_change_of_tags_and_fields_the_labels_are_read_anew(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.studio.label_config = label_configs.RENAMED.replace("$picture", "$image")
    garage.label(*ids[12:15])
    report = garage.settle()
    assert (report.version, report.labelled) == ("carcond-0002", 15)
    assert all(set(words) == {"wash_state", "dents"} for words in garage.words(*ids[15:]))
    assert all(garage.studio.errors(task_id) == [] for task_id in ids[15:])


def test_a_config_without_our_tasks_stops_the_turn_with_its_reason(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    garage.studio.label_config = '<View><Image name="image" value="$image"/></View>'
    with pytest.raises(LabelConfigError):
        garage.turn()


def test_a_changed_photo_is_looked_at_again(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    unlike = next(i for i in ids if garage.truth[i] != garage.truth[ids[20]])
    garage.studio.change_photo(ids[20], f"/data/{ids.index(unlike)}.jpg")
    garage.settle()
    kept, vectors = garage.services.store.embeddings(PROJECT, garage.services.encoder_id())
    by_id = dict(zip(kept.tolist(), vectors, strict=True))
    assert (by_id[ids[20]] == by_id[unlike]).all()


def test_a_changed_photo_is_predicted_again_by_the_same_version(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    answered = [i for i in ids[12:] if not garage.opens_blank(i)]
    changed = answered[0]
    unlike = next(i for i in answered if garage.studio.words(i) != garage.studio.words(changed))
    garage.studio.change_photo(changed, f"/data/{ids.index(unlike)}.jpg")
    before = garage.studio.prediction(changed).id
    assert garage.settle().version == "carcond-0001"
    assert garage.studio.words(changed) == garage.studio.words(unlike)
    assert garage.studio.prediction(changed).id == before


def test_a_changed_photo_that_cannot_be_read_loses_its_prediction(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.server.answers["/data/bad.jpg"] = Reply(b"no photo")
    garage.studio.change_photo(ids[20], "/data/bad.jpg")
    garage.settle()
    assert garage.studio.words(ids[20]) == {}


def test_files_of_encoders_that_are_not_in_use_are_removed(garage: Garage) -> None:
    garage.add_photos(3)
    pools = garage.services.settings.models_dir / "cache" / "pools" / str(PROJECT)
    (pools / "former-encoder").mkdir(parents=True)
    garage.turn()
    assert [folder.name for folder in pools.iterdir()] == [garage.services.encoder_id()]


def test_a_turn_without_the_pools_files_does_the_same(garage: Garage) -> None:
    ids = garage.add_photos(40)
    garage.label(*ids[:12])
    garage.settle()
    before = garage.studio.served()
    shutil.rmtree(garage.services.settings.models_dir / "cache")
    assert garage.turn().refitted is False
    assert garage.studio.served() == before
