import json
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import f1_score

from carcond.data.dataset import LabelledSet, labelled_set, merge_annotations
from carcond.data.split import HOLDOUT, TRAIN
from carcond.evaluation.metrics import evaluate
from carcond.evaluation.report_card import report_card
from carcond.model.head_fitting import Holdout, fit_heads
from carcond.model.heads import Heads
from carcond.store.tables import AnnotationRow, Photo
from carcond.taxonomy import CLEANLINESS, DAMAGE

TRUTHS = [{"damage": DAMAGE.class_keys[i % 2], "cleanliness": CLEANLINESS.class_keys[i % 3]} for i in range(120)]


def annotation(task_id: int, annotator: int, classes: dict[str, str]) -> AnnotationRow:
    return AnnotationRow(
        project_id=1,
        annotation_id=task_id * 10 + annotator,
        task_id=task_id,
        annotator=annotator,
        updated_at="2026-01-01T10:00:00Z",
        cancelled=False,
        classes=classes,
    )


def make_set(annotations: Sequence[AnnotationRow], sources: Sequence[str | None]) -> LabelledSet:
    """Photos 1, 2, ... of which every third is held out; embeddings tell the classes of `TRUTHS`, with noise."""
    rng = np.random.default_rng(0)
    count = len(sources)
    embeddings = rng.normal(size=(count, 12))
    for i, truth in enumerate(TRUTHS[:count]):
        embeddings[i, DAMAGE.class_keys.index(truth["damage"])] += 1.5
        embeddings[i, 2 + CLEANLINESS.class_keys.index(truth["cleanliness"])] += 1.5
    photos = [
        Photo(project_id=1, task_id=i + 1, url="/data/upload/1/a.jpg", side=TRAIN if i % 3 else HOLDOUT, source=source)
        for i, source in enumerate(sources)
    ]
    return labelled_set(photos, merge_annotations(annotations), np.arange(1, count + 1), embeddings.astype(np.float32))


def fit(labelled: LabelledSet) -> Heads:
    return fit_heads("tiny", *labelled.side(holdout=False))


@pytest.fixture(scope="module")
def labelled() -> LabelledSet:
    """Annotator 1 labels all photos; 2 labels damage of the first 60 as well, and errs on each tenth."""
    annotations = [annotation(i + 1, 1, truth) for i, truth in enumerate(TRUTHS)]
    for i, truth in enumerate(TRUTHS[:60]):
        said = truth["damage"] if i % 10 else {"intact": "damaged", "damaged": "intact"}[truth["damage"]]
        annotations.append(annotation(i + 1, 2, {"damage": said}))
    sources = ["kolesa" if i % 4 else "auto" for i in range(119)]
    return make_set(annotations, [*sources, None])


@pytest.fixture(scope="module")
def heads(labelled: LabelledSet) -> Heads:
    return fit(labelled)


def test_a_card_can_be_written_as_json(labelled: LabelledSet, heads: Heads) -> None:
    card = report_card(labelled, heads)
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_the_holdout_is_measured_and_nothing_else(labelled: LabelledSet, heads: Heads) -> None:
    card = report_card(labelled, heads)
    assert card["holdout"] == evaluate(heads, *labelled.side(holdout=True), labelled.groups[labelled.holdout])
    assert card["labels"] == {"train": 80, "holdout": 40, "unusable": 0}
    # Where the two annotators differ there is a tie, and no label.
    assert card["labelled_by_task"] == {"cleanliness": 120, "damage": 114}
    assert card["combined"]["photos"] == 38


def test_the_temperature_comes_with_the_photos_it_was_chosen_on(labelled: LabelledSet, heads: Heads) -> None:
    calibration = report_card(labelled, heads)["calibration"]["cleanliness"]
    temperature = round(heads.by_task["cleanliness"].temperature, 4)
    assert calibration == {"temperature": temperature, "cross_fitted": True, "photos": 80, "holdout_photos": 0}


def test_a_temperature_that_was_chosen_on_the_holdout_too_counts_its_photos(labelled: LabelledSet) -> None:
    holdout = Holdout(*labelled.side(holdout=True), labelled.groups[labelled.holdout])
    heads = fit_heads("tiny", *labelled.side(holdout=False), holdout=holdout)
    calibration = report_card(labelled, heads)["calibration"]
    photos = {task: (facts["photos"], facts["holdout_photos"]) for task, facts in calibration.items()}
    assert photos == {"cleanliness": (120, 40), "damage": (114, 38)}


def test_a_temperature_that_was_chosen_on_the_holdout_alone_counts_no_training_photo(labelled: LabelledSet) -> None:
    holdout = Holdout(*labelled.side(holdout=True), labelled.groups[labelled.holdout])
    train = labelled.side(holdout=False)
    seen = np.zeros(len(train[0]), dtype=np.bool_)
    heads = fit_heads("tiny", *train, fresh=seen, holdout=holdout)
    calibration = report_card(labelled, heads)["calibration"]["damage"]
    assert (calibration["photos"], calibration["holdout_photos"]) == (38, 38)


