import numpy as np
import pytest
from scipy.stats import binomtest, dirichlet
from sklearn.metrics import f1_score

from carcond.arrays import IntArray
from carcond.evaluation.intervals import macro_f1_interval, wilson_interval


@pytest.mark.parametrize(("right", "photos"), [(0, 1), (1, 1), (0, 10), (9, 10), (10, 10), (150, 200), (999, 1000)])
def test_the_interval_of_a_share_is_that_of_scipy(right: int, photos: int) -> None:
    reference = binomtest(right, photos).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, photos) == pytest.approx((reference.low, reference.high), abs=1e-6)


def plain_interval(confusion: IntArray) -> tuple[float, float]:
    """Row by row with scipy's Dirichlet distribution, the F1 as weighted photos in scikit-learn."""
    rng = np.random.default_rng(1)
    count = len(confusion)
    truth, guess = np.divmod(np.arange(count**2), count)
    present = [k for k in range(count) if confusion[k].sum()]
    drawn = []
    for _ in range(800):
        weights = np.zeros((count, count))
        for k in present:
            weights[k] = confusion[k].sum() * dirichlet.rvs(confusion[k] + 1 / count, random_state=rng)[0]
        drawn.append(f1_score(truth, guess, labels=present, average="macro", sample_weight=weights.ravel()))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.slow
@pytest.mark.parametrize(
    "confusion", [[[9, 1], [2, 8]], [[30, 5, 1], [4, 12, 3], [0, 2, 7]], [[30, 5, 1], [0, 0, 0], [0, 2, 7]]]
)
def test_the_interval_of_the_macro_f1_is_that_of_plain_draws(confusion: list[list[int]]) -> None:
    counts = np.array(confusion)
    assert macro_f1_interval(counts) == pytest.approx(plain_interval(counts), abs=0.025)


def test_the_true_macro_f1_lies_in_about_95_of_100_intervals() -> None:
    rng = np.random.default_rng(0)
    shares = np.array([[0.6, 0.05], [0.05, 0.3]])
    true = np.mean(2 * np.diag(shares) / (shares.sum(axis=0) + shares.sum(axis=1)))
    drawn = [rng.multinomial(30, shares.ravel()).reshape(2, 2) for _ in range(300)]
    hits = sum(low <= true <= high for low, high in map(macro_f1_interval, drawn))
    assert 0.91 <= hits / 300 <= 0.99


def test_ten_right_of_ten_are_not_certain() -> None:
    low, high = macro_f1_interval(np.array([[5, 0], [0, 5]]))
    assert 0.5 < low < 0.9
    assert high == 1


@pytest.mark.parametrize("confusion", [[[3, 0], [0, 2]], [[0, 3], [2, 0]], [[9, 1], [2, 8]]])
def test_the_interval_holds_what_was_measured(confusion: list[list[int]]) -> None:
    counts = np.array(confusion)
    measured = np.mean(2 * np.diag(counts) / (counts.sum(axis=0) + counts.sum(axis=1)))
    low, high = macro_f1_interval(counts)
    assert low <= measured <= high


def test_the_interval_is_the_same_each_time() -> None:
    confusion = np.array([[9, 1], [2, 8]])
    assert macro_f1_interval(confusion) == macro_f1_interval(confusion)
