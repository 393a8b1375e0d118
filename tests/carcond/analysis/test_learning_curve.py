import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_val_predict

from carcond.analysis.learning_curve import (
    METRICS,
    Origin,
    cross_predict,
    fit_laws,
    label_histories,
    law,
    log_likelihood,
    measure,
    predict,
    prior_grid,
)
from carcond.arrays import UNKNOWN
from carcond.data.annotations import ConsensusLabel
from carcond.data.dataset import Example, LabelledSet
from tests.carcond.histories import draw_history

# Histories


def labelled_set(count: int) -> LabelledSet:
    label = ConsensusLabel({}, {}, ())
    return LabelledSet(
        [Example(i + 1, "train", label, None) for i in range(count)],
        np.arange(count, dtype=np.float32)[:, np.newaxis],
        {"damage": np.arange(count) % 2, "cleanliness": np.where(np.arange(count) < 3, 1, UNKNOWN)},
        np.arange(count) % 5 == 4,
        np.arange(count),
    )


def test_labels_are_put_into_the_order_in_which_they_were_made() -> None:
    origins = {i: Origin(100 - i, drawn=i == 5, imported=False) for i in range(1, 11)}
    history = label_histories(labelled_set(10), origins)["damage"]
    assert history.embeddings[:, 0].tolist() == list(range(9, -1, -1))
    assert history.indices.tolist() == [1, 0] * 5
    assert np.flatnonzero(history.holdout).tolist() == [0, 5]
    assert np.flatnonzero(history.drawn).tolist() == [5]


def test_a_task_has_only_the_photos_that_it_was_labelled_on() -> None:
    origins = {i: Origin(i, drawn=False, imported=False) for i in range(1, 11)}
    assert len(label_histories(labelled_set(10), origins)["cleanliness"].indices) == 3


def test_imported_labels_are_shuffled_at_their_places() -> None:
    origins = {i: Origin(i, drawn=False, imported=i <= 60) for i in range(1, 101)}
    history = label_histories(labelled_set(100), origins)["damage"]
    first = history.embeddings[:60, 0].tolist()
    assert sorted(first) == list(range(60)) != first
    assert history.embeddings[60:, 0].tolist() == list(range(60, 100))


# Measuring


def test_heads_are_fitted_on_the_first_labels_only() -> None:
    history = draw_history(80)
    changed = history.embeddings.copy()
    changed[50:] = 0
    photos = np.arange(50)
    same = predict(history, [photos[:40]], photos) == predict(
        type(history)(**{**vars(history), "embeddings": changed}), [photos[:40]], photos
    )
    assert same.all()


def test_labels_of_one_class_predict_that_class() -> None:
    history = draw_history(40)
    ones = np.flatnonzero(history.indices == 1)
    assert predict(history, [ones], np.arange(40)).tolist() == [[1] * 40]


def test_no_photo_is_judged_by_a_head_that_has_seen_it_or_its_group() -> None:
    """Embeddings that say nothing, but are the same within a group: seen, they would be told right."""
    rng = np.random.default_rng(0)
    history = draw_history(300, distance=0.0, dimension=200)
    groups = np.arange(300) // 3
    vectors = rng.normal(size=(100, 200)).astype(np.float32)[groups]
    indices = rng.integers(0, 2, 100)[groups]
    history = type(history)(**{**vars(history), "groups": groups, "embeddings": vectors, "indices": indices})
    rows = np.arange(300)
    predicted = cross_predict(history, rows, rows, [240])
    assert (predicted[0] == indices).mean() < 0.65
    assert (predict(history, [rows], rows)[0] == indices).mean() == 1.0


def test_cross_predictions_are_about_as_good_as_scikit_learns() -> None:
    history = draw_history(400, seed=1)
    rows = np.arange(400)
    ours = (cross_predict(history, rows, rows, [400])[0] == history.indices).mean()
    model = LogisticRegression(C=0.01, class_weight="balanced")
    theirs = (cross_val_predict(model, history.embeddings, history.indices, cv=5) == history.indices).mean()
    assert ours == pytest.approx(theirs, abs=0.02)


def test_errors_equal_scikit_learns() -> None:
    history = draw_history(90)
    predicted = np.random.default_rng(0).integers(0, 2, (3, 90))
    measured = measure(history, np.arange(90), predicted)
    for row in range(3):
        assert measured.errors["accuracy"][row] == pytest.approx(np.mean(predicted[row] != history.indices))
        f1 = f1_score(history.indices, predicted[row], average="macro")
        assert measured.errors["macro_f1"][row] == pytest.approx(1 - f1)


