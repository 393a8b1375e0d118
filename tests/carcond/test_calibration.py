import numpy as np
import pytest

from carcond.calibration import calibration_error
from carcond.heads import FloatArray, IntArray


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


def test_a_sure_and_right_model_has_no_error() -> None:
    assert calibration_error(np.eye(3, dtype=np.float32), np.arange(3)) == 0


def test_a_sure_and_wrong_model_has_the_error_one() -> None:
    assert calibration_error(np.array([[1, 0]], dtype=np.float32), np.array([1])) == 1
