import dataclasses

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from carcond.analysis.holdout_curve import holdout_curve
from carcond.model.head_fitting import fit_linear
from tests.carcond.histories import draw_history


def test_the_curve_rises_and_ends_with_all_labels() -> None:
    curve = holdout_curve(draw_history(400, distance=3.0))
    assert curve["labels"][0] == 6
    assert curve["labels"][-1] == 320
    assert curve["labels"] == sorted(set(curve["labels"]))
    assert curve["holdout"] == 80
    assert curve["accuracy"][-1][0] > curve["accuracy"][0][0] + 0.05
    assert all(low <= value <= high for name in ("accuracy", "macro_f1") for value, low, high in curve[name])


def test_a_point_is_what_scikit_learn_measures_of_heads_fitted_on_the_first_labels() -> None:
    history = draw_history(300, seed=3, distance=3.0)
    train, held = np.flatnonzero(~history.holdout), np.flatnonzero(history.holdout)
    curve = holdout_curve(history)
    for place in (0, 4, -1):
        first = train[: curve["labels"][place]]
        weight, bias = fit_linear(history.embeddings[first], history.indices[first], 2)
        answers = (history.embeddings[held] @ weight.T + bias).argmax(axis=1)
        truth = history.indices[held]
        assert curve["accuracy"][place][0] == pytest.approx(accuracy_score(truth, answers))
        assert curve["macro_f1"][place][0] == pytest.approx(f1_score(truth, answers, average="macro"))


def test_holdout_labels_teach_nothing() -> None:
    history = draw_history(200, distance=3.0)
    turned = dataclasses.replace(history, indices=np.where(history.holdout, 1 - history.indices, history.indices))
    right, wrong = (holdout_curve(each)["accuracy"] for each in (history, turned))
    assert [value for value, _, _ in wrong] == pytest.approx([1 - value for value, _, _ in right])


@pytest.mark.parametrize(("count", "held"), [(5, 0.0), (20, 0.2), (60, 0.0)])
def test_too_few_labels_give_no_points(count: int, held: float) -> None:
    curve = holdout_curve(draw_history(count, held=held))
    assert (curve["labels"], curve["accuracy"], curve["macro_f1"]) == ([], [], [])


def test_a_holdout_of_one_class_has_accuracies_and_no_macro_f1() -> None:
    history = draw_history(120, held=0.2)
    one = dataclasses.replace(history, indices=np.where(history.holdout, 1, history.indices))
    curve = holdout_curve(one)
    assert len(curve["accuracy"]) == len(curve["labels"]) > 0
    assert curve["macro_f1"] == []