def test_the_covariance_of_the_accuracy_is_that_of_the_mean() -> None:
    history = draw_history(200)
    predicted = np.random.default_rng(0).integers(0, 2, (3, 200))
    wrong = predicted != history.indices
    found = measure(history, np.arange(200), predicted).covariances["accuracy"]
    assert found == pytest.approx(np.cov(wrong) / 200, abs=3e-4)


def test_photos_of_one_group_are_one_witness() -> None:
    history = draw_history(200)
    predicted = np.repeat(np.random.default_rng(0).integers(0, 2, (2, 50)), 4, axis=1)
    indices = np.repeat(history.indices[:50], 4)
    alone = type(history)(**{**vars(history), "indices": indices})
    together = type(history)(**{**vars(alone), "groups": np.arange(200) // 4})
    widths = [measure(each, np.arange(200), predicted).covariances["accuracy"][0, 0] for each in (alone, together)]
    assert widths[1] / widths[0] == pytest.approx(4, rel=0.3)


# Laws


def test_a_law_is_an_inverse_power_law() -> None:
    relative = np.array([0.25, 1.0, 4.0])
    assert law(np.array([0.5]), np.array([0.5]), relative) == pytest.approx(np.array([[1.5, 1.0, 0.75]]))


def test_the_likelihood_is_that_of_a_normal_distribution_with_the_scale_integrated_over() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    covariance, errors = root @ root.T / 100 + np.eye(4) / 100, np.array([0.4, 0.35, 0.3, 0.28])
    shapes = law(np.array([0.2, 0.9]), np.array([0.5, 0.7]), np.array([0.2, 0.4, 0.8, 1.0]))
    scales = np.linspace(-5, 5, 100_001)
    slow = [np.trapezoid(multivariate_normal.pdf(errors - scales[:, None] * s, cov=covariance), scales) for s in shapes]
    found = log_likelihood(shapes, errors, covariance)
    assert found[1] - found[0] == pytest.approx(np.log(slow[1] / slow[0]), abs=1e-4)


@pytest.mark.parametrize(("reducible", "exponent"), [(0.2, 0.9), (0.5, 0.5), (0.8, 0.5), (0.95, 1.2)])
def test_a_law_seen_without_noise_is_recognised(reducible: float, exponent: float) -> None:
    relative = np.array([0.1, 0.13, 0.18, 0.24, 0.33, 0.44, 0.6, 0.8])
    errors = 0.2 * law(np.array([reducible]), np.array([exponent]), relative)[0]
    laws = fit_laws(relative, errors, np.eye(8) * 1e-6)
    ahead = np.array([1.5])
    expected = float(laws.weights @ laws.at(ahead)[:, 0])
    assert expected == pytest.approx(law(np.array([reducible]), np.array([exponent]), ahead)[0, 0], abs=0.03)


def test_of_laws_drawn_at_random_the_interval_holds_the_end_as_often_as_it_says() -> None:
    """What is ahead is known here: 90 % intervals of the share that the next labels take away."""
    rng = np.random.default_rng(0)
    reducible, exponents = prior_grid()
    relative, ahead = np.array([0.15, 0.21, 0.29, 0.41, 0.57, 0.8]), np.array([1.5])
    inside = []
    for _ in range(300):
        one = rng.integers(len(reducible), size=1)
        errors = 0.15 * law(reducible[one], exponents[one], relative)[0]
        noise = np.full((6, 6), 0.01**2) + np.eye(6) * 0.005**2
        luck = 0.05 * errors * rng.standard_normal(6)
        laws = fit_laws(relative, errors + luck + rng.multivariate_normal(np.zeros(6), noise), noise)
        ends = laws.at(ahead)[:, 0]
        order = np.argsort(ends)
        low, high = np.interp([0.05, 0.95], np.cumsum(laws.weights[order]), ends[order])
        inside.append(low - 1e-9 <= law(reducible[one], exponents[one], ahead)[0, 0] <= high + 1e-9)
    assert 0.86 <= np.mean(inside) <= 0.97


def test_metrics_are_those_that_are_measured() -> None:
    history = draw_history(60)
    measured = measure(history, np.arange(60), cross_predict(history, np.arange(60), np.arange(60), [20, 40]))
    assert set(measured.errors) == set(measured.covariances) == set(METRICS)
