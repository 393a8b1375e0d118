import numpy as np
import pytest
from scipy.stats import foldnorm
from sklearn.metrics import log_loss

from carcond.arrays import FloatArray, IntArray
from carcond.evaluation.calibration import (
    brier_score,
    calibration_error,
    calibration_figures,
    negative_log_likelihood,
    reliability_bins,
)


def draw(count: int, truth: float, said: float, seed: int) -> tuple[FloatArray, IntArray]:
    """Photos whose predicted class, said with probability `said`, is right with probability `truth`."""
    right = np.random.default_rng(seed).uniform(size=count) < truth
    probabilities = np.tile(np.array([1 - said, said], dtype=np.float32), (count, 1))
    return probabilities, right.astype(np.int64)


@pytest.mark.parametrize(("truth", "said"), [(0.7, 0.9), (0.9, 0.7), (0.8, 0.8), (0.95, 0.99)])
def test_with_many_photos_it_is_the_distance_of_confidence_and_accuracy(truth: float, said: float) -> None:
    assert calibration_error(*draw(50_000, truth, said, 0)) == pytest.approx(abs(truth - said), abs=0.01)


def plain_error(probabilities: FloatArray, indices: IntArray) -> float:
    """Ten bins of equal size, written as a loop, without taking anything off."""
    order = np.argsort(probabilities.max(axis=1), kind="stable")
    total = 0.0
    for part in np.array_split(order, 10):
        right = np.mean(probabilities[part].argmax(axis=1) == indices[part])
        total += len(part) * abs(right - probabilities[part].max(axis=1).mean())
    return total / len(indices)


def test_with_few_photos_honest_probabilities_err_less_than_the_plain_figure_says() -> None:
    drawn = [draw(300, 0.8, 0.8, seed) for seed in range(30)]
    found = np.mean([calibration_error(*each) for each in drawn])
    plain = np.mean([plain_error(*each) for each in drawn])
    assert found < 0.75 * plain


@pytest.mark.parametrize(("accuracy", "confidence"), [(0.8, 0.9), (0.7, 0.7), (0.5, 0.9)])
def test_what_chance_adds_is_what_drawing_the_bins_again_adds(accuracy: float, confidence: float) -> None:
    """One bin, against a simulation of its normal distribution."""
    probabilities = np.tile(np.array([1 - confidence, confidence]), (10, 1)).astype(np.float32)
    indices = (np.arange(10) < round(accuracy * 10)).astype(np.int64)
    probabilities, indices = np.repeat(probabilities, 10, 0), np.tile(indices, 10)
    deviation = np.sqrt(accuracy * (1 - accuracy) / 10)
    drawn = np.random.default_rng(0).normal(accuracy, deviation, 200_000)
    plain = abs(accuracy - confidence)
    added = np.abs(drawn - confidence).mean() - plain
    # Equal confidences stay in order, so that each bin has ten photos in the shares of the whole.
    assert calibration_error(probabilities, indices) == pytest.approx(max(plain - added, 0), abs=2e-3)


def draw_many(count: int, class_count: int, seed: int) -> tuple[FloatArray, IntArray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(class_count), size=count).astype(np.float32)
    return probabilities, rng.integers(0, class_count, size=count)


@pytest.mark.parametrize("class_count", [2, 3])
@pytest.mark.parametrize("count", [1, 7, 95, 300])
def test_the_error_is_that_of_bins_debiased_with_the_folded_normal_distribution_of_scipy(
    count: int, class_count: int
) -> None:
    probabilities, indices = draw_many(count, class_count, count)
    total = 0.0
    for part in np.array_split(np.argsort(probabilities.max(axis=1), kind="stable"), max(1, min(10, count // 5))):
        accuracy = np.mean(probabilities[part].argmax(axis=1) == indices[part])
        plain = abs(accuracy - probabilities[part].max(axis=1).mean())
        deviation = np.sqrt(accuracy * (1 - accuracy) / len(part))
        expected = foldnorm.mean(plain / deviation, scale=deviation) if deviation else plain
        total += len(part) * (2 * plain - expected)
    assert calibration_error(probabilities, indices) == pytest.approx(np.clip(total / count, 0, 1), abs=1e-6)


def test_a_sure_and_right_model_has_no_error() -> None:
    assert calibration_error(np.eye(3, dtype=np.float32), np.arange(3)) == 0


def test_a_sure_and_wrong_model_has_the_error_one() -> None:
    assert calibration_error(np.array([[1, 0]], dtype=np.float32), np.array([1])) == 1


# Likelihood, Brier score and the reliability diagram


@pytest.mark.parametrize("class_count", [2, 3])
def test_the_likelihood_is_that_of_scikit_learn(class_count: int) -> None:
    probabilities, indices = draw_many(60, class_count, 0)
    exact = probabilities.astype(np.float64)
    reference = log_loss(indices, exact / exact.sum(axis=1, keepdims=True), labels=range(class_count))
    assert negative_log_likelihood(probabilities, indices) == pytest.approx(reference, rel=1e-4)


@pytest.mark.parametrize("class_count", [2, 3])
def test_the_brier_score_is_that_of_plain_loops(class_count: int) -> None:
    probabilities, indices = draw_many(60, class_count, 0)
    total = 0.0
    for row, truth in zip(probabilities.tolist(), indices.tolist(), strict=True):
        total += sum((said - (k == truth)) ** 2 for k, said in enumerate(row))
    assert brier_score(probabilities, indices) == pytest.approx(total / 60)


def test_the_brier_score_of_a_sure_and_wrong_model_is_two() -> None:
    assert brier_score(np.array([[1, 0]], dtype=np.float32), np.array([1])) == 2


def test_bins_hold_all_photos_from_the_least_to_the_most_confident() -> None:
    probabilities, indices = draw_many(95, 3, 0)
    bins = reliability_bins(probabilities, indices)
    confidences = [each["confidence"] for each in bins]
    assert confidences == sorted(confidences)
    assert [each["photos"] for each in bins] == [10] * 5 + [9] * 5
    right = sum(each["accuracy"] * each["photos"] for each in bins)
    assert right == pytest.approx((probabilities.argmax(axis=1) == indices).sum())


@pytest.mark.parametrize(("count", "expected"), [(1, [1]), (9, [9]), (14, [7, 7]), (23, [6, 6, 6, 5])])
def test_a_bin_has_five_photos_or_more_where_there_are_so_many(count: int, expected: list[int]) -> None:
    """Of one photo, it would be all right or all wrong."""
    assert [each["photos"] for each in reliability_bins(*draw_many(count, 3, 0))] == expected


def test_the_bins_of_few_photos() -> None:
    bins = reliability_bins(np.array([[0.9, 0.1], [0.4, 0.6]], dtype=np.float32), np.array([0, 0]))
    assert bins == [{"confidence": pytest.approx(0.75), "accuracy": 0.5, "photos": 2}]


def test_all_figures_come_together() -> None:
    probabilities, indices = draw_many(60, 3, 0)
    assert calibration_figures(probabilities, indices) == {
        "nll": negative_log_likelihood(probabilities, indices),
        "brier": brier_score(probabilities, indices),
        "ece": calibration_error(probabilities, indices),
        "bins": reliability_bins(probabilities, indices),
    }
