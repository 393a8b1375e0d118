import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as reference_confusion
from sklearn.metrics import f1_score, precision_recall_fscore_support

from carcond.arrays import UNKNOWN, FloatArray, IntArray, softmax
from carcond.evaluation.calibration import calibration_figures
from carcond.evaluation.f1 import mean_f1
from carcond.evaluation.metrics import (
    class_scores,
    combined_accuracy,
    confusion_matrix,
    evaluate,
    macro_f1,
    score,
)
from carcond.model.head_fitting import fit_heads
from carcond.model.heads import Heads
from carcond.taxonomy import CLEANLINESS


def random_answers(class_count: int, count: int = 80, seed: int = 0) -> tuple[FloatArray, IntArray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(class_count), size=count).astype(np.float32)
    return probabilities, rng.integers(0, class_count, size=count)


@pytest.fixture(scope="module")
def heads() -> Heads:
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 2, size=40)
    embeddings = (rng.normal(size=(40, 8)) + indices[:, None]).astype(np.float32)
    return fit_heads("tiny", embeddings, {"damage": indices})


@pytest.mark.parametrize("class_count", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_that_plain_loops_give(class_count: int, seed: int) -> None:
    probabilities, indices = random_answers(class_count, seed=seed)
    predicted = [row.index(max(row)) for row in probabilities.tolist()]
    confusion = [[0] * class_count for _ in range(class_count)]
    for truth, guess in zip(indices, predicted, strict=True):
        confusion[truth][guess] += 1
    f1 = []
    for k in range(class_count):
        hits, stated, true = confusion[k][k], sum(row[k] for row in confusion), sum(confusion[k])
        f1.append(2 * hits / (stated + true))
    report = score(probabilities, indices)
    assert report["photos"] == 80
    assert report["confusion"] == confusion
    assert report["accuracy"] == pytest.approx(sum(confusion[k][k] for k in range(class_count)) / 80)
    assert report["macro_f1"] == pytest.approx(sum(f1) / class_count)
    assert report["nll"] == pytest.approx(-np.mean([np.log(probabilities[i, k]) for i, k in enumerate(indices)]))


@pytest.mark.parametrize("class_count", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_scikit_learn(class_count: int, seed: int) -> None:
    probabilities, indices = random_answers(class_count, 12, seed)
    predicted = probabilities.argmax(axis=1)
    report = score(probabilities, indices)
    assert len(np.unique(indices)) > 1
    assert report["macro_f1"] == pytest.approx(
        f1_score(indices, predicted, labels=np.unique(indices), average="macro", zero_division=0.0)
    )
    assert report["confusion"] == reference_confusion(indices, predicted, labels=range(class_count)).tolist()


@pytest.mark.parametrize("seed", range(8))
def test_scores_by_class_are_those_of_scikit_learn(seed: int) -> None:
    probabilities, indices = random_answers(3, 8, seed)
    predicted = probabilities.argmax(axis=1)
    reference = precision_recall_fscore_support(indices, predicted, labels=range(3), zero_division=0.0)
    found = class_scores(confusion_matrix(predicted, indices, 3), CLEANLINESS)
    assert list(found["classes"]) == list(CLEANLINESS.class_keys)
    for k, each in enumerate(found["classes"].values()):
        figures = [each[name] or 0.0 for name in ("precision", "recall", "f1", "support")]
        assert figures == pytest.approx([column[k] for column in reference])
    present = np.unique(indices)
    assert found["precision"] == pytest.approx(reference[0][present].mean())
    assert found["recall"] == pytest.approx(reference[1][present].mean())


def test_what_cannot_be_said_of_a_class_is_none() -> None:
    """The first class is never predicted, the last neither occurs nor is predicted."""
    classes = class_scores(np.array([[0, 2, 0], [0, 3, 0], [0, 0, 0]]), CLEANLINESS)["classes"]
    assert classes["clean"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 2}
    assert classes["very_dirty"] == {"precision": None, "recall": None, "f1": None, "support": 0}


def test_a_class_that_does_not_occur_takes_no_part_in_the_f1() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], dtype=np.float32)
    assert score(probabilities, np.array([0, 1]))["macro_f1"] == 1.0


def test_a_class_that_is_never_found_counts_as_zero() -> None:
    probabilities = np.array([[0.8, 0.2], [0.8, 0.2]], dtype=np.float32)
    assert score(probabilities, np.array([0, 1]))["macro_f1"] == pytest.approx(1 / 3)


def test_a_class_thought_impossible_costs_much_but_not_infinity() -> None:
    report = score(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]))
    assert report["nll"] == pytest.approx(-np.log(1e-12))


