import json

import numpy as np
import pytest

from carcond.evaluation import evaluate, score
from carcond.heads import UNKNOWN, FloatArray, Heads, IntArray, fit_heads


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
    expected = evaluate(heads, embeddings[known], {"damage": indices[known]})
    assert evaluate(heads, embeddings, {"damage": indices}) == expected
    assert expected["damage"]["photos"] == 7


@pytest.mark.parametrize("classes", [{}, {"damage": np.full(3, UNKNOWN)}, {"cleanliness": np.zeros(3, dtype=int)}])
def test_a_task_without_a_head_or_labels_is_not_in_the_report(classes: dict[str, IntArray], heads: Heads) -> None:
    assert evaluate(heads, np.zeros((3, 8), dtype=np.float32), classes) == {}


def test_an_empty_holdout_gives_an_empty_report(heads: Heads) -> None:
    assert evaluate(heads, np.zeros((0, 8), dtype=np.float32), {"damage": np.zeros(0, dtype=np.int64)}) == {}


def test_a_report_can_be_written_as_json(heads: Heads) -> None:
    report = evaluate(heads, np.zeros((2, 8), dtype=np.float32), {"damage": np.array([0, 1])})
    assert json.loads(json.dumps(report)) == report
