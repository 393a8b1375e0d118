import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from carcond.evaluation.f1 import f1_from_counts, mean_f1


@pytest.mark.parametrize("seed", range(20))
def test_it_is_scikit_learns_over_the_classes_that_occur(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, rng.integers(1, 5), 30), rng.integers(0, 4, 30)
    confusion = confusion_matrix(true, predicted, labels=range(4))
    occurring = np.unique(true)
    assert mean_f1(confusion) == pytest.approx(f1_score(true, predicted, labels=occurring, average="macro"))
    by_class = f1_from_counts(np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1))
    expected = f1_score(true, predicted, labels=range(4), average=None, zero_division=0)
    np.testing.assert_allclose(by_class, expected)


def test_many_matrices_give_what_each_gives_alone() -> None:
    tables = np.random.default_rng(0).integers(0, 9, (50, 3, 3))
    np.testing.assert_allclose(mean_f1(tables), [mean_f1(table) for table in tables])
