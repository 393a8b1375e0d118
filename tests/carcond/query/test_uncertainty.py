import numpy as np
import pytest
from scipy.stats import entropy as reference_entropy
from skactiveml.pool import uncertainty_scores
from sklearn.linear_model import LogisticRegression

from carcond.arrays import FloatArray
from carcond.model.head_fitting import fit_head
from carcond.query.uncertainty import (
    SCORES,
    Score,
    bald,
    bootstrap_probabilities,
    combine_tasks,
    entropy,
    least_confidence,
    margin,
)
from carcond.taxonomy import CLEANLINESS, DAMAGE


def draw_probabilities(heads: int, photos: int, classes: int, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.5), size=(heads, photos)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize(
    ("score", "method"), [(least_confidence, "least_confident"), (margin, "margin_sampling"), (entropy, "entropy")]
)
def test_scores_of_one_head_are_those_of_scikit_activeml(score: Score, method: str, classes: int) -> None:
    probabilities = draw_probabilities(1, 200, classes)
    np.testing.assert_allclose(score(probabilities), uncertainty_scores(probabilities[0], method=method), atol=1e-5)


@pytest.mark.parametrize("score", [least_confidence, margin, entropy])
def test_scores_of_an_ensemble_are_those_of_its_mean(score: Score) -> None:
    probabilities = draw_probabilities(7, 50, 3)
    np.testing.assert_allclose(score(probabilities), score(probabilities.mean(axis=0, keepdims=True)), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_disagreement_is_the_mean_divergence_of_the_heads_from_their_mean(classes: int) -> None:
    """Mutual information written the other way round, by scipy, photo by photo."""
    probabilities = draw_probabilities(10, 40, classes).astype(np.float64)
    expected = [
        np.mean([reference_entropy(head, probabilities[:, photo].mean(axis=0)) for head in probabilities[:, photo]])
        for photo in range(40)
    ]
    np.testing.assert_allclose(bald(probabilities.astype(np.float32)), expected, atol=1e-5)


def test_heads_that_are_all_unsure_do_not_disagree() -> None:
    np.testing.assert_allclose(bald(np.full((5, 3, 2), 0.5, dtype=np.float32)), 0, atol=1e-6)


def test_heads_that_are_sure_of_opposite_classes_disagree_most() -> None:
    probabilities = np.array([[[1, 0]], [[0, 1]]], dtype=np.float32)
    np.testing.assert_allclose(bald(probabilities), np.log(2), atol=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_no_score_is_negative_or_undefined_even_for_certainty(name: str) -> None:
    certain = np.repeat(np.eye(3, dtype=np.float32)[None], 4, axis=0)
    scores = SCORES[name](np.concatenate([certain, draw_probabilities(4, 20, 3)], axis=1))
    assert scores.shape == (23,)
    assert np.all(scores >= 0)
    np.testing.assert_allclose(scores[:3], 0, atol=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_an_empty_pool_has_no_scores(name: str) -> None:
    assert SCORES[name](np.empty((2, 0, 3), dtype=np.float32)).shape == (0,)


def test_a_hard_task_does_not_drown_an_easy_one() -> None:
    """Cleanliness is uncertain everywhere; the one photo whose damage is in doubt comes first all the same."""
    generator = np.random.default_rng(0)
    hard = generator.uniform(0.5, 0.66, 100).astype(np.float32)
    easy = np.full(100, 0.001, dtype=np.float32)
    easy[42] = 0.3
    assert combine_tasks({"cleanliness": hard, "damage": easy}).argmax() == 42


def test_tasks_weigh_the_same_whatever_the_scale_of_their_scores() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.uniform(size=(2, 30)).astype(np.float32)
    np.testing.assert_allclose(
        combine_tasks({"a": first, "b": second}), combine_tasks({"a": first, "b": 50 * second}), rtol=1e-5
    )


def test_the_mean_of_combined_scores_is_one() -> None:
    generator = np.random.default_rng(0)
    scores = {key: generator.uniform(size=30).astype(np.float32) for key in "abc"}
    assert combine_tasks(scores).mean() == pytest.approx(1, abs=1e-5)


def test_the_scores_of_one_task_keep_their_ratios() -> None:
    scores = np.array([0.1, 0.2, 0.6], dtype=np.float32)
    combined = combine_tasks({"damage": scores})
    np.testing.assert_allclose(combined / combined[0], scores / scores[0], rtol=1e-5)


def test_a_task_that_is_sure_of_everything_changes_no_order() -> None:
    scores = np.array([0.3, 0.1, 0.2], dtype=np.float32)
    combined = combine_tasks({"damage": scores, "cleanliness": np.zeros(3, dtype=np.float32)})
    assert list(np.argsort(combined)) == [1, 2, 0]


def test_no_task_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        combine_tasks({})


def test_bootstrapped_heads_are_those_of_scikit_learn_on_the_same_draws() -> None:
    rng = np.random.default_rng(3)
    indices = rng.integers(0, 3, 60)
    labelled = (rng.normal(size=(3, 8))[indices] + rng.normal(size=(60, 8))).astype(np.float32)
    pool = rng.normal(size=(20, 8)).astype(np.float32)
    head = fit_head(CLEANLINESS, labelled, indices)
    found = bootstrap_probabilities(head, labelled, indices, pool, np.random.default_rng(5), size=3)

    replay = np.random.default_rng(5)
    for probabilities in found:
        members = [np.flatnonzero(indices == index) for index in range(3)]
        drawn = np.concatenate([replay.choice(rows, len(rows)) for rows in members])
        mean, scale = labelled[drawn].mean(axis=0), np.sqrt(labelled[drawn].var(axis=0).mean())
        model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=5000, tol=1e-8)
        model.fit((labelled[drawn] - mean) / scale, indices[drawn])
        logits = model.decision_function((pool - mean) / scale) / head.temperature
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probabilities, expected, atol=5e-3)


def test_a_class_with_one_label_is_in_every_bootstrap_sample() -> None:
    rng = np.random.default_rng(0)
    labelled = rng.normal(size=(20, 4)).astype(np.float32)
    indices = np.array([1] + [0] * 19)
    head = fit_head(DAMAGE, labelled, indices)
    found = bootstrap_probabilities(head, labelled, indices, labelled, rng, size=10)
    assert found.shape == (10, 20, 2)
    assert np.all(found[:, :, 1] > 0)