def test_the_confusion_has_all_classes_even_when_one_photo_is_measured() -> None:
    report = score(np.array([[0.2, 0.7, 0.1]], dtype=np.float32), np.array([2]))
    assert report["confusion"] == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_photos_with_an_unknown_label_are_not_measured(heads: Heads) -> None:
    embeddings = np.random.default_rng(1).normal(size=(10, 8)).astype(np.float32)
    indices = np.array([0, 1, UNKNOWN, UNKNOWN, 1, 0, UNKNOWN, 0, 1, 1])
    known = indices != UNKNOWN
    groups = np.arange(10)
    expected = evaluate(heads, embeddings[known], {"damage": indices[known]}, groups[known])
    assert evaluate(heads, embeddings, {"damage": indices}, groups) == expected
    assert expected["damage"]["photos"] == 7


@pytest.mark.parametrize("classes", [{}, {"damage": np.full(3, UNKNOWN)}, {"cleanliness": np.zeros(3, dtype=int)}])
def test_a_task_without_a_head_or_labels_is_not_in_the_report(classes: dict[str, IntArray], heads: Heads) -> None:
    assert evaluate(heads, np.zeros((3, 8), dtype=np.float32), classes, np.arange(3)) == {}


def test_an_empty_holdout_gives_an_empty_report(heads: Heads) -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert evaluate(heads, np.zeros((0, 8), dtype=np.float32), {"damage": nothing}, nothing) == {}


def test_a_report_can_be_written_as_json(heads: Heads) -> None:
    report = evaluate(heads, np.zeros((2, 8), dtype=np.float32), {"damage": np.array([0, 1])}, np.arange(2))
    assert json.loads(json.dumps(report)) == report


def test_calibration_is_measured_at_temperature_one_and_at_the_chosen_one(heads: Heads) -> None:
    rng = np.random.default_rng(2)
    embeddings, indices = rng.normal(size=(30, 8)).astype(np.float32), rng.integers(0, 2, size=30)
    report = evaluate(heads, embeddings, {"damage": indices}, np.arange(30))["damage"]
    head = heads.by_task["damage"]
    assert report["before"] == calibration_figures(softmax(head.logits(embeddings)), indices)
    assert report["after"] == calibration_figures(head.probabilities(embeddings), indices)
    assert report["after"]["nll"] == report["nll"]


def test_calibration_is_measured_by_temperatures_that_were_chosen_without_the_photo(heads: Heads) -> None:
    rng = np.random.default_rng(2)
    embeddings, indices = rng.normal(size=(30, 8)).astype(np.float32), rng.integers(0, 2, size=30)
    groups = rng.integers(0, 12, size=30)
    temperatures = np.array([0.5, 1, 2, 3, 4], dtype=np.float32)
    head = replace(heads.by_task["damage"], fold_temperatures=temperatures)
    report = evaluate(replace(heads, by_task={"damage": head}), embeddings, {"damage": indices}, groups)["damage"]
    expected = np.stack(
        [softmax(head.logits(embeddings)[i : i + 1] / temperatures[groups[i] % 5])[0] for i in range(30)]
    )
    assert report["after"]["nll"] == pytest.approx(calibration_figures(expected, indices)["nll"], rel=1e-5)
    assert report["after"]["brier"] == pytest.approx(calibration_figures(expected, indices)["brier"], rel=1e-5)


def test_figures_lie_in_their_intervals(heads: Heads) -> None:
    rng = np.random.default_rng(3)
    embeddings, indices = rng.normal(size=(30, 8)).astype(np.float32), rng.integers(0, 2, size=30)
    report = evaluate(heads, embeddings, {"damage": indices}, np.arange(30))["damage"]
    for name in ("accuracy", "macro_f1"):
        low, high = report[f"{name}_interval"]
        assert 0 <= low < report[name] < high <= 1


# All tasks together


def test_tasks_are_right_together_where_each_is_right() -> None:
    classes = {"cleanliness": np.array([0, 1, 2, 1, UNKNOWN]), "damage": np.array([0, 1, 1, UNKNOWN, 0])}
    predicted = {"cleanliness": np.array([0, 1, 0, 1, 0]), "damage": np.array([0, 0, 1, 1, 0])}
    found = combined_accuracy(predicted, classes)
    assert (found["photos"], found["accuracy"]) == (3, pytest.approx(1 / 3))
    low, high = found["accuracy_interval"]
    assert low < 1 / 3 < high


def test_one_task_alone_is_not_together() -> None:
    assert combined_accuracy({"damage": np.array([0])}, {"damage": np.array([0])}) == {}


def test_no_photo_with_all_labels_leaves_nothing_to_say() -> None:
    classes = {"cleanliness": np.array([0, UNKNOWN]), "damage": np.array([UNKNOWN, 1])}
    assert combined_accuracy(classes, classes) == {}


def test_one_class_alone_has_no_macro_f1() -> None:
    confusion = np.array([[7, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert macro_f1(confusion) is None
    assert mean_f1(confusion) == 1.0
    assert macro_f1(confusion + np.eye(3, dtype=np.int64)) == 1.0