def test_a_temperature_that_was_not_chosen_was_chosen_on_no_photo(labelled: LabelledSet) -> None:
    embeddings, classes = labelled.side(holdout=False)
    two = [int(np.flatnonzero(classes["damage"] == k)[0]) for k in range(2)]
    few = fit_heads("tiny", embeddings[two], {"damage": classes["damage"][two]})
    calibration = report_card(labelled, few)["calibration"]
    assert calibration == {"damage": {"temperature": 1.0, "cross_fitted": False, "photos": 0, "holdout_photos": 0}}


def test_each_source_has_its_own_scores_and_the_largest_comes_first(labelled: LabelledSet, heads: Heads) -> None:
    rows = report_card(labelled, heads)["sources"]
    assert [(row["source"], row["labels"]) for row in rows] == [("kolesa", 89), ("auto", 30), ("data/upload/1", 1)]
    held = [i for i in range(0, 120, 3) if i % 4 == 0]  # of the source "auto"
    head = heads.by_task["cleanliness"]
    predicted = head.probabilities(labelled.embeddings[held]).argmax(axis=1)
    truth = np.array([i % 3 for i in held])
    assert rows[1]["photos"] == len(held)
    assert set(truth) == {0}
    assert rows[1]["tasks"]["cleanliness"] == {
        "photos": len(held),
        "accuracy": pytest.approx((predicted == truth).mean()),
        "macro_f1": None,
    }
    others = [i for i in range(0, 119, 3) if i % 4 and i != 30]  # of "kolesa"; 30 has a tie
    damage = np.array([i % 2 for i in others])
    told = heads.by_task["damage"].probabilities(labelled.embeddings[others]).argmax(axis=1)
    assert rows[0]["tasks"]["damage"]["macro_f1"] == pytest.approx(f1_score(damage, told, average="macro"))


def test_a_source_without_holdout_photos_has_labels_and_no_score(labelled: LabelledSet, heads: Heads) -> None:
    row = report_card(labelled, heads)["sources"][2]
    assert row == {"source": "data/upload/1", "labels": 1, "photos": 0, "tasks": {}}


def test_all_but_the_20_largest_sources_are_one_row(heads: Heads) -> None:
    annotations = [annotation(i + 1, 1, truth) for i, truth in enumerate(TRUTHS[:60])]
    card = report_card(make_set(annotations, [f"site {i % 25:02d}" for i in range(60)]), heads)
    rows = card["sources"]
    assert len(rows) == 21
    assert rows[0]["source"] == "site 00"
    assert rows[20]["sources"] == 5
    assert "source" not in rows[20]
    assert sum(row["labels"] for row in rows) == 60
    assert sum(row["photos"] for row in rows) == card["labels"]["holdout"]


def test_the_model_is_measured_against_what_each_annotator_said(labelled: LabelledSet, heads: Heads) -> None:
    first, second = report_card(labelled, heads)["annotators"]
    assert (first["annotator"], first["labels"], first["share"]) == (1, 120, pytest.approx(120 / 180))
    assert (second["annotator"], second["labels"], second["photos"]) == (2, 60, 20)
    held = list(range(0, 60, 3))
    said = np.array([i % 2 if i % 10 else 1 - i % 2 for i in held])
    predicted = heads.by_task["damage"].probabilities(labelled.embeddings[held]).argmax(axis=1)
    assert second["tasks"]["damage"]["accuracy"] == pytest.approx((predicted == said).mean())
    assert "cleanliness" not in second["tasks"]


def test_agreement_counts_answers_that_others_gave_too_and_a_tie_agrees_with_nobody(
    labelled: LabelledSet, heads: Heads
) -> None:
    rows = report_card(labelled, heads)["annotators"]
    assert [row["agreement"] for row in rows] == [pytest.approx(0.9)] * 2


def test_an_annotator_alone_agrees_with_nobody_and_contradicts_nobody(heads: Heads) -> None:
    alone = make_set([annotation(i + 1, 1, truth) for i, truth in enumerate(TRUTHS[:9])], [None] * 9)
    assert report_card(alone, heads)["annotators"][0]["agreement"] is None


def test_a_photo_without_an_embedding_counts_as_a_label_and_is_not_measured(heads: Heads) -> None:
    photos = [Photo(project_id=1, task_id=i, url="", side=HOLDOUT) for i in (1, 2)]
    labels = merge_annotations([annotation(i, 1, {"damage": "intact"}) for i in (1, 2)])
    card = report_card(labelled_set(photos, labels, np.array([2]), np.zeros((1, 12), dtype=np.float32)), heads)
    assert card["labels"] == {"train": 0, "holdout": 1, "unusable": 1}
    assert (card["sources"][0]["labels"], card["sources"][0]["photos"]) == (2, 1)


def test_an_empty_holdout_leaves_the_measured_parts_empty(heads: Heads) -> None:
    photos = [Photo(project_id=1, task_id=1, url="", side=TRAIN)]
    labels = merge_annotations([annotation(1, 1, {"damage": "intact"})])
    card = report_card(labelled_set(photos, labels, np.array([1]), np.zeros((1, 12), dtype=np.float32)), heads)
    assert (card["holdout"], card["combined"]) == ({}, {})
    assert card["sources"][0]["photos"] == 0
